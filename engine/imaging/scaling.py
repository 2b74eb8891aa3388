"""Pictures at the sizes that a network sees, grouped so that equal sizes share a pass.

Letters: (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MAX_PIXELS = 1 << 24
"""Largest picture that a network is given: its first layers take some 200 bytes a pixel."""
MIN_SIDE_PX = 32
"""Shortest side that a network is given; the picture is stretched to it."""


def scaled_size(height: int, width: int, *, long_side_px: int, scale: float = 1.0) -> tuple[int, int]:
    """Height and width, pixels, after the long side is brought to ``long_side_px`` and multiplied by ``scale``.

    Args:
        long_side_px: 0 keeps the image's own size.

    Raises:
        MemoryError: that is more than :data:`MAX_PIXELS`, which only an image of its own size or a large scale reaches.
    """
    factor = scale * (long_side_px / max(height, width) if long_side_px else 1.0)
    size = max(MIN_SIDE_PX, round(height * factor)), max(MIN_SIDE_PX, round(width * factor))
    if size[0] * size[1] > MAX_PIXELS:
        raise MemoryError(
            f"{size[0]} x {size[1]} pixels are more than {MAX_PIXELS} for a network; set inference.long_side_px"
        )
    return size


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 at another (height, width), with antialiasing."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def as_tensor(images: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
    """Pictures of one size as (B, 3, H, W) uint8 on the device, channels last in memory."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)


def equal_groups(sizes: Sequence[Any], most: int) -> Iterator[list[int]]:
    """Indices in groups of equal size, ``most`` at a time, in a fixed order."""
    groups: dict[Any, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    for members in groups.values():
        for start in range(0, len(members), most):
            yield members[start : start + most]
