"""Expected quality: its signs on hand-made maps, its fit against a slow descent, its calibration."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.ops.confidence import (
    FEATURE_NAMES,
    INTERCEPT,
    WEIGHTS,
    expected_iou,
    fit_logistic,
    quality_features,
    recalibrated,
)


def _disc(contrast: float, *, num_classes: int = 1, center: tuple[float, float] = (0.5, 0.5)) -> NDArray[np.float64]:
    """A soft disc of class 1 on background: (K+1, 120, 160); a greater contrast makes a sharper rim."""
    rows, columns = np.mgrid[0:120, 0:160]
    distance = np.hypot(rows / 120 - center[0], columns / 160 - center[1])
    scores = np.full((num_classes + 1, 120, 160), 1e-9)
    scores[1] = 1 / (1 + np.exp((contrast * (distance - 0.3)).clip(-50, 50)))
    scores[0] = 1 - scores[1]
    probabilities: NDArray[np.float64] = scores / scores.sum(axis=0)
    return probabilities


def _features(maps: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, quality_features(maps, maps).tolist(), strict=True))


def test_a_sharp_object_is_expected_to_be_better_than_a_faint_one() -> None:
    sharp, faint = _disc(60), _disc(6)
    assert _features(sharp)["stability"] > _features(faint)["stability"]
    assert _features(sharp)["margin"] > _features(faint)["margin"]
    assert expected_iou(quality_features(sharp, sharp)) > expected_iou(quality_features(faint, faint)) + 0.1


def test_signs_are_what_they_say() -> None:
    maps = _disc(1e4)
    signs = _features(maps)
    assert signs["border"] == 0
    assert signs["tags"] == 0
    assert signs["margin"] == pytest.approx(1, abs=1e-3)
    assert 0 < signs["edges"] < 0.03
    aside = _features(_disc(1e4, center=(0.5, 0.0)))
    assert 0.1 < aside["border"] < 0.3
    assert _features(_disc(60, num_classes=3))["tags"] == pytest.approx(np.log(3))


def test_a_tag_that_found_nothing_is_a_bad_sign() -> None:
    assert _features(_disc(60, num_classes=2))["stability"] < _features(_disc(60))["stability"]
    nothing = np.stack([np.ones((50, 40)), np.zeros((50, 40))])
    assert _features(nothing)["margin"] == 0
    assert expected_iou(quality_features(nothing, nothing)) < expected_iou(quality_features(_disc(60), _disc(60)))


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (700, 3)])
def test_any_size_has_a_finite_expectation(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    maps = rng.dirichlet((1, 1, 1), size).transpose(2, 0, 1)
    kept = maps.copy()
    assert 0 <= expected_iou(quality_features(maps, maps)) <= 1
    assert np.array_equal(maps, kept)


def test_fit_finds_the_least_loss_as_slow_descent_does() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(60, 2)) * (1, 20) + (3, 0)
    targets = 1 / (1 + np.exp(-(inputs @ (1.0, 0.05) - 2))) + rng.normal(size=60) * 0.05
    targets = targets.clip(0, 1)
    standard = np.column_stack([(inputs - inputs.mean(0)) / inputs.std(0), np.ones(60)])
    slow, ridge = np.zeros(3), 0.01
    for _ in range(4000):
        fitted = 1 / (1 + np.exp(-standard @ slow))
        slow += standard.T @ (targets - fitted) / 60 - ridge * np.append(slow[:2], 0)
    found = fit_logistic(inputs, targets, ridge=ridge)
    expected = 1 / (1 + np.exp(-standard @ slow))
    assert 1 / (1 + np.exp(-(inputs @ found[:2] + found[2]))) == pytest.approx(expected, abs=1e-4)


def test_calibration_meets_the_mean_and_keeps_the_order() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(400, len(WEIGHTS))) * 0.02
    logits = features @ WEIGHTS + INTERCEPT
    truth = 1 / (1 + np.exp(-(0.5 * logits - 1)))
    before = np.array([expected_iou(row, scale=2.0, offset=0.5) for row in features])
    scale, offset = recalibrated(before, truth, scale=2.0, offset=0.5)
    assert (scale, offset) == pytest.approx((0.5, -1), abs=0.02)
    after = np.array([expected_iou(row, scale=scale, offset=offset) for row in features])
    assert after == pytest.approx(truth, abs=0.01)
    assert np.array_equal(after.argsort(), before.argsort())


def test_calibration_to_truth_that_contradicts_keeps_a_rising_scale() -> None:
    confidences = np.linspace(0.1, 0.9, 50)
    scale, offset = recalibrated(confidences, 1 - confidences, scale=1.0, offset=0.0)
    assert scale == 0.05
    assert abs(offset) < 0.5
