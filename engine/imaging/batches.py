"""The pictures of a batch, decoded a few at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.errors import ImageError
from engine.imaging.decoding import decode_image
from engine.imaging.memory import DECODED_PIXELS
from engine.records import Batch
from engine.resources import Decoding


def decoded_pictures(batch: Batch, out: Batch, decoding: Decoding) -> Iterator[dict[int, NDArray[np.uint8]]]:
    """The images without an error that can be decoded, in groups that fit into memory.

    Args:
        batch: with ``encoded`` and ``error``.
        out: its ``height``, ``width`` and ``error`` are set, lists of its own.
        decoding: how the images become RGB.

    Yields:
        row to (H, W, 3) uint8; at least once.
    """
    images: dict[int, NDArray[np.uint8]] = {}
    num_pixels = 0
    for row, encoded in enumerate(batch["encoded"]):
        if batch["error"][row] is not None:
            continue
        try:
            image = decode_image(encoded, decoding)
        except ImageError as error:
            out["error"][row] = str(error)
            continue
        height, width = image.shape[:2]
        if images and num_pixels + height * width > DECODED_PIXELS:
            yield images
            images, num_pixels = {}, 0
        images[row] = image
        num_pixels += height * width
        out["height"][row], out["width"][row] = height, width
    yield images
