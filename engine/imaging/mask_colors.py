"""Masks whose classes are told apart by colour: RGB, or a palette in an order of its own.

Source: VOC's palette (the VOC2012 development kit); ``labelmap.txt`` as CVAT and Datumaro write it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from engine.imaging.codecs import class_color

Color = tuple[int, int, int]

VOC_COLORS: dict[Color, int] = {class_color(class_id): class_id for class_id in range(256)}
"""Class id of each of VOC's colours; 255 does not count."""
_EIGHT_BITS = ("1", "L", "LA", "RGB", "RGBA")


def ids_by_color(png: bytes, ids: Mapping[Color, int]) -> NDArray[np.int32]:
    """A mask's class ids from its colours, whatever numbers a palette gives them.

    Args:
        png: the file; grey counts as a colour.
        ids: class id of each colour.

    Returns:
        (H, W) int32.

    Raises:
        ValueError: it holds a colour that is not among ``ids``; the sentence reads on from the file's name.
        OSError, SyntaxError: it is no PNG, or damaged.
    """
    with PngImagePlugin.PngImageFile(io.BytesIO(png)) as image:
        if image.mode == "P":
            indices = np.asarray(image)
            palette = np.array(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
            found = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
            colors = palette[found]
            where = np.searchsorted(found, indices)
        elif image.mode in _EIGHT_BITS:
            pixels = np.asarray(image.convert("RGB")).astype(np.int64)
            packed, where = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_inverse=True)
            colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)
            where = where.reshape(pixels.shape[:2])
        else:
            raise ValueError(f"is a picture of mode {image.mode}, which has no colours of classes")
    listed = [(int(red), int(green), int(blue)) for red, green, blue in colors]
    unknown = next((color for color in listed if color not in ids), None)
    if unknown is not None:
        raise ValueError(f"holds the colour {unknown}, which is that of no class")
    return np.array([ids[color] for color in listed], dtype=np.int32)[where]


def read_label_map(text: str) -> dict[str, Color]:
    """The colour of each label of a ``labelmap.txt``, a line ``name:red,green,blue:parts:actions`` each.

    A label without a colour has VOC's of its place in the file.

    Raises:
        ValueError: a line has another form, or two labels share a name or a colour.
    """
    found: dict[str, Color] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = rest.partition(":")[0].strip()
        try:
            red, green, blue = (int(value) for value in values.split(",")) if values else class_color(len(found))
        except ValueError:
            raise ValueError(f"has the line '{line}'; a line is name:red,green,blue::") from None
        color = (red, green, blue)
        if name.strip() in found or color in found.values():
            raise ValueError(f"has the label or colour of '{line}' twice")
        found[name.strip()] = color
    return found
