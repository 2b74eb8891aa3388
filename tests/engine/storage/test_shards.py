"""engine/storage/shards.py: committed shards, and what other programs make of them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from engine.errors import StorageError
from engine.imaging.codecs import decode_mask, encode_mask
from engine.records import Batch, mask_schema, shard_table
from engine.storage.filesystem import write_bytes
from engine.storage.shards import (
    committed_shards,
    count_rows,
    open_dataset,
    read_schema,
    read_shard,
    read_shards,
    shard_name,
    shard_path,
    write_shard,
)
from tests.s3_server import S3Server

METADATA = {"config_hash": "0123", "class_names": '["cat", "dog"]'}


def mask_of(number: int, dtype: type[Any] = np.uint8) -> np.ndarray[Any, Any]:
    mask = np.zeros((12, 16), dtype)
    mask[2:9, 3 : 5 + number % 8] = 1 + number % 2
    mask[0, 0] = 255
    return mask


def rows(first: int, count: int, *, keep_stages: bool = False) -> pa.Table:
    """Rows of a mask shard; every third carries an error instead of a mask."""
    numbers = range(first, first + count)
    good = [number % 3 != 2 for number in numbers]
    png = [encode_mask(mask_of(number)) if ok else None for number, ok in zip(numbers, good, strict=True)]
    batch: Batch = {
        "image_id": [f"{number:05d}" for number in numbers],
        "image": [f"images/{number}.jpg" for number in numbers],
        "height": [12 if ok else None for ok in good],
        "width": [16 if ok else None for ok in good],
        "tags": [["cat", "dog"][: number % 3] for number in numbers],
        "mask": png,
        "areas": [[0.5, 0.25] if ok else None for ok in good],
        "confidence": [0.75 if ok else None for ok in good],
        "error": [None if ok else "decode: truncated" for ok in good],
    }
    if keep_stages:
        batch |= {"mask_cam": png, "mask_walk": png}
    return shard_table(batch, mask_schema(keep_stages=keep_stages, metadata=METADATA))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for shard in range(3):
        write_shard(str(tmp_path / "out"), shard, rows(shard * 5, 5))
    # what else lies there must not disturb a reader
    hidden = tmp_path / "out" / ".tag2mask"
    hidden.mkdir()
    for name in ("run.json", "summary.json", "evaluation.json", "tally.json"):
        (hidden / name).write_text('{"images": 15}')
    (hidden / "manifest").write_bytes(b"PAR1")
    return str(tmp_path / "out")


def test_committed_shards_are_known_from_the_names(folder: str) -> None:
    for name in ("shard-0.parquet", "shard-000007.parquet.tmp", ".shard-000008.parquet", "shard-00000x.parquet"):
        (Path(folder) / name).write_bytes(b"")
    assert committed_shards(folder) == {0, 1, 2}
    assert committed_shards(folder + "/nothing") == set()
    write_shard(folder, 1_234_567, rows(0, 1))
    assert committed_shards(folder) == {0, 1, 2, 1_234_567}
    assert shard_name(7) == "shard-000007.parquet"


def test_rows_come_back_as_they_were_committed(folder: str) -> None:
    table = read_shard(folder, 1)
    assert table.to_pylist() == rows(5, 5).to_pylist()
    assert table.schema.metadata == rows(5, 5).schema.metadata
    tables = list(read_shards(folder, ["image_id", "mask"]))
    ids = [image_id for table in tables for image_id in table.column("image_id").to_pylist()]
    assert ids == [f"{number:05d}" for number in range(15)]
    assert tables[0].column_names == ["image_id", "mask"]
    for number, cell in enumerate(tables[0].column("mask").to_pylist()):
        if number % 3 != 2:
            np.testing.assert_array_equal(decode_mask(cell["bytes"]), mask_of(number))
        else:
            assert cell is None
    assert count_rows(folder) == 15
    assert read_schema(folder).metadata[b"config_hash"] == b"0123"


def test_same_rows_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, hashlib; sys.path.insert(0, '.')\n"
        "from tests.engine.storage.test_shards import rows\n"
        "from engine.storage.shards import write_shard, shard_path\n"
        "write_shard(sys.argv[1], 3, rows(0, 50, keep_stages=True))\n"
    )
    hashes = set()
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
        hashes.add(hashlib.sha256(Path(shard_path(str(tmp_path / name), 3)).read_bytes()).hexdigest())
    # the same rows in several chunks, as they may leave a pipeline
    table = rows(0, 50, keep_stages=True)
    write_shard(str(tmp_path / "c"), 3, pa.concat_tables([table.slice(0, 13), table.slice(13)]))
    hashes.add(hashlib.sha256(Path(shard_path(str(tmp_path / "c"), 3)).read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_shard_that_is_missing_or_damaged_is_named(folder: str) -> None:
    with pytest.raises(StorageError, match=r"shard-000009.parquet' does not exist"):
        read_shard(folder, 9)
    damaged = Path(shard_path(folder, 1))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"shard-000001.parquet' is not a readable shard"):
        read_shard(folder, 1)
    with pytest.raises(StorageError, match="has no column 'seed'"):
        read_shard(folder, 0, ["seed"])
    with pytest.raises(StorageError, match="contains no shards"):
        next(read_shards(folder + "/nothing"))


def test_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    write_shard(str(tmp_path / "date=2024"), 0, rows(0, 2))
    assert read_shard(str(tmp_path / "date=2024"), 0).column_names == rows(0, 2).column_names


@pytest.mark.s3
def test_shards_in_a_bucket_are_the_same_as_on_disk(s3: S3Server, folder: str) -> None:
    remote = s3.make_bucket(f"shards-{uuid.uuid4().hex[:12]}") + "/out 1"
    assert committed_shards(remote) == set()
    for shard in range(3):
        write_shard(remote, shard, rows(shard * 5, 5))
    assert committed_shards(remote) == {0, 1, 2}
    assert count_rows(remote) == 15
    for ours, theirs in zip(read_shards(remote), read_shards(folder), strict=True):
        assert ours.equals(theirs, check_metadata=True)
    with pytest.raises(StorageError, match="does not exist"):
        read_shard(remote, 9)


def test_pandas_polars_and_duckdb_read_the_shards_by_pattern(folder: str) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    files = sorted(str(path) for path in Path(folder).glob("*.parquet"))
    frame = pd.read_parquet(files)
    assert frame["image_id"].tolist() == [f"{number:05d}" for number in range(15)]
    np.testing.assert_array_equal(decode_mask(frame["mask"].iloc[0]["bytes"]), mask_of(0))

    table = pl.read_parquet(f"{folder}/*.parquet")
    assert table.height == 15
    assert table["error"].null_count() == 10
    np.testing.assert_array_equal(decode_mask(table["mask"][0]["bytes"]), mask_of(0))

    query = f"select image_id, mask.bytes, areas[1] from '{folder}/*.parquet' where error is null order by image_id"
    found = duckdb.execute(query).fetchall()
    assert len(found) == 10
    assert found[0][2] == 0.5
    np.testing.assert_array_equal(decode_mask(found[0][1]), mask_of(0))


def test_readers_take_the_folder_whole(folder: str, tmp_path: Path) -> None:
    import datasets
    import duckdb
    import pandas as pd

    ids = [f"{number:05d}" for number in range(15)]
    assert pd.read_parquet(folder)["image_id"].tolist() == ids
    assert pq.read_table(folder).column("image_id").to_pylist() == ids
    assert pads.dataset(folder).count_rows() == 15
    assert duckdb.execute(f"select count(*) from read_parquet('{folder}')").fetchall() == [(15,)]
    loaded = datasets.load_dataset(folder, cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"]["image_id"][:] == ids


def test_polars_looks_into_hidden_folders_and_needs_a_pattern(folder: str) -> None:
    """What docs/data.md says; where this fails, say it anew there."""
    import polars as pl

    with pytest.raises(pl.exceptions.InvalidOperationError):
        pl.read_parquet(folder)
    assert pl.read_parquet(f"{folder}/*.parquet").height == 15
    assert pl.scan_pyarrow_dataset(open_dataset(folder)).collect().height == 15


@pytest.mark.s3
def test_duckdb_polars_and_pandas_query_shards_in_a_bucket(s3: S3Server, folder: str) -> None:
    import duckdb
    import polars as pl

    remote = s3.make_bucket(f"query-{uuid.uuid4().hex[:12]}") + "/masks"
    for path in Path(folder).iterdir():
        if path.is_file():
            write_bytes(f"{remote}/{path.name}", path.read_bytes())
    masks = open_dataset(remote)
    query = "select error, count(*), avg(confidence) from masks group by error order by error"
    assert duckdb.connect().register("masks", masks).sql(query).fetchall() == [
        ("decode: truncated", 5, None),
        (None, 10, 0.75),
    ]
    sure = pl.scan_pyarrow_dataset(masks).filter(pl.col("confidence") > 0.5).select("image_id", "areas").collect()
    assert sure.height == 10
    assert masks.to_table(columns=["image_id", "tags"]).to_pandas()["tags"][1].tolist() == ["cat"]
    # polars reaches the bucket by itself too
    options = {
        "aws_endpoint_url": s3.endpoint,
        "aws_access_key_id": s3.access_key,
        "aws_secret_access_key": s3.secret_key,
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
    }
    assert pl.scan_parquet(f"{remote}/*.parquet", storage_options=options).select(pl.len()).collect().item() == 15


@pytest.mark.parametrize("keep_stages", [False, True])
def test_datasets_gives_the_masks_as_pictures(tmp_path: Path, keep_stages: bool) -> None:
    import datasets

    for shard in range(2):
        write_shard(str(tmp_path / "out"), shard, rows(shard * 5, 5, keep_stages=keep_stages))
    loaded = datasets.load_dataset(
        "parquet", data_files=f"{tmp_path}/out/*.parquet", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 10
    assert isinstance(loaded.features["mask"], datasets.Image)
    assert loaded[0]["mask"].mode == "P"
    np.testing.assert_array_equal(np.asarray(loaded[0]["mask"]), mask_of(0))
    assert loaded[2]["mask"] is None
    assert loaded[2]["error"] == "decode: truncated"
    assert loaded[1]["tags"] == ["cat"]
    if keep_stages:
        np.testing.assert_array_equal(np.asarray(loaded[1]["mask_walk"]), mask_of(1))
