"""Tables of counts against slow loops; those of two halves add up to that of the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engine.ops.scores import mask_scores, mask_table, pair_scores, pair_table, tag_scores, tag_table


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(-scores)
    precisions = [truth[order][: rank + 1].mean() for rank in range(len(order)) if truth[order][rank]]
    return float(np.mean(precisions))


def test_average_precision_is_what_a_slow_loop_finds() -> None:
    rng = np.random.default_rng(0)
    logits = rng.permutation(np.arange(200 * 3)).reshape(200, 3) / 20 - 15  # no ties after rounding
    truth = rng.random((200, 3)) < 1 / (1 + np.exp(-logits / 5))
    truth[:, 2] = False
    scores, labels = torch.from_numpy(logits), torch.from_numpy(truth).float()
    expected = np.mean([_average_precision(logits[:, column], truth[:, column]) for column in range(2)])
    table = tag_table(scores[:90], labels[:90]) + tag_table(scores[90:], labels[90:])
    assert tag_scores(table)["mean_ap"] == pytest.approx(expected, abs=1e-9)


def test_images_with_the_same_logit_share_their_rank() -> None:
    labels = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    assert tag_scores(tag_table(torch.zeros(4, 1), labels))["mean_ap"] == pytest.approx(0.5)
    assert tag_scores(tag_table(torch.tensor([[99.0], [-99.0], [98.0], [-5.0]]), labels))["mean_ap"] == 1
    assert tag_scores(tag_table(torch.zeros(4, 1), torch.zeros(4, 1))) == {}


def test_pairs_are_counted_as_a_slow_loop_does() -> None:
    rng = np.random.default_rng(1)
    features = torch.from_numpy(rng.random((2, 5, 4, 6)) * 4)
    seed = torch.from_numpy(rng.choice([0, 1, 2, 255], (2, 4, 6)))
    right, every = {True: 0, False: 0}, {True: 0, False: 0}
    for image in range(2):
        for i in range(24):
            for j in range(i + 1, 24):
                labels = [int(seed[image].flatten()[cell]) for cell in (i, j)]
                near = (i // 6 - j // 6) ** 2 + (i % 6 - j % 6) ** 2 < 9
                if not near or 255 in labels:
                    continue
                same = labels[0] == labels[1]
                every[same] += 1
                cells = features[image].flatten(1)
                right[same] += same == (math.exp(-float((cells[:, i] - cells[:, j]).abs().mean())) > 0.5)
    table = sum(pair_table(features[image, None], seed[image, None], radius=3, ignore=255) for image in range(2))
    assert isinstance(table, torch.Tensor)
    scores = pair_scores(table)
    assert scores["positive_pair_accuracy"] == pytest.approx(right[True] / every[True])
    assert scores["negative_pair_accuracy"] == pytest.approx(right[False] / every[False])
    assert scores["pair_accuracy"] == pytest.approx((right[True] / every[True] + right[False] / every[False]) / 2)
    assert pair_scores(torch.zeros(3, 2)) == {}


def test_mask_table_is_the_confusion_matrix_without_what_does_not_count() -> None:
    rng = np.random.default_rng(2)
    logits, mask = torch.from_numpy(rng.normal(size=(2, 3, 4, 5))), rng.choice([0, 1, 2, 255], (2, 4, 5))
    expected = np.zeros((3, 3), dtype=int)
    for image, y, x in np.ndindex(mask.shape):
        if mask[image, y, x] != 255:
            expected[mask[image, y, x], int(logits[image, :, y, x].argmax())] += 1
    table = mask_table(logits, torch.from_numpy(mask), ignore=255)
    np.testing.assert_array_equal(table, expected)
    perfect = mask_table(torch.eye(3)[None, :, :, None].expand(1, 3, 3, 1), torch.tensor([[[0], [1], [2]]]), ignore=255)
    assert mask_scores(perfect) == {"miou": 1.0}
    assert mask_scores(torch.zeros(3, 3, dtype=torch.int64)) == {}
