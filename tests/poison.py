"""Bad and odd input of every kind, each with what must come of it.

An image ends as a mask of its size or as an error row with stage and reason; a manifest is read, or refused in one
line. ``jobs.label`` over all of it must label every good image as if the rest were not there.
"""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

HEIGHT, WIDTH = 24, 32
CLASS_NAMES = ("cat", "dog", "bird")

Size = tuple[int, int]


@dataclass(frozen=True)
class ImageCase:
    """One entry of a manifest."""

    kind: str
    """What is odd about it."""
    image: str
    """The path in the manifest."""
    encoded: bytes | None
    """The file that lies there; None where none does, or something that is no file."""
    expected: Size | str
    """(H, W) of its mask, or how its error begins."""
    tags: str = "cat"


@dataclass(frozen=True)
class ManifestCase:
    """A whole manifest."""

    kind: str
    name: str
    content: bytes
    expected: list[tuple[str, list[str]]] | str
    """Image and tags of each row, or a part of the one line that refuses it."""


def pixels(height: int = HEIGHT, width: int = WIDTH, rng_seed: int = 0) -> Image.Image:
    """A coloured picture that is not plain."""
    coarse = np.random.default_rng(rng_seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def lossless_jpeg(side: int = 16) -> bytes:
    """A plain grey picture as lossless JPEG (SOF3): every difference is 0, and 0 is the code's only word."""
    frame = struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00"
    table = b"\x00" + bytes([1] + [0] * 15) + b"\x00"
    scan = b"\x01\x01\x00" + b"\x01\x00\x00"
    parts = [(0xC3, frame), (0xC4, table), (0xDA, scan)]
    segments = b"".join(b"\xff" + bytes([mark]) + struct.pack(">H", len(data) + 2) + data for mark, data in parts)
    return b"\xff\xd8" + segments + bytes(side * side // 8) + b"\xff\xd9"


def ycck_jpeg() -> bytes:
    """A CMYK JPEG whose Adobe marker says that the inks are stored as YCCK."""
    encoded = encode(pixels().convert("CMYK"), "JPEG")
    marker = encoded.index(b"Adobe")
    return encoded[: marker + 11] + b"\x02" + encoded[marker + 12 :]


def _with_segment(encoded: bytes, mark: int, data: bytes) -> bytes:
    return encoded[:2] + b"\xff" + bytes([mark]) + struct.pack(">H", len(data) + 2) + data + encoded[2:]


def _broken() -> Iterator[ImageCase]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    yield ImageCase("empty file", "empty.jpg", b"", "decode: the file is empty")
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        encoded = encode(noise, kind)
        yield ImageCase(f"truncated {kind}", f"cut.{kind.lower()}", encoded[: len(encoded) // 2], "decode: ")
    nothing = "decode: not a picture that Pillow reads"
    yield ImageCase("HTML saved as .jpg", "html.jpg", b"<!DOCTYPE html><html>404 Not Found</html>", nothing)
    yield ImageCase("SVG", "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', nothing)
    yield ImageCase("PostScript", "page.eps", encode(pixels(), "EPS"), nothing)
    yield ImageCase("zeros", "zeros.jpg", bytes(1000), nothing)
    yield ImageCase("first bytes of a JPEG", "start.jpg", b"\xff\xd8\xff", "decode: ")
    yield ImageCase("PNG with a wrong checksum", "checksum.png", _wrong_checksum(), "decode: ")
    bomb = "decode: more pixels than max_pixels"
    yield ImageCase("decompression bomb", "bomb.png", png_header(30_000, 30_000), bomb)
    large = "decode: 10000 x 1000 pixels are more than max_pixels"
    yield ImageCase("more pixels than allowed", "large.png", png_header(10_000, 1_000), large)
    yield ImageCase("picture of no pixels", "nothing.png", png_header(0, 5), "decode: ")


def _wrong_checksum() -> bytes:
    encoded = bytearray(encode(pixels()))
    encoded[encoded.index(b"IDAT") + 8] ^= 0xFF
    return bytes(encoded)


def _odd_modes() -> Iterator[ImageCase]:
    size, plain = (HEIGHT, WIDTH), pixels()
    grey = np.asarray(plain.convert("L"))
    yield ImageCase("PNG named .jpg", "wrong.jpg", encode(plain), size)
    yield ImageCase("no ending", "noending", encode(plain), size)
    yield ImageCase("progressive JPEG", "progressive.jpg", encode(plain, "JPEG", progressive=True), size)
    yield ImageCase("lossless JPEG", "lossless.jpg", lossless_jpeg(), (16, 16))
    yield ImageCase("CMYK JPEG", "cmyk.jpg", encode(plain.convert("CMYK"), "JPEG"), size)
    yield ImageCase("YCCK JPEG", "ycck.jpg", ycck_jpeg(), size)
    yield ImageCase("16-bit PNG", "deep.png", encode(Image.fromarray(grey.astype(np.uint16) * 257)), size)
    yield ImageCase("1-bit PNG", "bits.png", encode(plain.convert("1")), size)
    yield ImageCase("grey JPEG", "grey.jpg", encode(plain.convert("L"), "JPEG"), size)
    palette = plain.quantize(8)
    yield ImageCase("palette with transparency", "palette.png", encode(palette, transparency=3), size)
    yield ImageCase("grey with alpha", "la.png", encode(plain.convert("LA")), size)
    yield ImageCase("all transparent", "clear.png", encode(Image.new("RGBA", (WIDTH, HEIGHT))), size)
    frames = {"save_all": True, "append_images": [pixels(rng_seed=1), pixels(rng_seed=2)]}
    yield ImageCase("animated GIF", "moving.gif", encode(plain, "GIF", **frames), size)
    yield ImageCase("animated WebP", "moving.webp", encode(plain, "WEBP", **frames), size)
    yield ImageCase("TIFF of several pages", "pages.tiff", encode(plain, "TIFF", **frames), size)
    yield ImageCase("float TIFF", "float.tiff", encode(Image.fromarray(grey.astype(np.float32)), "TIFF"), size)
    yield ImageCase("one colour", "plain.png", encode(Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9))), size)
    jpeg = encode(plain, "JPEG")
    for number in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = number
        turned = size if number < 5 else (WIDTH, HEIGHT)
        yield ImageCase(f"EXIF orientation {number}", f"exif{number}.jpg", encode(plain, "JPEG", exif=exif), turned)
    yield ImageCase("corrupt EXIF", "exif.jpg", _with_segment(jpeg, 0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"), size)
    yield ImageCase("corrupt ICC", "icc.jpg", encode(plain, "JPEG", icc_profile=b"garbage" * 40), size)


def _odd_sizes() -> Iterator[ImageCase]:
    for height, width in ((1, 1), (1, 5000), (5000, 1), (2, 3), (33, 31)):
        yield ImageCase(f"{height} x {width}", f"{height}x{width}.png", encode(pixels(height, width)), (height, width))


ODD_NAMES = {
    "spaces": "a  b .png",
    "unicode": "größe 猫 🐈.png",
    "combining letters": "u\u0308.png",
    "right to left": "\u202eabc.png",
    "quotes": 'it\'s "one".png',
    "newline": "two\nlines.png",
    "hash": "a#b.png",
    "question mark": "a?b=c.png",
    "percent": "100%25 %zz.png",
    "plus and ampersand": "a+b&c.png",
    "dash first": "-rf.png",
    "dot first": ".hidden.png",
    "semicolon and comma": "a;b,c.png",
    "backslash": "a\\b.png",
    "angle brackets": "<script>alert(1)</script>.png",
    "folder like a partition": "class=cat/a.png",
    "dots inside": "x/../dots.png",
    "colon": "C:a.png",
    "glob": "[a-z]*.png",
}
"""Names that a path or a key of a store may have."""


def _odd_names() -> Iterator[ImageCase]:
    encoded = encode(pixels())
    for kind, name in ODD_NAMES.items():
        yield ImageCase(f"name with {kind}", name, encoded, (HEIGHT, WIDTH))
    yield ImageCase("name too long", "n" * 300 + ".png", None, "fetch: ")
    yield ImageCase("name with a zero byte", "zero\0.png", None, "fetch: ")
    yield ImageCase("folder", "folder.png", None, "fetch: ")
    yield ImageCase("pipe", "pipe.png", None, "fetch: ")
    yield ImageCase("link to itself", "loop.png", None, "fetch: ")
    yield ImageCase("missing", "nowhere.png", None, "fetch: ")
    yield ImageCase("file in place of a folder", "empty.jpg/a.png", None, "fetch: ")
    outside = "lies outside the manifest's folder"
    yield ImageCase("path that leaves the folder", "../secret.png", None, f"manifest: '../secret.png' {outside}")
    yield ImageCase("absolute path", "/etc/passwd", None, f"manifest: '/etc/passwd' {outside}")
    yield ImageCase("local URI", "file:///etc/passwd", None, f"manifest: 'file:///etc/passwd' {outside}")
    yield ImageCase("unknown scheme", "ftp://bucket/a.png", None, "fetch: ")
    yield ImageCase("bucket without a name", "s3:///a.png", None, "fetch: ")


def _odd_tags() -> Iterator[ImageCase]:
    encoded, size = encode(pixels()), (HEIGHT, WIDTH)
    unknown = "is not among the classes"
    yield ImageCase("no tags", "tags0.png", encoded, size, tags="")
    yield ImageCase("tags of nothing but separators", "tags1.png", encoded, size, tags=" ; ;; ")
    yield ImageCase("all tags", "tags2.png", encoded, size, tags="cat;dog;bird")
    yield ImageCase("a tag twice, with spaces", "tags3.png", encoded, size, tags=" cat;dog ; cat")
    yield ImageCase("unknown tag", "tags4.png", encoded, f"manifest: tag 'unicorn' {unknown}", tags="cat;unicorn")
    yield ImageCase("tag in odd case", "tags5.png", encoded, f"manifest: tag 'Cat' {unknown}", tags="Cat")
    yield ImageCase(
        "background as a tag", "tags6.png", encoded, f"manifest: tag 'background' {unknown}", tags="background"
    )
    markup = "<b>cat</b>"
    yield ImageCase("markup as a tag", "tags7.png", encoded, f"manifest: tag '{markup}' {unknown}", tags=markup)


def image_cases() -> list[ImageCase]:
    """All bad and odd images."""
    cases = [*_broken(), *_odd_modes(), *_odd_sizes(), *_odd_names(), *_odd_tags()]
    assert len({case.kind for case in cases}) == len({case.image for case in cases}) == len(cases)
    return cases


def good_cases(num_images: int) -> list[ImageCase]:
    """Plain images of a few sizes and tags."""
    sizes = [(40, 60), (60, 40), (48, 48)]
    tags = ["cat", "dog;bird", "", "bird"]
    cases = []
    for number in range(num_images):
        size = sizes[number % len(sizes)]
        encoded = encode(pixels(*size, rng_seed=number), "JPEG", quality=90)
        cases.append(ImageCase(f"good {number}", f"good{number}.jpg", encoded, size, tags[number % len(tags)]))
    return cases


def mixed(good: list[ImageCase], bad: list[ImageCase]) -> list[ImageCase]:
    """Good images spread evenly among the bad ones."""
    step = -(-len(bad) // max(1, len(good)))
    rows: list[ImageCase] = []
    for number, case in enumerate(good):
        rows += [case, *bad[number * step : (number + 1) * step]]
    return rows


def write_images(folder: Path, cases: list[ImageCase]) -> str:
    """The files and their manifest; gives its location."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if case.encoded is not None:
            place = Path(os.path.normpath(folder / case.image))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(case.encoded)
    kinds = {case.kind for case in cases}
    if "folder" in kinds:
        (folder / "folder.png").mkdir()
    if "pipe" in kinds:
        os.mkfifo(folder / "pipe.png")
    if "link to itself" in kinds:
        (folder / "loop.png").symlink_to("loop.png")
    (folder.parent / "secret.png").write_bytes(encode(pixels()))
    (folder / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "tags"), *((case.image, case.tags) for case in cases)])
    return str(folder / "manifest.csv")


def manifest_cases() -> list[ManifestCase]:
    """Manifests as people and programs write them."""
    rows = [("a.png", ["cat"]), ("b.png", [])]
    plain = "image,tags\na.png,cat\nb.png,\n"
    many, too_many = (";".join(f"c{number:05}" for number in range(count)) for count in (300, 70_000))
    return [
        ManifestCase("BOM", "m.csv", b"\xef\xbb\xbf" + plain.encode(), rows),
        ManifestCase("CRLF", "m.csv", plain.replace("\n", "\r\n").encode(), rows),
        ManifestCase("old Mac's line ends", "m.csv", plain.replace("\n", "\r").encode(), rows),
        ManifestCase("blank lines", "m.csv", plain.replace("\n", "\n\n").encode(), rows),
        ManifestCase("no last line end", "m.csv", plain.rstrip().encode(), [("a.png", ["cat"]), ("b.png", [])]),
        ManifestCase("semicolons for commas", "m.csv", plain.replace(",", ";").encode(), "it has: image;tags"),
        ManifestCase("tabs for commas", "m.csv", plain.replace(",", "\t").encode(), "has no column 'image' and 'tags'"),
        ManifestCase("no header", "m.csv", b"a.png,cat\nb.png,\n", "has no column 'image' and 'tags'"),
        ManifestCase("tags without quotes", "m.csv", b"image,tags\na.png,cat,dog\n", "line 2 has 3 columns"),
        ManifestCase("open quote", "m.csv", b'image,tags\n"a.png,cat\n', "is not CSV"),
        ManifestCase("not UTF-8", "m.csv", "image,tags\né.png,cat\n".encode("latin-1"), "is not UTF-8"),
        ManifestCase("UTF-16", "m.csv", plain.encode("utf-16"), "is not UTF-8"),
        ManifestCase("zero bytes", "m.csv", b"image,tags\na\0.png,cat\n", [("a\0.png", ["cat"])]),
        ManifestCase("empty", "m.csv", b"", "is empty"),
        ManifestCase("header alone", "m.csv", b"image,tags\n", "holds no image"),
        ManifestCase("a cell too large", "m.csv", b"image,tags\na.png," + b"c" * 200_000 + b"\n", "is not CSV"),
        ManifestCase(
            "duplicate ids", "m.csv", b"image,tags\na.png,cat\na.png,cat\n", "image_id 'a.png' more than once"
        ),
        ManifestCase("one class", "m.csv", b"image,tags\na.png,cat\n", [("a.png", ["cat"])]),
        ManifestCase("300 classes", "m.csv", f"image,tags\na.png,{many}\n".encode(), [("a.png", many.split(";"))]),
        ManifestCase("70,000 classes", "m.jsonl", _jsonl(("a.png", too_many)), "70000 classes are more than 65534"),
        ManifestCase("no class at all", "m.csv", b"image,tags\na.png,\n", "there is no class"),
        ManifestCase("class named background", "m.csv", b"image,tags\na.png,background\n", "class 0 by itself"),
        ManifestCase("null cells", "m.jsonl", _jsonl(("a.png", "cat"), ("b.png", None)), rows),
        ManifestCase("null image", "m.jsonl", _jsonl((None, "cat")), "neither an image nor an image_id"),
        ManifestCase(
            "mixed types",
            "m.jsonl",
            _jsonl(("a.png", ["cat"]), (7, "cat;3")),
            [("a.png", ["cat"]), ("7", ["cat", "3"])],
        ),
        ManifestCase("number as tags", "m.jsonl", _jsonl(("a.png", 7)), "row 1 has tags 7"),
        ManifestCase("list as image", "m.jsonl", _jsonl((["a.png"], "cat")), "row 1 has image"),
        ManifestCase(
            "half a line of JSON", "m.jsonl", b'{"image": "a.png", "tags": []}\n{"image"\n', "line 2 is not JSON"
        ),
        ManifestCase("nested too deep", "m.jsonl", b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        ManifestCase("half a character", "m.jsonl", b'{"image": "\\ud800.png", "tags": "cat"}\n', "row 1 has image"),
        ManifestCase("no Parquet", "m.parquet", b"no parquet", "is not a readable parquet file"),
        ManifestCase("spreadsheet", "m.xlsx", b"PK\x03\x04", "must be a file that ends with .csv, .jsonl, .parquet"),
        ManifestCase("all outside", "m.csv", b"image,tags\n../a.png,cat\n", "only has images outside its folder"),
    ]


def _jsonl(*rows: tuple[Any, Any]) -> bytes:
    return "".join(json.dumps({"image": image, "tags": tags}) + "\n" for image, tags in rows).encode()
