"""Mean intersection over union over a whole data set, as PASCAL VOC counts it.

Letters: C classes (background not counted), (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(
    truth: NDArray[np.integer[Any]], mask: NDArray[np.integer[Any]], num_classes: int, ignore: int = 255
) -> NDArray[np.int64]:
    """Count the pixels of each true class by the class they were given; the matrices of several images add up.

    Pixels that are ``ignore`` in ``truth`` do not count. A mask has a class everywhere else: leave out beforehand, by
    ``ignore`` in ``truth``, what it shall not be judged on.

    Args:
        truth: (H, W) integer in 0..C, or ``ignore``.
        mask: (H, W) integer in 0..C wherever ``truth`` counts.
        num_classes: C.
        ignore: above C.

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
            also = f" or {ignore}" if name == "truth" else ", where truth counts"
            raise ValueError(f"{name} must hold 0..{num_classes}{also}, got {wrong[0]}")
    size = num_classes + 1
    confusion: NDArray[np.int64] = np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)
    return confusion


def mean_iou(confusion: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Intersection over union of each class, and their mean.

    Args:
        confusion: (C+1, C+1) int64 of the whole data set, rows truth.

    Returns:
        iou: (C+1,) float64 in [0, 1]; NaN for a class that neither truth nor masks hold.
        miou: the mean over the others; NaN when there is none.
    """
    confusion = np.asarray(confusion)
    iou = class_iou(np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1))
    return iou, float(mean_over_classes(iou))


def class_iou(intersection: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union from pixel counts.

    Args:
        intersection: (..., C+1) pixels that masks and truth assign to the same class.
        predicted: (..., C+1) pixels of each class in the masks.
        true: (..., C+1) pixels of each class in the truth.

    Returns:
        (..., C+1) in [0, 1]; NaN for a class that neither truth nor masks hold.
    """
    union = np.asarray(predicted + true - intersection, np.float64)
    return np.where(union > 0, intersection / np.where(union > 0, union, 1.0), np.nan)


def mean_over_classes(iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis without its NaN; NaN when there is nothing else."""
    known = ~np.isnan(iou)
    number, total = known.sum(axis=-1), np.where(known, iou, 0.0).sum(axis=-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def image_iou(confusion: NDArray[np.int64]) -> float:
    """How good the mask of one image is: the mean of its IoUs over the classes in its truth or its mask.

    Background counts as a class. Unlike the mIoU of a data set it weighs every image alike, so its mean over images is
    another figure.

    Args:
        confusion: (C+1, C+1) int64 of the one image, rows truth.

    Returns:
        [0, 1]; NaN when the truth ignores every pixel.
    """
    return mean_iou(confusion)[1]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's: over the pairs that are finite, ties with their mean rank; None when it is not defined.

    Args:
        first: (n,) values.
        second: (n,) values of the same things.
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
