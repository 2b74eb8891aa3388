"""Mean intersection over union of a whole data set, as defined by PASCAL VOC.

Letters: C classes (excluding background), (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(
    truth: NDArray[np.integer[Any]], mask: NDArray[np.integer[Any]], num_classes: int, ignore: int = 255
) -> NDArray[np.int64]:
    """Count pixels by true and predicted class; the matrices of several images can be added.

    Pixels that are ``ignore`` in ``truth`` are skipped. The mask must have a class everywhere else; to exclude more
    pixels, set them to ``ignore`` in ``truth``.

    Args:
        truth: (H, W) integer in 0..C, or ``ignore``.
        mask: (H, W) integer in 0..C wherever ``truth`` is not ``ignore``.
        num_classes: C.
        ignore: value of ignored pixels, outside 0..C.

    Returns:
        (C+1, C+1) int64, rows truth, columns mask.

    Raises:
        ValueError: the shapes differ, ``ignore`` is the id of a class, or a value is not allowed.
    """
    truth, mask = np.asarray(truth), np.asarray(mask)
    if truth.shape != mask.shape:
        raise ValueError(f"mask must have the shape of truth, {truth.shape}, got {mask.shape}")
    if 0 <= ignore <= num_classes:
        raise ValueError(f"ignore must be outside 0..{num_classes}, got {ignore!r}")
    counts = truth != ignore
    rows, columns = truth[counts].astype(np.int64), mask[counts].astype(np.int64)
    for name, values in (("truth", rows), ("mask", columns)):
        wrong = values[(values < 0) | (values > num_classes)]
        if wrong.size:
            also = f" or {ignore}" if name == "truth" else ", where truth is not ignored"
            raise ValueError(f"{name} must hold 0..{num_classes}{also}, got {wrong[0]}")
    size = num_classes + 1
    confusion: NDArray[np.int64] = np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)
    return confusion


def mean_iou(confusion: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Compute the intersection over union of each class, and their mean.

    Args:
        confusion: (C+1, C+1) int64 of the whole data set, rows truth.

    Returns:
        iou: (C+1,) float64 in [0, 1]; NaN for a class in neither truth nor masks.
        miou: the mean over the other classes; NaN if there are none.
    """
    confusion = np.asarray(confusion)
    iou = class_iou(np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1))
    return iou, float(mean_over_classes(iou))


def class_iou(intersection: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the intersection over union from pixel counts.

    Args:
        intersection: (..., C+1) pixels that masks and truth assign to the same class.
        predicted: (..., C+1) pixels of each class in the masks.
        true: (..., C+1) pixels of each class in the truth.

    Returns:
        (..., C+1) in [0, 1]; NaN for a class in neither truth nor masks.
    """
    union = np.asarray(predicted + true - intersection, np.float64)
    return np.where(union > 0, intersection / np.where(union > 0, union, 1.0), np.nan)


def mean_over_classes(iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis, ignoring NaN; NaN if there are no other values."""
    known = ~np.isnan(iou)
    number, total = known.sum(axis=-1), np.where(known, iou, 0.0).sum(axis=-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def image_iou(confusion: NDArray[np.int64]) -> float:
    """Compute the mean IoU of one image, over the classes in its truth or its mask, including background.

    The mean of this over images weighs each image equally, and so differs from the mIoU of the data set.

    Args:
        confusion: (C+1, C+1) int64 of the image, rows truth.

    Returns:
        [0, 1]; NaN if the truth ignores every pixel.
    """
    return mean_iou(confusion)[1]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation of the finite pairs, ties with their mean rank; None if it is undefined.

    Args:
        first: (n,) values.
        second: (n,) values of the same items.
    """
    pairs = np.array([first, second], np.float64).reshape(2, -1)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < 3:
        return None
    ranks = [_ranks(values) for values in pairs]
    if any(float(rank.std()) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[places]
