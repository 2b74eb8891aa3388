"""Confusion and mean IoU, against counting pixel by pixel."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ops.metrics import confusion_matrix, image_iou, mean_iou, rank_correlation


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 6), st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
def test_confusion_counts_every_pixel_that_the_truth_knows(num_classes: int, h: int, w: int, rng_seed: int) -> None:
    rng = np.random.default_rng(rng_seed)
    truth = rng.integers(0, num_classes + 2, (h, w)).astype(np.uint8)
    truth[truth == num_classes + 1] = 255
    mask = rng.integers(0, num_classes + 1, (h, w)).astype(np.uint8)
    loop = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for t, m in zip(truth.ravel(), mask.ravel(), strict=True):
        if t != 255:
            loop[t, m] += 1
    confusion = confusion_matrix(truth, mask, num_classes)
    assert confusion.dtype == np.int64
    np.testing.assert_array_equal(confusion, loop)


def test_mean_iou_is_that_of_the_whole_data_set() -> None:
    truth = [np.array([[1, 1, 0, 255]]), np.array([[2, 0, 0, 0]])]
    mask = [np.array([[1, 0, 0, 1]]), np.array([[2, 2, 0, 0]])]
    confusion = sum(confusion_matrix(t, m, 3) for t, m in zip(truth, mask, strict=True))
    iou, miou = mean_iou(np.asarray(confusion))
    np.testing.assert_allclose(iou, [3 / 5, 1 / 2, 1 / 2, math.nan])
    assert miou == pytest.approx((3 / 5 + 1 / 2 + 1 / 2) / 3)


def test_a_class_only_in_the_masks_counts_as_missed() -> None:
    iou, miou = mean_iou(confusion_matrix(np.array([[0, 0]]), np.array([[0, 1]]), 1))
    assert iou.tolist() == [0.5, 0.0]
    assert miou == 0.25


def test_no_pixel_gives_no_figure() -> None:
    iou, miou = mean_iou(confusion_matrix(np.full((2, 2), 255), np.zeros((2, 2), int), 2))
    assert np.isnan(iou).all()
    assert math.isnan(miou)


def test_what_is_not_allowed_is_named() -> None:
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"mask must have the shape of truth, .*, got \(2, 3\)"):
        confusion_matrix(zeros, np.zeros((2, 3), np.uint8), 2)
    with pytest.raises(ValueError, match=r"truth must hold 0\.\.2 or 255, got 7"):
        confusion_matrix(np.full((2, 2), 7), zeros, 2)
    with pytest.raises(ValueError, match=r"mask must hold .*, got 255"):
        confusion_matrix(zeros, np.full((2, 2), 255, np.uint8), 2)
    with pytest.raises(ValueError, match=r"ignore must be outside 0\.\.300, got 255"):
        confusion_matrix(zeros, zeros, 300)


def test_classes_beyond_eight_bits_are_counted() -> None:
    truth = np.array([[300, 65535]], np.uint16)
    assert confusion_matrix(truth, np.array([[300, 5]], np.uint16), 300, ignore=65535)[300, 300] == 1


def test_rank_correlation_takes_ties_with_their_mean_rank() -> None:
    first, second = [1.0, 2.0, 2.0, 4.0, 5.0], [1.0, 3.0, 2.0, 2.0, 9.0]
    # ranks 1 2.5 2.5 4 5 and 1 4 2.5 2.5 5
    expected = np.corrcoef([1, 2.5, 2.5, 4, 5], [1, 4, 2.5, 2.5, 5])[0, 1]
    assert rank_correlation(first, second) == pytest.approx(expected)
    assert rank_correlation([1, 2, 3, math.nan], [1, 4, 9, 0]) == pytest.approx(1)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_image_iou_leaves_out_classes_that_are_nowhere() -> None:
    # background 6 of 8, class 1 is 2 of 4, class 2 nowhere
    assert image_iou(np.array([[6, 1, 0], [1, 2, 0], [0, 0, 0]])) == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert math.isnan(image_iou(np.zeros((3, 3), np.int64)))
