"""Compute the mask from refined maps (paper, section 3.3, last paragraph).

Letters: K classes present, (H, W) pixels, (h, w) grid cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def upsample(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample maps to the size of the image, bilinearly.

    Args:
        probabilities: (K, h, w) float.
        size: (H, W).

    Returns:
        (K, H, W) float, within the range of each map.
    """
    return functional.interpolate(probabilities[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def to_probabilities(scores: Tensor) -> Tensor:
    """Divide each pixel's scores by their sum.

    Args:
        scores: (K+1, H, W) float >= 0, background first.

    Returns:
        (K+1, H, W) float that sums to 1 over the channels; a pixel whose scores are all 0 is background.
    """
    total = scores.sum(dim=0)
    probabilities = scores / torch.where(total > 0, total, 1.0)
    probabilities[0] = torch.where(total > 0, probabilities[0], 1.0)
    return probabilities


def pseudo_mask(
    probabilities: NDArray[np.floating[Any]],
    class_ids: Sequence[int],
    dtype: type[np.uint8] | type[np.uint16] = np.uint8,
) -> NDArray[Any]:
    """Assign each pixel its most probable class.

    Args:
        probabilities: (K+1, H, W) float, background first.
        class_ids: (K,) ids of the classes present.
        dtype: dtype of the mask, which must hold every id.

    Returns:
        (H, W) ``dtype`` of 0 and ``class_ids``; a tie goes to the earlier channel.

    Raises:
        ValueError: the number of channels does not match ``class_ids``, or an id does not fit ``dtype``.
    """
    if len(probabilities) != len(class_ids) + 1:
        raise ValueError(f"probabilities must have {len(class_ids) + 1} channels, got {len(probabilities)}")
    ids = np.array([0, *class_ids], dtype=np.int64)
    if ids.min() < 0 or ids.max() > np.iinfo(dtype).max:
        raise ValueError(f"class_ids must fit {np.dtype(dtype)}, got {list(class_ids)}")
    mask: NDArray[Any] = ids.astype(dtype)[probabilities.argmax(axis=0)]
    return mask


def class_areas(mask: NDArray[np.integer[Any]], class_ids: Sequence[int]) -> NDArray[np.float32]:
    """Compute the area of background and of each class present, as fractions of the mask.

    Args:
        mask: (H, W) integer of 0 and ``class_ids``.
        class_ids: (K,) ids of the classes present.

    Returns:
        (K+1,) float32 in [0, 1].
    """
    counts = np.bincount(mask.ravel(), minlength=max([0, *class_ids]) + 1)
    return (counts[[0, *class_ids]] / mask.size).astype(np.float32)
