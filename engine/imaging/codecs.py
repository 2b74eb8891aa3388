"""Encoded columns: maps as float16 on the grid, masks and pictures as PNG.

Letters: K maps, (h, w) grid cells, (H, W) pixels.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from engine.timing import measured


def encode_map(values: NDArray[np.floating[Any]]) -> bytes:
    """A map (K, h, w) as bytes: float16 in NumPy's own format, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values, dtype=np.float16), allow_pickle=False)
    return buffer.getvalue()


def decode_map(encoded: bytes) -> NDArray[np.float32]:
    """The reverse of :func:`encode_map`: (K, h, w) float32."""
    values: NDArray[np.float32] = np.load(io.BytesIO(encoded), allow_pickle=False).astype(np.float32)
    return values


def class_color(class_id: int) -> tuple[int, int, int]:
    """VOC's colour of a class id, of any size up to 24 bits."""
    color = [0, 0, 0]
    for shift in range(7, -1, -1):
        for channel in range(3):
            color[channel] |= ((class_id >> channel) & 1) << shift
        class_id >>= 3
    return color[0], color[1], color[2]


def voc_palette() -> bytes:
    """VOC's colours: 768 bytes, red, green and blue of each of 256 ids."""
    return bytes(channel for class_id in range(256) for channel in class_color(class_id))


_PALETTE = voc_palette()


@measured("encode")
def encode_mask(mask: NDArray[np.integer[Any]], *, grey: bool = False) -> bytes:
    """A mask (H, W) of class ids as PNG: uint8 with VOC's palette, uint16 (or what shall be ``grey``) without one."""
    image = Image.fromarray(mask)
    if mask.dtype != np.uint16:
        assert mask.dtype == np.uint8, mask.dtype
        if not grey:
            image.putpalette(_PALETTE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def encode_picture(pixels: NDArray[np.uint8]) -> bytes:
    """A picture (H, W, 3) uint8 as PNG, without loss and fast."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_mask(png: bytes) -> NDArray[np.integer[Any]]:
    """The reverse of :func:`encode_mask`: (H, W) uint8 or uint16.

    Raises:
        OSError, SyntaxError, ValueError: it is no PNG, or damaged.
    """
    # a mask may be as large as max_pixels lets its image be. Image.open would hold it to Pillow's own limit, which
    # is one for the whole process: to raise it here would be felt by every other thread that decodes
    with PngImagePlugin.PngImageFile(io.BytesIO(png)) as image:
        values = np.asarray(image)
    return values.astype(np.uint8 if values.dtype == np.uint8 else np.uint16)
