"""engine/storage/value_range.py: black and white of pictures of more than 8 bits, the same for all of a run."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.imaging.decoding import decode_image
from engine.resources import Decoding
from engine.storage.manifest import freeze_manifest, open_manifest, share_manifest
from engine.storage.sources.rows import SCHEMA
from engine.storage.value_range import NUM_IMAGES, Sample


def _frozen(folder: Path, pictures: list[NDArray[Any]], **options: Any) -> tuple[float, ...]:
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{number}.tiff")
    lines = "".join(f"{number}.tiff,cat\n" for number in range(len(pictures)))
    (folder / "m.csv").write_text(f"image,tags\nmissing.tiff,cat\n../outside.tiff,cat\n{lines}")
    manifest = freeze_manifest(
        str(folder / "m.csv"), str(folder / "out"), rows_per_shard=9, class_names=("cat",), **options
    )
    assert open_manifest(str(folder / "out")) == manifest
    assert manifest.decoding(7).value_range == manifest.value_range
    return manifest.value_range


def _noise(low: float, high: float, dtype: Any) -> NDArray[Any]:
    return np.random.default_rng(0).uniform(low, high, (40, 50)).astype(dtype)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 4095, np.uint16), (30_000, 40_000, np.uint16), (-500, 900, np.int32), (0, 70_000, np.int32), (3, 9, "<f4")],
)
def test_part_of_the_range_is_stretched_for_all_images_alike(tmp_path: Path, low: int, high: int, dtype: Any) -> None:
    dark, bright = _noise(low, (low + high) / 2, dtype), _noise((low + high) / 2, high, dtype)
    found = _frozen(tmp_path, [dark, bright])
    assert np.allclose(found, (low, high), atol=(high - low) / 50)
    decoding = Decoding(value_range=found)
    means = [decode_image((tmp_path / f"{number}.tiff").read_bytes(), decoding).mean() for number in (0, 1)]
    assert np.allclose(means, (64, 191), atol=6)


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 65535, np.uint16), (100, 40_000, np.uint16), (0, 1, "<f4"), (0, 255, np.uint8)]
)
def test_whole_range_stays_as_it_is(tmp_path: Path, low: int, high: int, dtype: Any) -> None:
    assert _frozen(tmp_path, [_noise(low, high, dtype)]) == ()


def test_range_that_is_given_is_taken_and_shared_with_the_next_job(tmp_path: Path) -> None:
    given = Decoding(bands=(2, 1, 0), value_range=(0, 1023))
    assert _frozen(tmp_path, [_noise(0, 4095, np.uint16)], decoding=given) == (0, 1023)
    manifest = open_manifest(str(tmp_path / "out"))
    shared = share_manifest(
        manifest, str(tmp_path / "next"), rows_per_shard=1, class_names=("cat",), needs_tags=True
    ).decoding(5)
    assert shared == Decoding(max_pixels=5, bands=(2, 1, 0), value_range=(0, 1023))


def test_image_outside_of_the_folder_is_not_looked_at(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_noise(0, 4095, np.uint16)).save(buffer, "TIFF")
    (tmp_path / "outside.tiff").write_bytes(buffer.getvalue())
    (tmp_path / "data").mkdir()
    eight_bits = [_noise(0, 255, np.uint8)]
    assert _frozen(tmp_path / "data", eight_bits) == ()
    assert _frozen(tmp_path / "data", eight_bits, allow_outside=True) != ()


@pytest.mark.parametrize("num_rows", [0, 1, NUM_IMAGES, NUM_IMAGES + 1, 1000, 70_001])
def test_sample_is_spread_evenly_whatever_the_batches(num_rows: int) -> None:
    found = []
    for batch in (1000, 7):
        sample, images = Sample(), [f"{number}" for number in range(num_rows)]
        for start in range(0, num_rows, batch) if num_rows <= 1000 or batch == 1000 else ():
            part = images[start : start + batch]
            empty = pa.nulls(len(part))
            columns = [pa.array(part), pa.array(part), empty.cast(pa.string()), empty.cast(SCHEMA.field("tags").type)]
            sample.add(pa.table(columns, schema=SCHEMA))
        found.append([int(place.rpartition("/")[2]) for place in sample.uris("", allow_outside=True)])
    first = found[0]
    assert min(NUM_IMAGES // 2, num_rows) <= len(first) <= NUM_IMAGES
    assert len({second - one for one, second in itertools.pairwise(first)}) <= 1
    assert found[1] in (first, [])
