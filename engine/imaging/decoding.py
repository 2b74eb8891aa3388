"""Encoded pictures to RGB.

Whatever Pillow reads becomes (H, W, 3) uint8: the EXIF orientation is applied, grey is repeated, palettes are looked
up, CMYK is converted, 16 bits are scaled to 8, and transparent pixels lie on white. Of an animation or a file with
several pages the first picture counts. Colour profiles are not applied.

Letters: (H, W) pixels.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import lru_cache
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from engine.errors import ImageError, first_line
from engine.timing import measured

# Pillow warns of every odd file; the rows' errors say all that matters
warnings.filterwarnings("ignore", module=r"PIL\.")

_NOT_READ = {
    "EPS",  # runs Ghostscript on the file
    "BUFR",  # no decoder of its own, as the next three
    "GRIB",
    "HDF5",
    "WMF",
}
_BROKEN_METADATA = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    struct.error,
    zlib.error,
)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_SIGNATURE_BYTES = 16
"""What Pillow shows each format first."""
_TIFF_BITS_PER_SAMPLE = 258


def image_size(encoded: bytes, max_pixels: int) -> tuple[int, int]:
    """Height and width after EXIF orientation, read from the header alone.

    Raises:
        ImageError: as :func:`decode_image`, as far as the header shows it.
    """
    try:
        with _open(encoded, max_pixels) as image:
            width, height = image.size
            # Pillow gives a TIFF's size as it is after the orientation
            sideways = image.format != "TIFF" and _orientation(image) in _SIDEWAYS
    except ImageError:
        raise
    except Exception as error:
        raise ImageError("decode", _reason(error)) from error
    return (width, height) if sideways else (height, width)


def is_upright(encoded: bytes) -> bool:
    """Whether a picture that Pillow opens is stored as it is to be seen, without an EXIF orientation."""
    with Image.open(io.BytesIO(encoded), formats=_formats()) as image:
        return _orientation(image) == 1


def is_picture(file: BinaryIO) -> bool:
    """Whether a file is one that Pillow opens, by its content; formats without a signature (TGA) are not recognized.

    Args:
        file: at its start. More than the signature is read only where that is a picture's.
    """
    head = file.read(_SIGNATURE_BYTES)
    padded = head.ljust(_SIGNATURE_BYTES, b"\0")
    formats = [name for name in _formats() if (accepts := Image.OPEN[name][1]) is not None and accepts(padded) is True]
    if not formats:
        return False
    try:
        with Image.open(io.BytesIO(head + file.read()), formats=formats):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # noqa: BLE001 - Pillow's parsers raise anything
        return False


@measured("decode")
def decode_image(encoded: bytes, *, max_pixels: int, draft_px: int = 0) -> NDArray[np.uint8]:
    """An encoded picture as RGB.

    Args:
        encoded: the file.
        max_pixels: greatest H * W that is decoded; the header is checked before anything else is read.
        draft_px: above 0, a JPEG may come out at 1/2, 1/4 or 1/8 of its size while its long side keeps this length.

    Returns:
        (H, W, 3) uint8, contiguous and writable.

    Raises:
        ImageError: with stage ``decode``; the file is empty, truncated, too large, or nothing that Pillow reads.
    """
    try:
        with _open(encoded, max_pixels) as image:
            if draft_px > 0:
                long_side = max(image.size)
                image.draft(None, (-(-image.width * draft_px // long_side), -(-image.height * draft_px // long_side)))
            image.load()
            _check_pixels(image, max_pixels)
            return upright_rgb(image)
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise anything, MemoryError and struct.error included
        raise ImageError("decode", _reason(error)) from error


def upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """A picture of any of Pillow's modes as it is to be seen: turned as its EXIF orientation says, on white.

    Returns:
        (H, W, 3) uint8, contiguous and writable.
    """
    image.load()
    orientation = _orientation(image)  # a TIFF is turned by load(), and then says so
    upright = image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
    return np.array(_to_rgb(upright, _bits(image)), dtype=np.uint8, order="C")


def resize_long_side(image: NDArray[np.uint8], long_side_px: int) -> NDArray[np.uint8]:
    """The image brought to a long side, bilinear with antialiasing.

    Args:
        image: (H, W, 3) uint8.
        long_side_px: new length of the longer side, pixels; 0 returns ``image`` as it is.

    Returns:
        (H', W', 3) uint8 with max(H', W') = ``long_side_px``.
    """
    height, width = image.shape[:2]
    long_side = max(height, width)
    if long_side_px in (0, long_side):
        return image
    size = (max(1, round(width * long_side_px / long_side)), max(1, round(height * long_side_px / long_side)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_READ)


def _open(encoded: bytes, max_pixels: int) -> Image.Image:
    if not encoded:
        raise ImageError("decode", "the file is empty")
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        # Pillow's own limit must not undercut ours
        Image.MAX_IMAGE_PIXELS = max_pixels
    image = Image.open(io.BytesIO(encoded), formats=_formats())
    _check_pixels(image, max_pixels)
    return image


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError("decode", f"{image.width} x {image.height} pixels are more than max_pixels {max_pixels}")
    if image.width * image.height == 0:
        raise ImageError("decode", "the picture has no pixels")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than max_pixels"
    if isinstance(error, MemoryError):
        return "not enough memory"
    reason = first_line(error)
    # an address would differ from run to run
    return type(error).__name__ if " at 0x" in reason else reason


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _BROKEN_METADATA:
        return 1
    return value if isinstance(value, int) else 1


def _bits(image: Image.Image) -> int:
    """Bits a sample of a picture of mode I;16 (a 12-bit TIFF comes in 16 bits, unscaled)."""
    stored = cast(Any, image).tag_v2.get(_TIFF_BITS_PER_SAMPLE) if image.format == "TIFF" else None
    return 12 if stored in (12, (12,)) else 16


def _to_rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode.startswith("I;16"):
        bytes_of = np.rint(np.clip(np.arange(2**16) / (2**bits - 1), 0, 1) * 255).astype(np.uint8)
        return Image.fromarray(bytes_of[np.asarray(image)]).convert("RGB")
    if image.mode in ("I", "F"):
        return _grey(_fractions(np.asarray(image).astype(np.float64), image.mode))
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


def _fractions(values: NDArray[np.float64], mode: str) -> NDArray[np.float64]:
    """Samples of 32 bits as fractions: of the narrowest of 1, 255, 65535 that holds them, else stretched."""
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0:
        ranges = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,)
        for top in ranges:
            if high <= top:
                return values / top
    return (values - low) / max(high - low, 1e-12)


def _grey(fractions: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(fractions, 0, 1) * 255).astype(np.uint8)).convert("RGB")
