"""Images of a report as data URIs: small JPEG photographs, and overlays as palette PNGs, transparent outside objects.

Letters: K classes present, (H, W) pixels, (h, w) grid cells.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.imaging.codecs import class_color
from engine.records import IGNORE, IGNORE_16
from engine.report.data import Floats, Mask

LONG_SIDE_PX = 360
"""Of a thumbnail; smaller pictures keep their size."""

_JPEG_QUALITY = 80
_CLEAR = (0, 0, 0, 0)
_WRONG_COLOR = (255, 40, 40)


def css_color(class_id: int) -> str:
    """VOC's colour of a class as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*class_color(class_id))


def thumbnail_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the thumbnail of a picture of this size."""
    shrink = min(1.0, LONG_SIDE_PX / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def photograph_uri(photograph: NDArray[np.uint8]) -> str:
    """A photograph (H, W, 3) as a small JPEG."""
    height, width = thumbnail_size(*photograph.shape[:2])
    small = Image.fromarray(photograph).resize((width, height), Image.Resampling.LANCZOS)
    return _uri(small, "JPEG", quality=_JPEG_QUALITY)


def mask_uri(mask: Mask, size: tuple[int, int]) -> str:
    """A mask (H, W) of class ids as an overlay of ``size``: background clear, classes in VOC's colours.

    The rim of every object is lighter: many of VOC's colours are too dark to tell from a dark photograph.
    """
    small = _resized(mask, size)
    ids, places = np.unique(small, return_inverse=True)
    ids, places = ids[:128], np.minimum(places.reshape(size), 127)  # no thumbnail of real masks holds 128 classes
    # in 16-bit masks VOC's colour of ignored pixels is that of class 255
    ignore, ignore_color = (IGNORE, class_color(IGNORE)) if mask.dtype == np.uint8 else (IGNORE_16, (255, 255, 255))
    bodies = [ignore_color if class_id == ignore else class_color(int(class_id)) for class_id in ids]
    rims = [(r + 2 * (255 - r) // 3, g + 2 * (255 - g) // 3, b + 2 * (255 - b) // 3) for r, g, b in bodies]
    colors = [_CLEAR if class_id == 0 else (*color, 255) for class_id, color in zip(ids, bodies, strict=True)]
    colors += [(*color, 255) for color in rims]
    rim = np.zeros(size, bool)
    down, right = small[1:] != small[:-1], small[:, 1:] != small[:, :-1]
    rim[1:] |= down
    rim[:-1] |= down
    rim[:, 1:] |= right
    rim[:, :-1] |= right
    return _palette_uri(np.where(rim & (small != 0), places + len(ids), places).astype(np.uint8), colors)


def wrong_uri(mask: Mask, truth: Mask, size: tuple[int, int]) -> str:
    """The pixels where mask and truth differ, in red; those that truth ignores are right."""
    ignore = IGNORE if truth.dtype == np.uint8 else IGNORE_16
    told = _resized(truth, size)
    wrong = (_resized(mask, size).astype(np.int64) != told.astype(np.int64)) & (told != ignore)
    return _palette_uri(wrong.astype(np.uint8), [_CLEAR, (*_WRONG_COLOR, 255)])


def heat_uri(cam: Floats, class_ids: Sequence[int], size: tuple[int, int]) -> str:
    """Class maps (K, h, w) in [0, 1] in the colours of their classes, clear where no class fires."""
    height, width = (max(1, side // 2) for side in size)  # it is smooth: half the size shows the same
    maps = [
        Image.fromarray(np.nan_to_num(one).astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        for one in cam
    ]
    if not maps:
        return _palette_uri(np.zeros((1, 1), np.uint8), [_CLEAR])
    # no more classes than the palette has room for; two levels each at the least
    strengths = np.clip(np.stack([np.asarray(one) for one in maps]), 0, 1)[:127]
    num_levels = min(16, 255 // len(strengths))
    winner, strength = strengths.argmax(0), strengths.max(0)
    level = np.round(strength * num_levels).astype(np.int64)
    places = np.where(level == 0, 0, 1 + winner * num_levels + level - 1).astype(np.uint8)
    colors: list[tuple[int, int, int, int]] = [_CLEAR]
    for class_id in list(class_ids)[: len(strengths)]:
        # brighter than in a mask: a map says where it is strong, and VOC's dark colours would hide that
        bright = tuple(min(255, channel * 9 // 5) for channel in class_color(class_id))
        colors += [(bright[0], bright[1], bright[2], 255 * (step + 1) // num_levels) for step in range(num_levels)]
    return _palette_uri(places, colors)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    rows = (np.arange(size[0]) + 0.5) * mask.shape[0] / size[0]
    columns = (np.arange(size[1]) + 0.5) * mask.shape[1] / size[1]
    small: Mask = mask[rows.astype(np.int64)[:, None], columns.astype(np.int64)[None]]
    return small


def _palette_uri(places: NDArray[np.uint8], colors: Sequence[tuple[int, int, int, int]]) -> str:
    picture = Image.fromarray(places)
    picture.putpalette([channel for color in colors for channel in color[:3]])
    return _uri(picture, "PNG", optimize=True, transparency=bytes(color[3] for color in colors))


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
