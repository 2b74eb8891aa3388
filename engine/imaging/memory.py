"""What one image may cost: bounds of a stage's memory that hold for every image and any number of tags.

A mask takes memory by its pixels times its maps, so a photograph of 50 million pixels or an image of 500 tags would
kill its actor. Such an image is worked on at a smaller size, and its mask is enlarged to the image's own.

Letters: (H, W) pixels.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MASK_BYTES = 1 << 30
"""Memory that the mask of one image may take, estimated, beside the picture itself."""
DECODED_PIXELS = 64 << 20
"""Pixels of pictures that a stage holds at once; one picture may have more."""
_BYTES_OF_A_PIXEL = 100
_BYTES_OF_A_SCORE = 40
"""Measured on dCRFs of 2 to 21 maps: between those of a smooth picture and those of pure noise."""


def working_size(height: int, width: int, num_maps: int) -> tuple[int, int]:
    """The size at which an image's mask is made: its own, or the largest of its shape that the memory allows.

    Args:
        height: of the image, pixels.
        width: the same.
        num_maps: background and classes that compete.

    Returns:
        Height and width, 1 or more.
    """
    most_pixels = max(1, MASK_BYTES // (_BYTES_OF_A_PIXEL + _BYTES_OF_A_SCORE * num_maps))
    if height * width <= most_pixels:
        return height, width
    factor = math.sqrt(most_pixels / (height * width))
    short, long = sorted((height, width))
    short = max(1, int(short * factor))
    long = max(1, min(int(long * factor), most_pixels // short)) if short > 1 else min(long, most_pixels)
    return (short, long) if height <= width else (long, short)


def enlarged(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A mask at another size, each pixel the nearest of ``mask``.

    Args:
        mask: (H, W) of any dtype.
        size: the new (H, W).
    """
    if mask.shape == size:
        return mask
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(size, mask.shape, strict=True)
    )
    large: NDArray[Any] = mask[rows[:, None], columns]
    return large


_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of glibc alone."""


def give_back_memory() -> None:
    """Hand what was freed back to the system: pictures of ever new sizes leave holes in the C library's heap.

    An actor of the networks grew by 440 MB in 1,700 photographs without it, and keeps to 570 MB with it; a call takes
    50 ms.
    """
    if _TRIM is not None:
        _TRIM(0)
