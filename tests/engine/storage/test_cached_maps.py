"""A manifest whose rows carry cached maps."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.records import COLUMN_TYPES
from engine.storage.cached_maps import CachedMaps
from engine.storage.manifest import Manifest, SingleRows, freeze_manifest
from engine.storage.shards import write_shard


def _write(folder: Path, **columns: list[Any]) -> str:
    table = pa.table({name: pa.array(values, COLUMN_TYPES[name]) for name, values in columns.items()})
    for shard in range(2):
        write_shard(str(folder), shard, table.slice(2 * shard, 2))
    return str(folder)


@pytest.fixture
def maps(tmp_path: Path) -> CachedMaps:
    (tmp_path / "manifest.csv").write_text("image,tags\n" + "".join(f"{number}.png,cat\n" for number in range(4)))
    manifest = freeze_manifest(
        str(tmp_path / "manifest.csv"), str(tmp_path / "frozen"), class_names=("cat",), rows_per_shard=2
    )
    sizes = {"height": [5] * 4, "width": [7] * 4}
    cams = [
        _write(tmp_path / "0", **sizes, error=[None] * 4, cam=[b"a0", b"a1", b"a2", b"a3"]),
        _write(tmp_path / "1", **sizes, error=[None, "cam: no", None, None], cam=[b"b0", None, b"b2", b"b3"]),
    ]
    return CachedMaps(
        **{item.name: getattr(manifest, item.name) for item in fields(Manifest)},
        cams=tuple(cams),
        distances=_write(tmp_path / "d", error=[None] * 3 + ["distances: no"], distances=[b"d0", b"d1", b"d2", None]),
        truth=_write(tmp_path / "t", truth=[b"t0", b"t1", b"t2", b"t3"]),
    )


def test_row_has_the_maps_of_its_image_and_the_first_error_of_any(maps: CachedMaps) -> None:
    first, second = maps.read_shard(0), maps.read_shard(1)
    assert first["cams"] == [[b"a0", b"b0"], [b"a1", None]]
    assert first["error"] == [None, "cam: no"]
    assert second["error"] == [None, "distances: no"]
    assert (second["distances"], second["truth"]) == ([b"d2", None], [b"t2", b"t3"])
    assert second["height"] == [5, 5]


def test_image_done_apart_from_its_shard_has_its_own_maps(maps: CachedMaps) -> None:
    row = SingleRows(manifest=maps).read_shard(3)
    assert (row["image"], row["cams"], row["truth"]) == (["3.png"], [[b"a3", b"b3"]], [b"t3"])
