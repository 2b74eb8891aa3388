"""mIoU of many configurations, its interval, and the cross-validated figure."""

from __future__ import annotations

import numpy as np
import pytest

from engine.ops.metrics import confusion_matrix, mean_iou
from engine.ops.sweep import mask_counts
from engine.ops.sweep_scores import best_without_folds, bootstrap, cross_validated, intervals, miou, tied_with

NUM_CLASSES, NUM_IMAGES = 3, 24


def _images(error_rate: float, rng_seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """counts (G, 2, C+1), truth (G, C+1) and the confusion over all, of masks with a share of wrong pixels."""
    rng = np.random.default_rng(rng_seed)
    counts, truths, total = [], [], np.zeros((NUM_CLASSES + 1,) * 2, dtype=np.int64)
    for _ in range(NUM_IMAGES):
        truth = rng.integers(0, NUM_CLASSES, (20, 20)).astype(np.uint8)  # the last class is nowhere
        mask = np.where(rng.random(truth.shape) < error_rate, 0, truth).astype(np.uint8)
        counts.append(mask_counts(truth, mask, num_classes=NUM_CLASSES, ignore=255))
        truths.append(np.bincount(truth.ravel(), minlength=NUM_CLASSES + 1))
        total += confusion_matrix(truth, mask, NUM_CLASSES)
    return np.stack(counts), np.stack(truths), total


def test_miou_from_counts_is_that_of_the_confusion_matrix() -> None:
    counts, truth, confusion = _images(0.3)
    assert miou(counts[None], truth)[0] == pytest.approx(mean_iou(confusion)[1], abs=1e-12)


def test_interval_holds_the_figure_and_is_that_of_a_plain_bootstrap() -> None:
    counts, truth, _ = _images(0.3)
    drawn = bootstrap(counts[None], truth, num_draws=2000, rng_seed=1)
    ((low, high),) = intervals(drawn)
    assert low < miou(counts[None], truth)[0] < high
    rng = np.random.default_rng(2)
    slow = []
    for _ in range(1000):
        chosen = rng.integers(0, NUM_IMAGES, NUM_IMAGES)
        slow.append(miou(counts[None, chosen], truth[chosen])[0])
    assert (low, high) == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.15 * (high - low))


def test_worse_configuration_is_told_apart_and_an_equal_one_is_not() -> None:
    best, truth, _ = _images(0.1)
    worse, _, _ = _images(0.5)
    counts = np.stack([best, best, worse])
    tied = tied_with(0, bootstrap(counts, truth, num_draws=500, rng_seed=0))
    assert tied.tolist() == [True, True, False]


def test_cross_validated_figure_is_below_that_of_a_choice_made_on_the_same_images() -> None:
    truth = np.full((8, 2), 100)
    rng = np.random.default_rng(0)
    right = rng.integers(0, 101, (200, 8, 2))  # configurations that differ by luck alone
    wrong = (100 - right)[..., ::-1]
    counts = np.stack([right, right + wrong], axis=2)
    found = miou(counts, truth).max()
    assert cross_validated(counts, truth, num_folds=4) < found


def test_cross_validated_figure_of_one_configuration_is_its_own() -> None:
    counts, truth, _ = _images(0.2)
    assert cross_validated(counts[None], truth, num_folds=5) == pytest.approx(miou(counts[None], truth)[0])


def test_fold_chooses_from_its_own_candidates_alone() -> None:
    good, truth, _ = _images(0.1)
    bad, _, _ = _images(0.6)
    counts = np.stack([good, bad])
    best = best_without_folds(counts, truth, num_folds=4, most=1)
    assert best.tolist() == [[True, False]] * 4
    chosen = cross_validated(counts, truth, num_folds=4, candidates=best)
    assert chosen == pytest.approx(miou(counts, truth)[0])
    assert cross_validated(counts, truth, num_folds=4, candidates=~best) == pytest.approx(miou(counts, truth)[1])


def test_configurations_with_a_truth_of_their_own_are_drawn_with_it() -> None:
    first, truth, _ = _images(0.1)
    second, other, _ = _images(0.3, rng_seed=1)
    counts, truths = np.stack([first, second]), np.stack([truth, other])
    drawn = bootstrap(counts, truths, num_draws=50, rng_seed=0)
    for index in range(2):
        alone = bootstrap(counts[index : index + 1], truths[index], num_draws=50, rng_seed=0)
        assert np.allclose(drawn[index], alone[0])
    assert miou(counts, truths).tolist() == [miou(counts[:1], truth)[0], miou(counts[1:], other)[0]]
