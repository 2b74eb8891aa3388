"""Mean intersection over union over a whole data set, as PASCAL VOC counts it.

Letters: C classes (background not counted), (H, W) pixels.
"""

from __future__ import annotations

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
        raise ValueError(f"mask has the shape {mask.shape}; allowed: {truth.shape}, that of truth")
    if 0 <= ignore <= num_classes:
        raise ValueError(f"ignore is {ignore!r}; allowed: a value outside 0..{num_classes}")
    counts = truth != ignore
    rows, columns = truth[counts].astype(np.int64), mask[counts].astype(np.int64)
    for name, values in (("truth", rows), ("mask", columns)):
        wrong = values[(values < 0) | (values > num_classes)]
        if wrong.size:
            also = f" or {ignore}" if name == "truth" else ", where truth counts"
            raise ValueError(f"{name} holds {wrong[0]}; allowed: 0..{num_classes}{also}")
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
    intersection = np.diagonal(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    present = union > 0
    iou = np.full(len(confusion), np.nan)
    iou[present] = intersection[present] / union[present]
    return iou, float(iou[present].mean()) if present.any() else float("nan")
