"""Pictures of any of Pillow's modes to RGB: bands are chosen, more than 8 bits are scaled, transparency lies on white.

Letters: (H, W) pixels, B bands.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from engine.errors import ImageError
from engine.resources import Decoding

_FULL = 65535
_BITS_PER_SAMPLE, _PHOTOMETRIC, _EXTRA_SAMPLES = 258, 262, 338
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _COLOUR = 0, 1, 2
_ALPHA = (1, 2, 999)
"""Kinds of an extra sample that is transparency; 999 is CorelDRAW's."""
_PLAIN_MODES = ("RGB", "RGBA", "RGBX", "L", "LA", "1")
"""Modes whose bands are those of the file."""
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def _know_more_tiffs() -> None:
    """TIFFs of remote sensing and medicine that Pillow has the means to read, but no entry for, or one that drops the
    fourth band.
    """
    known = TiffImagePlugin.OPEN_INFO
    known[TiffImagePlugin.MM, _WHITE_IS_ZERO, (1,), 1, (16,), ()] = ("I;16B", "I;16B")
    for order, last in ((TiffImagePlugin.II, "L"), (TiffImagePlugin.MM, "B")):
        for bits, raw in ((8, ""), (16, f";16{last}")):
            known[order, _COLOUR, (1,), 1, (bits,) * 4, (0,)] = ("RGBX", f"RGBX{raw}")
            known[order, _BLACK_IS_ZERO, (1,), 1, (bits,) * 4, (0, 0, 0)] = ("RGBX", f"RGBX{raw}")
            known[order, _BLACK_IS_ZERO, (1,), 1, (bits,) * 4, ()] = ("RGBX", f"RGBX{raw}")
            known[order, _BLACK_IS_ZERO, (1,), 1, (bits,) * 3, (0, 0)] = ("RGB", f"RGB{raw}")
            known[order, _BLACK_IS_ZERO, (1,), 1, (bits,) * 3, ()] = ("RGB", f"RGB{raw}")


_know_more_tiffs()


def has_deep_colours(image: Image.Image) -> bool:
    """Whether a picture that was opened, but not loaded, has colours of 16 bits, of which Pillow gives the upper 8."""
    return image.mode in ("RGB", "RGBA", "RGBX") and any(";16" in _raw_mode(tile) for tile in _tiles(image))


def swap_bytes(image: Image.Image) -> None:
    """Let :meth:`PIL.Image.Image.load` give the lower 8 bits of 16 in place of the upper ones.

    Args:
        image: opened, not loaded, and :func:`has_deep_colours`.
    """
    cast(Any, image).tile = [
        tile._replace(
            args=_swapped(tile.args) if isinstance(tile.args, str) else (_swapped(tile.args[0]), *tile.args[1:])
        )
        for tile in _tiles(image)
    ]


def _tiles(image: Image.Image) -> list[Any]:
    return list(getattr(image, "tile", ()))


def _raw_mode(tile: Any) -> str:
    return str(tile.args if isinstance(tile.args, str) else tile.args[0])


def _swapped(raw_mode: str) -> str:
    return raw_mode[:-1] + _OTHER_ORDER[raw_mode[-1]]


def deep_values(image: Image.Image, lower: Image.Image | None = None) -> NDArray[Any] | None:
    """The samples of a picture of more than 8 bits as they are stored; None where there are 8 or less.

    Args:
        image: loaded.
        lower: the same with :func:`swap_bytes`, for colours of 16 bits.

    Returns:
        (H, W) or (H, W, B), uint16, int32 or float32.
    """
    if lower is not None:
        values: NDArray[np.uint16] = np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)
        return values
    return np.asarray(image) if image.mode in ("I", "F") or image.mode.startswith("I;16") else None


def to_rgb(image: Image.Image, decoding: Decoding, lower: Image.Image | None = None) -> Image.Image:
    """A picture as RGB.

    Args:
        image, lower: as for :func:`deep_values`; ``lower`` matters for a ``value_range`` alone.

    Raises:
        ImageError: it lacks a band that is chosen.
    """
    values, has_alpha = deep_values(image, lower), _declares_alpha(image)
    if values is not None:
        image = _in_8_bits(values, image, decoding.value_range)
    elif decoding.bands and image.mode not in _PLAIN_MODES:
        image = _converted(image)
    if decoding.bands:
        return _chosen(image, decoding.bands)
    if image.mode == "RGBA" and not has_alpha:
        image = Image.fromarray(np.ascontiguousarray(np.asarray(image)[..., :3]))
    return _converted(image)


def _converted(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return converted
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _chosen(image: Image.Image, bands: tuple[int, ...]) -> Image.Image:
    there = image.split()
    if max(bands) >= len(there):
        count = "1 band" if len(there) == 1 else f"{len(there)} bands"
        raise ImageError("decode", f"the picture has {count}, counted from 0, and bands asks for {max(bands)}")
    return Image.merge("RGB", [there[band] for band in (bands if len(bands) == 3 else bands * 3)])


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    """A tag's value, or its first; None where the picture is no TIFF, or has no such tag."""
    value = cast(Any, image).tag_v2.get(tag) if image.format == "TIFF" else None
    return value[0] if isinstance(value, tuple) and value else value


def _declares_alpha(image: Image.Image) -> bool:
    """Whether a fourth band is transparency; in a TIFF that does not say so it is another, as infrared."""
    if image.mode == "RGBX":
        return False
    return image.format != "TIFF" or _tiff_tag(image, _EXTRA_SAMPLES) in _ALPHA


def _in_8_bits(values: NDArray[Any], image: Image.Image, value_range: tuple[float, ...]) -> Image.Image:
    """The picture of values of more than 8 bits."""
    invert = _tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO
    if values.dtype == np.uint16:
        low, high = value_range or (0, 4095 if is_of_12_bits(image) else _FULL)
        scaled = _bytes((np.arange(_FULL + 1) - low) / max(high - low, 1e-12), invert)[values]
    else:
        scaled = _bytes(_fractions(values.astype(np.float64), image.mode, value_range), invert)
    return Image.fromarray(scaled)


def is_of_12_bits(image: Image.Image) -> bool:
    """Whether a picture is a TIFF of 12 bits a sample, which Pillow gives as 16, unscaled."""
    return bool(_tiff_tag(image, _BITS_PER_SAMPLE) == 12)


def _bytes(fractions: NDArray[np.floating[Any]], invert: bool) -> NDArray[np.uint8]:
    scaled: NDArray[np.uint8] = np.rint(np.clip(fractions, 0, 1) * 255).astype(np.uint8)
    return 255 - scaled if invert else scaled


def full_range(low: float, high: float, kind: str) -> tuple[float, float] | None:
    """The narrowest usual range that holds values of more than 8 bits; None where there is none.

    Args:
        kind: ``F`` for floats, else integers.
    """
    tops = (1.0, 255.0, float(_FULL)) if kind == "F" else (float(_FULL),)
    return next(((0.0, top) for top in tops if low >= 0 and high <= top), None)


def _fractions(values: NDArray[np.float64], kind: str, value_range: tuple[float, ...]) -> NDArray[np.float64]:
    """Samples of 32 bits as fractions of a range: the one given, else the usual one, else their own."""
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    own = float(values.min()), float(values.max())
    low, high = value_range or full_range(*own, kind) or own
    return (values - low) / max(high - low, 1e-12)
