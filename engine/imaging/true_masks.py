"""True masks as other programs write them: class ids, or colours that stand for classes.

Letters: C classes, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.imaging.codecs import class_color, decode_mask
from engine.imaging.mask_colors import VOC_COLORS, Color, ids_by_color
from engine.records import IGNORE, MAX_CLASSES_8_BIT, ignore_value, mask_dtype

LABEL_MAP = "labelmap.txt"
_BACKGROUND = "background"
_BIT_DEPTH, _COLOR_TYPE = 24, 25
"""Bytes of a PNG's header."""
_GREY, _PALETTE = 0, 3

ReadBy = Literal["ids", "VOC colors", "label map"]
"""What the values of a mask were taken for."""


class ColorError(ValueError):
    """A colour stands for no class; the sentence reads on from the file's name."""


def decode_true_mask(
    png: bytes, class_names: Sequence[str] | None, labels: Mapping[str, Color] | None = None
) -> tuple[NDArray[np.integer[Any]], ReadBy]:
    """The class ids of a true mask.

    Without a label map they are the values, unless the picture has VOC's colours at other values, as after a program
    that makes PNGs smaller, or has no palette at all.

    Args:
        class_names: names of the classes 1..C; None where any class is allowed.
        labels: the colours of a label map, by name. A grey mask may also hold the numbers of the labels.

    Returns:
        (H, W) uint8, or uint16 beyond 254 classes or for 16-bit files; and how it was read.

    Raises:
        ColorError: it has a colour that stands for no class.
        OSError, SyntaxError: it is no PNG, or damaged.
    """
    values = decode_mask(png)
    if values.ndim == 3:
        colors = values[..., : (values.shape[2] - 1) | 1]  # without alpha
        if (colors == colors[..., :1]).all():
            values = colors[..., 0]
    elif png[_BIT_DEPTH] == 1 and png[_COLOR_TYPE] == _GREY:
        values = values.astype(np.uint8) * IGNORE  # white, as in any other depth
    if labels is not None:
        return _by_label(png, values, class_names, labels), "label map"
    if values.ndim == 3:
        try:
            return ids_by_color(png, VOC_COLORS).astype(np.uint8), "VOC colors"
        except ValueError as error:
            raise ColorError(f"{error} of VOC's palette; add a {LABEL_MAP} with lines NAME:red,green,blue") from error
    if png[_COLOR_TYPE] == _PALETTE and len(class_names or ()) <= MAX_CLASSES_8_BIT:
        try:
            by_color = ids_by_color(png, VOC_COLORS)
        except ValueError:  # a palette of somebody's own
            return values, "ids"
        if (by_color != values).any():
            return by_color.astype(np.uint8), "VOC colors"
    return values, "ids"


def _by_label(
    png: bytes, values: NDArray[np.integer[Any]], class_names: Sequence[str] | None, labels: Mapping[str, Color]
) -> NDArray[np.integer[Any]]:
    ids, unknown = _ids_of(class_names, labels)
    try:
        mask = ids_by_color(png, ids)
    except ValueError as error:
        if png[_COLOR_TYPE] != _GREY or int(values.max()) >= len(labels):
            raise ColorError(f"{error} of {LABEL_MAP}") from error
        mask = np.array([ids[color] for color in labels.values()])[values]
    if mask.min() < 0:
        raise ColorError(f"holds '{unknown[-1 - int(mask.min())]}' of {LABEL_MAP}, which is not one of the classes")
    return mask.astype(mask_dtype(len(class_names or labels)))


def _ids_of(class_names: Sequence[str] | None, labels: Mapping[str, Color]) -> tuple[dict[Color, int], list[str]]:
    """The id of each colour, below 0 where its label is no class; and these labels, -1 first."""
    special = {class_color(IGNORE): ignore_value(len(class_names or labels)), class_color(0): 0}
    known = {_BACKGROUND: 0}
    if class_names is None:
        class_names = [name for name, color in labels.items() if name != _BACKGROUND and color not in special]
    known |= {name: class_id for class_id, name in enumerate(class_names, start=1)}
    ids, unknown = dict(special), []
    for name, color in labels.items():
        if name in known:
            ids[color] = known[name]
        elif color not in special:
            unknown.append(name)
            ids[color] = -len(unknown)
    return ids, unknown
