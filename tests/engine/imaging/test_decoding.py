"""engine/imaging/decoding.py on pictures of every kind that Pillow writes."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from engine.errors import ImageError
from engine.imaging.decoding import decode_image, image_size, resize_long_side, stored_form, stored_values
from engine.resources import Decoding

MAX_PIXELS = 1_000_000
# the module silences Pillow; pytest undoes that for every test
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def gradient(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: red grows to the right, green downwards."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 255 // (width - 1), rows * 255 // (height - 1), np.full_like(rows, 90)], -1).astype(
        np.uint8
    )


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(encoded: bytes) -> NDArray[np.uint8]:
    pixels = decode_image(encoded, Decoding(max_pixels=MAX_PIXELS))
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert image_size(encoded, MAX_PIXELS) == pixels.shape[:2]
    return pixels


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "TGA"])
def test_lossless_picture_comes_back_unchanged(kind: str) -> None:
    np.testing.assert_array_equal(decode(encode(Image.fromarray(gradient()), kind)), gradient())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000"])
def test_lossy_picture_comes_back_nearly_unchanged(kind: str) -> None:
    pixels = decode(encode(Image.fromarray(gradient()), kind, **({} if kind == "JPEG2000" else {"quality": 95})))
    assert np.abs(pixels.astype(int) - gradient()).mean() < 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_the_picture_upright(kind: str, orientation: int) -> None:
    upright = gradient()
    # the sensor's picture: the inverse of what a viewer does with the orientation
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "WEBP":
        options = {"lossless": True}
    pixels = decode(encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= (16 if kind == "JPEG" else 0)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_orientation_that_does_not_exist_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    assert decode(encode(Image.fromarray(gradient()), "JPEG", exif=exif)).shape == gradient().shape


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff"])
def test_corrupt_exif_does_not_kill_a_picture(exif: bytes) -> None:
    plain = encode(Image.fromarray(gradient()), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert decode(plain[:2] + segment + plain[2:]).shape == gradient().shape


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_corrupt_colour_profile_does_not_kill_a_picture(kind: str) -> None:
    assert decode(encode(Image.fromarray(gradient()), kind, icc_profile=b"garbage" * 40)).shape == gradient().shape


def test_grey_picture_is_repeated() -> None:
    grey = gradient()[..., 0]
    np.testing.assert_array_equal(decode(encode(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, 2))


def test_black_and_white_picture_is_0_and_255() -> None:
    bits = Image.fromarray(gradient()[..., 0] > 100)
    assert bits.mode == "1"
    np.testing.assert_array_equal(decode(encode(bits, "PNG"))[..., 1], np.where(gradient()[..., 0] > 100, 255, 0))


def test_palette_is_looked_up_and_its_transparent_colour_is_white() -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert decode(encode(picture, "PNG")).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    for kind in ("PNG", "GIF"):
        assert decode(encode(picture, kind, transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_transparent_pixels_lie_on_white() -> None:
    colors = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    pixels = decode(encode(Image.fromarray(colors), "PNG"))
    assert pixels[0, :2].tolist() == [[10, 20, 30], [255, 255, 255]]
    assert abs(int(pixels[0, 2, 0]) - 127) <= 1
    greys = np.array([[[10, 255], [10, 0]]], np.uint8)
    assert decode(encode(Image.fromarray(greys, "LA"), "PNG")).tolist() == [[[10] * 3, [255] * 3]]


def test_colour_that_a_png_calls_transparent_is_white() -> None:
    encoded = encode(Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)), "PNG", transparency=(1, 2, 3))
    assert decode(encoded).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_cmyk_picture_has_the_right_colours() -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, 8:] = (0, 255, 255, 0)
    for encoded in (
        encode(Image.fromarray(inks, "CMYK"), "JPEG", quality=95),
        encode(Image.fromarray(inks, "CMYK"), "TIFF"),
    ):
        pixels = decode(encoded).astype(int)
        assert np.abs(pixels[4, 2] - 255).max() < 12
        assert np.abs(pixels[4, 13] - (255, 0, 0)).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    grey = np.array([[0, 257, 128 * 257, 40000, 65535]], np.uint16)
    pixels = decode(encode(Image.fromarray(grey), kind))
    assert np.abs(pixels[0, :, 0].astype(int) - [0, 1, 128, 156, 255]).max() <= 1


def test_16_bit_colour_is_scaled_and_not_clipped() -> None:
    samples = np.array([[[0, 32768, 65535], [65535, 0, 257]]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    encoded = _png(2, 1, 16, 2, rows)
    assert decode(encoded).tolist() == [[[0, 128, 255], [255, 0, 1]]]


def _png(width: int, height: int, bits: int, color_type: int, rows: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_float_and_32_bit_pictures_keep_dark_dark_and_bright_bright() -> None:
    for values in (
        np.array([[0.0, 0.5, 1.0]], np.float32),
        np.array([[0.0, 127.5, 255.0]], np.float32),
        np.array([[-7.0, np.nan, 9.0]], np.float32),
        np.array([[0, 2**30, 2**31 - 1]], np.int32),
    ):
        pixels = decode(encode(Image.fromarray(values), "TIFF"))
        assert pixels[0, 0, 0] == 0
        assert pixels[0, 2, 0] == 255
        assert 100 < pixels[0, 1, 0] < 140


def test_lab_picture_becomes_rgb() -> None:
    pixels = decode(encode(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"))
    assert pixels.min() > 245


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_several_counts(kind: str) -> None:
    red, blue = Image.new("RGB", (8, 6), (255, 0, 0)), Image.new("RGB", (8, 6), (0, 0, 255))
    pixels = decode(encode(red, kind, save_all=True, append_images=[blue]))
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.95])
def test_truncated_file_is_an_error(kind: str, fraction: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    encoded = encode(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match=r"^decode: .+"):
        decode_image(encoded[: int(len(encoded) * fraction)], Decoding(max_pixels=MAX_PIXELS))


@pytest.mark.parametrize("encoded", [b"", b"<!DOCTYPE html><html>404</html>", b"\xff\xd8\xff", b"\0" * 1000, b"GIF89a"])
def test_what_is_no_picture_is_an_error_without_addresses(encoded: bytes) -> None:
    for read in (
        lambda: decode_image(encoded, Decoding(max_pixels=MAX_PIXELS)),
        lambda: image_size(encoded, MAX_PIXELS),
    ):
        with pytest.raises(ImageError, match=r"^decode: .+") as caught:
            read()
        assert "0x" not in str(caught.value)


def test_postscript_is_never_run() -> None:
    with pytest.raises(ImageError, match="not a picture"):
        decode_image(encode(Image.new("RGB", (8, 8)), "EPS"), Decoding(max_pixels=MAX_PIXELS))


def test_random_damage_raises_nothing_but_image_errors() -> None:
    generator = np.random.default_rng(1)
    originals = [encode(Image.fromarray(gradient()), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF")]
    for number in range(300):
        damaged = bytearray(originals[number % len(originals)])
        for place in generator.integers(0, len(damaged), 6):
            damaged[place] = generator.integers(0, 256)
        for read in (
            lambda data: decode_image(data, Decoding(max_pixels=10_000)),
            lambda data: image_size(data, 10_000),
        ):
            with suppress(ImageError):
                read(bytes(damaged))


def test_bomb_is_refused_by_its_header_before_it_is_decoded() -> None:
    bomb = _png(60_000, 60_000, 8, 0, b"")
    for read in (lambda: decode_image(bomb, Decoding(max_pixels=MAX_PIXELS)), lambda: image_size(bomb, MAX_PIXELS)):
        with pytest.raises(ImageError, match="pixels"):
            read()


def test_limit_of_pixels_is_exact_and_may_be_above_pillows() -> None:
    encoded = encode(Image.fromarray(gradient(10, 10)), "PNG")
    assert decode_image(encoded, Decoding(max_pixels=100)).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="10 x 10 pixels are more than max_pixels 99"):
        decode_image(encoded, Decoding(max_pixels=99))
    assert image_size(_png(15_000, 14_000, 8, 0, b""), 250_000_000) == (14_000, 15_000)


def test_warnings_of_pillow_do_not_reach_the_user(tmp_path: Path) -> None:
    encoded = encode(Image.fromarray(np.zeros((9500, 9500), np.uint8)), "PNG")
    (tmp_path / "large.png").write_bytes(encoded)
    code = (
        "import sys; from engine.imaging.decoding import image_size;"
        "print(image_size(open(sys.argv[1], 'rb').read(), 100_000_000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large.png")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(9500, 9500)"
    assert done.stderr == ""


@pytest.mark.parametrize(("draft_px", "long_side"), [(0, 1000), (600, 1000), (500, 500), (320, 500), (100, 125)])
def test_draft_keeps_at_least_the_long_side_that_was_asked_for(draft_px: int, long_side: int) -> None:
    for height, width in ((1000, 730), (730, 1000)):
        encoded = encode(Image.fromarray(gradient(height, width)), "JPEG")
        pixels = decode_image(encoded, Decoding(max_pixels=MAX_PIXELS), draft_px=draft_px)
        assert max(pixels.shape) == long_side
        assert (pixels.shape[0] > pixels.shape[1]) == (height > width)


def test_resize_brings_the_long_side_to_its_length() -> None:
    image = gradient(30, 60)
    assert resize_long_side(image, 0) is image
    assert resize_long_side(image, 60) is image
    assert resize_long_side(image, 20).shape == (10, 20, 3)
    assert resize_long_side(image, 120).shape == (60, 120, 3)
    assert resize_long_side(gradient(2, 400), 40).shape == (1, 40, 3)


@pytest.mark.real
def test_real_photographs_decode_to_their_own_size(real_data: Path) -> None:
    files = sorted((real_data / "voc12_animals" / "images").iterdir())[:10]
    assert len(files) == 10
    for file in files:
        with Image.open(file) as expected:
            np.testing.assert_array_equal(decode(file.read_bytes()), np.asarray(expected.convert("RGB")))


def _tiff(bands: NDArray[Any], photometric: int, extra: tuple[int, ...] | None) -> bytes:
    """An uncompressed TIFF of B bands, with or without a word about what the fourth is."""
    height, width, count = bands.shape
    bits = bands.dtype.itemsize * 8
    entries: list[tuple[int, tuple[int, ...]]] = [
        *((256, (width,)), (257, (height,)), (258, (bits,) * count), (259, (1,)), (262, (photometric,)), (273, (0,))),
        *((277, (count,)), (278, (height,)), (279, (bands.nbytes,)), (284, (1,))),
        *([] if extra is None else [(338, extra)]),
    ]
    start = 8 + 2 + 12 * len(entries) + 4
    after = [tag for tag, values in entries if len(values) > 2]
    places = {tag: start + 16 * number for number, tag in enumerate(after)}
    pixels = start + 16 * len(after)
    directory = blob = b""
    for tag, values in entries:
        packed = struct.pack(f"<{len(values)}H", *values)
        if tag == 273:
            value = struct.pack("<I", pixels)
        elif tag in places:
            value, blob = struct.pack("<I", places[tag]), blob + packed.ljust(16, b"\0")
        else:
            value = packed.ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, 4 if tag in (273,) else 3, len(values)) + value
    header = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return header + directory + struct.pack("<I", 0) + blob + bands.astype(f"<u{bits // 8}").tobytes()


FOUR = np.dstack([np.full((4, 5), value, np.uint8) for value in (10, 20, 30, 40)])


@pytest.mark.parametrize(
    ("photometric", "extra"), [(2, None), (2, (0,)), (1, (0, 0, 0)), (1, None)], ids=["silent", "other", "grey", "none"]
)
@pytest.mark.parametrize("deep", [False, True])
def test_fourth_band_that_is_not_said_to_be_transparency_is_no_transparency(
    photometric: int, extra: tuple[int, ...] | None, deep: bool
) -> None:
    encoded = _tiff(FOUR.astype(np.uint16) * 257 if deep else FOUR, photometric, extra)
    assert decode(encoded)[0, 0].tolist() == [10, 20, 30]
    for bands, expected in (((3, 0, 1), [40, 10, 20]), ((3,), [40, 40, 40]), ((0, 1, 2), [10, 20, 30])):
        assert decode_image(encoded, Decoding(bands=bands))[0, 0].tolist() == expected


def test_bands_are_chosen_and_not_blended_where_the_fourth_is_called_transparency() -> None:
    for encoded in (_tiff(FOUR, 2, (2,)), encode(Image.fromarray(FOUR), "PNG")):
        assert decode(encoded)[0, 0].min() > 200
        assert decode_image(encoded, Decoding(bands=(0, 1, 2)))[0, 0].tolist() == [10, 20, 30]
        assert decode_image(encoded, Decoding(bands=(3, 1, 0)))[0, 0].tolist() == [40, 20, 10]
    with pytest.raises(ImageError, match=r"^decode: the picture has 3 bands, counted from 0, and bands asks for 3$"):
        decode_image(encode(Image.fromarray(gradient()), "PNG"), Decoding(bands=(3, 1, 0)))
    with pytest.raises(ImageError, match=r"^decode: the picture has 1 band, "):
        decode_image(encode(Image.fromarray(gradient()[..., 0]), "PNG"), Decoding(bands=(0, 1, 2)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF LZW", "colour PNG", "colour TIFF"])
def test_12_bits_in_16_are_stretched_by_the_range_that_is_given(kind: str) -> None:
    values = np.array([[[0, 16, 2048], [4095, 1000, 9]]], np.uint16)
    if kind == "colour PNG":
        encoded = _png(2, 1, 16, 2, b"\0" + values[0].astype(">u2").tobytes())
    elif kind == "colour TIFF":
        encoded = _tiff(values, 2, None)
    else:
        values = values.reshape(1, 6)
        options = {"compression": "tiff_lzw"} if kind.endswith("LZW") else {}
        encoded = encode(Image.fromarray(values), kind.split()[0], **options)
    pixels = decode_image(encoded, Decoding(value_range=(0, 4095)))
    expected = np.rint(values / 4095 * 255)
    np.testing.assert_array_equal(pixels if values.ndim == 3 else pixels[..., 0], expected)
    np.testing.assert_array_equal(stored_values(encoded, Decoding()), values)
    assert stored_values(encode(Image.fromarray(gradient()), "PNG"), Decoding()) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_white_is_zero_is_inverted_by_its_tag(dtype: Any) -> None:
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    values = np.array([[0, top / 4, top]]).astype(dtype)
    encoded = encode(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    if dtype == np.uint8:  # which Pillow itself writes inverted
        encoded = _tiff(values[..., None], 0, None)
    assert np.abs(decode(encoded)[0, :, 0].astype(int) - [255, 191, 0]).max() <= 1


def test_png_with_large_texts_and_profile_is_a_picture() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("plain", "x" * 2_000_000)
    texts.add_text("packed", "x" * 70_000_000, zip=True)
    texts.add_itxt("unicode", "ü" * 2_000_000, zip=True)
    encoded = encode(Image.fromarray(gradient()), "PNG", pnginfo=texts, icc_profile=bytes(70_000_000))
    np.testing.assert_array_equal(decode(encoded), gradient())
    assert stored_form(encoded) == ("PNG", True)
    start = encoded.index(b"packed") - 8
    cut = encoded[: start + 40]  # in the middle of a text
    with pytest.raises(ImageError, match=r"^decode: .+"):
        decode_image(cut, Decoding())


def test_orientation_in_a_text_of_imagemagick_is_applied() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    encoded = encode(Image.fromarray(gradient()), "PNG", pnginfo=texts)
    assert decode(encoded).shape == (32, 24, 3)
    assert stored_form(encoded) == ("PNG", False)


def test_further_channels_of_a_tiff_are_left_out() -> None:
    inks = np.zeros((4, 5, 5), np.uint8)
    inks[..., 1:3] = inks[..., 4] = 255  # magenta, yellow and a spot colour
    pixels = decode(_tiff(inks, 5, (0,))).astype(int)
    assert np.abs(pixels - (255, 0, 0)).max() < 12
    alphas = np.dstack([FOUR, FOUR])[..., :5]
    assert decode(_tiff(alphas, 2, (2, 0)))[0, 0].min() > 200


@pytest.mark.parametrize("count", [2, 5])
def test_bands_that_pillow_has_no_mode_for_are_an_error_of_the_image(count: int) -> None:
    encoded = _tiff(np.zeros((4, 5, count), np.uint16), 1, (0,) * (count - 1))
    with pytest.raises(ImageError, match=r"^decode: not a picture that Pillow reads$"):
        decode_image(encoded, Decoding())
