"""What is written comes back: masks, maps, shards, weights, manifests, pictures of any size."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.imaging.codecs import decode_map, decode_mask, encode_map, encode_mask
from engine.imaging.decoding import decode_image, image_size
from engine.records import mask_schema, shard_table
from engine.resources import Decoding
from engine.storage.shards import read_shard, write_shard
from engine.storage.sources.tags import plain_name
from engine.storage.user_manifest import iter_manifest
from engine.storage.weights import load_weights, save_weights
from tests.poison import encode

SIDES = st.integers(1, 40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=50, deadline=None)
@given(SIDES, SIDES, st.sampled_from([np.dtype(np.uint8), np.dtype(np.uint16)]), st.integers(0, 99))
def test_mask_comes_back_from_its_png(height: int, width: int, dtype: np.dtype[np.integer[Any]], rng_seed: int) -> None:
    mask = np.random.default_rng(rng_seed).integers(0, np.iinfo(dtype).max + 1, (height, width)).astype(dtype)
    back = decode_mask(encode_mask(mask))
    assert back.dtype == dtype
    assert np.array_equal(back, mask)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), SIDES, SIDES, st.integers(0, 99))
def test_map_comes_back_in_half_precision(num_maps: int, h: int, w: int, rng_seed: int) -> None:
    values = np.random.default_rng(rng_seed).random((num_maps, h, w), dtype=np.float32)
    back = decode_map(encode_map(values))
    assert back.shape == values.shape
    assert back.dtype == np.float32
    assert np.allclose(back, values, atol=1e-3)


@st.composite
def _shards(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Rows as the last stage leaves them: a mask, or an error."""
    rows: dict[str, list[Any]] = {name: [] for name in mask_schema(keep_stages=False, metadata={}).names}
    for number in range(draw(st.integers(0, 5))):
        tags = draw(st.lists(TEXT, max_size=3, unique=True))
        failed = draw(st.booleans())
        height, width = draw(SIDES), draw(SIDES)
        values: dict[str, Any] = {
            "image_id": f"{number}{draw(TEXT)}",
            "image": draw(TEXT),
            "height": None if failed else height,
            "width": None if failed else width,
            "tags": tags,
            "mask": None if failed else encode_mask(np.zeros((height, width), np.uint8)),
            "areas": None if failed else [1.0, *[0.0] * len(tags)],
            "confidence": None if failed else draw(st.floats(0, 1, width=32)),
            "error": f"decode: {draw(TEXT)}" if failed else None,
        }
        for name, value in values.items():
            rows[name].append(value)
    return rows


@settings(max_examples=40, deadline=None)
@given(_shards())
def test_shard_comes_back_row_by_row(rows: dict[str, list[Any]]) -> None:
    table = shard_table(rows, mask_schema(keep_stages=False, metadata={"tag2mask": "{}"}))
    with tempfile.TemporaryDirectory() as folder:
        write_shard(folder, 3, table)
        first = (Path(folder) / "shard-000003.parquet").read_bytes()
        back = read_shard(folder, 3)
        write_shard(folder, 3, table)
        assert (Path(folder) / "shard-000003.parquet").read_bytes() == first
    assert back.equals(table)
    masks = [None if one is None else one["bytes"] for one in back.column("mask").to_pylist()]
    assert masks == rows["mask"]
    assert back.drop_columns("mask").to_pylist() == table.drop_columns("mask").to_pylist()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=4), TEXT)
def test_weights_come_back_with_any_shape_and_text(shapes: list[list[int]], text: str) -> None:
    tensors = {f"layer.{number}": torch.rand(shape) for number, shape in enumerate(shapes)}
    with tempfile.TemporaryDirectory() as folder:
        save_weights(folder, tensors, {"about": text})
        back, metadata = load_weights(folder)
    assert metadata == {"about": text}
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


NAMES = TEXT.filter(lambda name: bool(name.strip()) and "://" not in name and "\r" not in name)
LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters=";|,[]{}()")
TAGS = st.text(LETTERS, min_size=1, max_size=12).map(plain_name).filter(bool)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(NAMES, st.lists(TAGS, max_size=3, unique=True)),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row[0].strip(),
    )
)
def test_manifest_of_every_kind_gives_the_rows_that_were_written(rows: list[tuple[str, list[str]]]) -> None:
    # as every CSV reader of programs that pad with blanks, ours drops those before a cell
    rows = [(name.strip(), tags) for name, tags in rows]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with (place / "m.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([("image", "tags"), *((name, ";".join(tags)) for name, tags in rows)])
        lines = [json.dumps({"image": name, "tags": tags}) for name, tags in rows]
        (place / "m.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        columns = {
            "image": [name for name, _ in rows],
            "tags": pa.array([tags for _, tags in rows], pa.list_(pa.string())),
        }
        pq.write_table(pa.table(columns), place / "m.parquet")
        for name in ("m.csv", "m.jsonl", "m.parquet"):
            read = [
                row
                for batch in iter_manifest(str(place / name))
                for row in zip(batch["image"], batch["tags"], strict=True)
            ]
            assert read == rows, name


@settings(max_examples=60, deadline=None)
@given(
    SIDES,
    SIDES,
    st.sampled_from(["L", "LA", "RGB", "RGBA", "1", "P", "I;16", "CMYK", "F"]),
    st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF"]),
    st.integers(0, 99),
)
def test_picture_of_any_size_and_mode_is_read_as_rgb(
    height: int, width: int, mode: str, kind: str, rng_seed: int
) -> None:
    rng = np.random.default_rng(rng_seed)
    picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(0, 65536, (height, width)).astype(np.uint16))
    elif mode == "F":
        picture = Image.fromarray(rng.random((height, width), dtype=np.float32))
    elif mode != "RGB":
        picture = picture.convert(mode)
    try:
        encoded = encode(picture, kind)
    except (OSError, ValueError):
        return  # Pillow does not write this mode in this format
    pixels = decode_image(encoded, Decoding(max_pixels=10_000))
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert image_size(encoded, 10_000) == (height, width)
    if (mode, kind) == ("RGB", "PNG"):
        assert np.array_equal(pixels, np.asarray(picture))
