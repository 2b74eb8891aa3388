"""Encode a report's images as data URIs: small JPEG photographs, and overlays as transparent palette PNGs.

The report has its own class colors, because many of VOC's are too dark to see over a photograph.

Letters: K classes present, (H, W) pixels, (h, w) grid cells.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.records import IGNORE, IGNORE_16
from engine.report.data import Floats, Mask

LONG_SIDE_PX = 360
"""Long side of a thumbnail; smaller images keep their size."""

_JPEG_QUALITY = 80
_CLEAR = (0, 0, 0, 0)
_DARK = (0, 0, 0, 200)
_WRONG_COLOR = (255, 40, 40)
_IGNORE_COLOR = (235, 235, 235)
_BODY_OPACITY = 105  # of 255: the photograph stays visible inside the outline
_GOLDEN_RATIO = 0.61803398875

Color = tuple[int, int, int]


def color_of(class_id: int) -> Color:
    """Return the color of a class in a report: bright, with distant hues for neighboring ids."""
    lightness = (0.58, 0.72, 0.48)[class_id // 8 % 3]
    red, green, blue = colorsys.hls_to_rgb((class_id - 1) * _GOLDEN_RATIO % 1, lightness, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def css_color(class_id: int) -> str:
    """Return the color of a class, or of background (0), as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color_of(class_id) if class_id else (0, 0, 0))


def thumbnail_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the thumbnail of an image."""
    shrink = min(1.0, LONG_SIDE_PX / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def photograph_uri(photograph: NDArray[np.uint8]) -> str:
    """Encode a photograph (H, W, 3) uint8 as a small JPEG."""
    height, width = thumbnail_size(*photograph.shape[:2])
    small = Image.fromarray(photograph).resize((width, height), Image.Resampling.LANCZOS)
    return _uri(small, "JPEG", quality=_JPEG_QUALITY)


def mask_uri(mask: Mask, size: tuple[int, int]) -> str:
    """Encode a mask (H, W) of class ids as an overlay of ``size``: tinted, outlined objects on clear background.

    The outline is opaque and edged with a dark line, so that it is visible over any photograph.
    """
    small = _resized(mask, size)
    ids, places = np.unique(small, return_inverse=True)
    ids, places = ids[:84], np.minimum(places.reshape(size), 83)  # no thumbnail of real masks holds 84 classes
    ignore = IGNORE if mask.dtype == np.uint8 else IGNORE_16
    colors = [_IGNORE_COLOR if class_id == ignore else color_of(int(class_id)) for class_id in ids]
    palette = [
        _CLEAR if class_id == 0 else (*color, _BODY_OPACITY) for class_id, color in zip(ids, colors, strict=True)
    ]
    palette += [(*color, 255) for color in colors] + [_DARK]
    is_object = small != 0
    outline = _beside(small) & is_object
    outline |= _beside(outline) & is_object  # two pixels wide
    dark = _beside(is_object) & ~is_object
    places = np.where(dark, len(palette) - 1, np.where(outline, places + len(ids), places))
    return _palette_uri(places.astype(np.uint8), palette)


def _beside(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the pixels that differ from a pixel above, below, left or right of them."""
    found = np.zeros(values.shape, np.bool_)
    down, right = values[1:] != values[:-1], values[:, 1:] != values[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found


def wrong_uri(mask: Mask, truth: Mask, size: tuple[int, int]) -> str:
    """Encode the pixels where mask and truth differ, in red; pixels that the truth ignores are never wrong."""
    ignore = IGNORE if truth.dtype == np.uint8 else IGNORE_16
    small_truth = _resized(truth, size)
    wrong = (_resized(mask, size).astype(np.int64) != small_truth.astype(np.int64)) & (small_truth != ignore)
    return _palette_uri(wrong.astype(np.uint8), [_CLEAR, (*_WRONG_COLOR, 255)])


def heat_uri(cam: Floats, class_ids: Sequence[int], size: tuple[int, int]) -> str:
    """Encode class maps (K, h, w) in [0, 1] in the colors of their classes, clear where no class is active."""
    height, width = (max(1, side // 2) for side in size)  # maps are smooth: half the size loses nothing
    maps = [
        Image.fromarray(np.nan_to_num(one).astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        for one in cam
    ]
    if not maps:
        return _palette_uri(np.zeros((1, 1), np.uint8), [_CLEAR])
    # a palette has room for 127 classes with two levels each
    strengths = np.clip(np.stack([np.asarray(one) for one in maps]), 0, 1)[:127]
    num_levels = min(16, 255 // len(strengths))
    winner, strength = strengths.argmax(0), strengths.max(0)
    level = np.round(strength * num_levels).astype(np.int64)
    places = np.where(level == 0, 0, 1 + winner * num_levels + level - 1).astype(np.uint8)
    colors: list[tuple[int, int, int, int]] = [_CLEAR]
    for class_id in list(class_ids)[: len(strengths)]:
        colors += [(*color_of(class_id), 230 * (step + 1) // num_levels) for step in range(num_levels)]
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
