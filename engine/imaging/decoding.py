"""Encoded pictures to RGB.

Whatever Pillow reads becomes (H, W, 3) uint8: the EXIF orientation is applied, grey is repeated, palettes are looked
up, CMYK is converted, 16 bits are scaled to 8, and transparent pixels lie on white
(:mod:`engine.imaging.pixels`). Of an animation or a file with several pages the first picture counts. Colour profiles
are not applied.

Letters: (H, W) pixels.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from engine.errors import ImageError, first_line
from engine.imaging.pixels import deep_values, has_deep_colours, is_of_12_bits, swap_bytes, to_rgb
from engine.resources import Decoding
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
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks of a PNG that no pixel depends on, and that Pillow refuses above a megabyte."""
_PNG_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
"""Texts that may hold the orientation, as ImageMagick writes it."""
_MOST_EXIF_BYTES = 1 << 18


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


def stored_form(encoded: bytes) -> tuple[str, bool]:
    """Pillow's name of a picture's format, and whether it is stored as it is to be seen, without an EXIF orientation.

    Args:
        encoded: what :func:`image_size` takes.
    """
    with Image.open(io.BytesIO(_without_text(encoded)), formats=_formats()) as image:
        return str(image.format), _orientation(image) == 1


def stored_mode(encoded: bytes) -> str:
    """Format and mode of a picture as it is stored, such as ``JPEG RGB``.

    Args:
        encoded: what :func:`image_size` takes.
    """
    with Image.open(io.BytesIO(_without_text(encoded)), formats=_formats()) as image:
        deep = " of 16 bits" if has_deep_colours(image) else ""
        return f"{image.format} {image.mode}{deep}"


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
        with Image.open(io.BytesIO(_without_text(head + file.read())), formats=formats):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # noqa: BLE001 - Pillow's parsers raise anything
        return False


@measured("decode")
def decode_image(encoded: bytes, decoding: Decoding, *, draft_px: int = 0) -> NDArray[np.uint8]:
    """An encoded picture as RGB.

    Args:
        encoded: the file.
        decoding: greatest H * W, checked by the header before anything else is read; bands; range of values.
        draft_px: above 0, a JPEG may come out at 1/2, 1/4 or 1/8 of its size while its long side keeps this length.

    Returns:
        (H, W, 3) uint8, contiguous and writable.

    Raises:
        ImageError: with stage ``decode``; the file is empty, truncated, too large, lacks a band, or is nothing that
            Pillow reads.
    """
    try:
        with _open(encoded, decoding.max_pixels) as image:
            if draft_px > 0:
                long_side = max(image.size)
                image.draft(None, (-(-image.width * draft_px // long_side), -(-image.height * draft_px // long_side)))
            lower = _lower(encoded, image, decoding) if decoding.value_range else None
            image.load()
            _check_pixels(image, decoding.max_pixels)
            return upright_rgb(image, decoding, lower)
    except ImageError:
        raise
    except Exception as error:
        # Pillow's decoders raise anything, MemoryError and struct.error included
        raise ImageError("decode", _reason(error)) from error


def stored_values(encoded: bytes, decoding: Decoding) -> NDArray[Any] | None:
    """The samples of a picture of 16 or more bits as they are stored; None for any other, and what is no picture.

    Returns:
        (H, W) or (H, W, B), not turned.
    """
    try:
        with _open(encoded, decoding.max_pixels) as image:
            if not (has_deep_colours(image) or image.mode in ("I", "F") or image.mode.startswith("I;16")):
                return None
            lower = _lower(encoded, image, decoding)
            image.load()
            return None if is_of_12_bits(image) else deep_values(image, lower)
    except Exception:  # noqa: BLE001 - as in decode_image; the run itself says which pictures cannot be decoded
        return None


def _lower(encoded: bytes, image: Image.Image, decoding: Decoding) -> Image.Image | None:
    """The lower bytes of a picture with colours of 16 bits."""
    if not has_deep_colours(image):
        return None
    lower = _open(encoded, decoding.max_pixels)
    swap_bytes(lower)
    lower.load()
    return lower


def upright_rgb(
    image: Image.Image,
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    lower: Image.Image | None = None,
) -> NDArray[np.uint8]:
    """A picture of any of Pillow's modes as it is to be seen: turned as its EXIF orientation says, on white.

    Args:
        lower: as :func:`engine.imaging.pixels.to_rgb` takes it.

    Returns:
        (H, W, 3) uint8, contiguous and writable.
    """
    image.load()
    orientation = _orientation(image)  # a TIFF is turned by load(), and then says so
    rgb = to_rgb(image, decoding, lower)
    upright = rgb.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else rgb
    return np.array(upright, dtype=np.uint8, order="C")


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
    image = Image.open(io.BytesIO(_without_text(encoded)), formats=_formats())
    _check_pixels(image, max_pixels)
    return image


def _without_text(encoded: bytes) -> bytes:
    """A PNG without its texts and colour profile; any other file as it is."""
    if not encoded.startswith(_PNG):
        return encoded
    kept: list[bytes] = []
    start = position = len(_PNG)
    while position + 8 <= len(encoded):
        size, kind = int.from_bytes(encoded[position : position + 4], "big"), encoded[position + 4 : position + 8]
        end = position + 12 + size
        is_exif = encoded.startswith(_PNG_EXIF, position + 8) and size <= _MOST_EXIF_BYTES
        if kind in _PNG_TEXT and not is_exif:
            kept.append(encoded[start:position])
            start = end
        position = end
    return b"".join([_PNG, *kept, encoded[start:]]) if kept else encoded


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
