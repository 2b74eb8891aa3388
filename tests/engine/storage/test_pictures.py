"""Pictures inside larger files: where they are found, and what is said when they are not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.storage.pictures import parquet_uri, read_picture, read_pictures, tar_uri


def _table(folder: Path) -> str:
    pictures = [None if number == 4 else bytes([number]) for number in range(40)]
    pq.write_table(pa.table({"image": pa.array(pictures, pa.large_binary())}), folder / "p.parquet", row_group_size=9)
    return str(folder / "p.parquet")


def test_pictures_come_back_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    table, file = _table(tmp_path), tmp_path / "a.jpg"
    file.write_bytes(b"0123456789")
    uris = [parquet_uri(table, row) for row in (39, 0, 9, 8, 0)]
    uris[2:2] = [str(file), tar_uri(str(file), 3, 4)]
    with ThreadPoolExecutor(2) as pool:
        assert read_pictures(uris, pool) == [b"\x27", b"\0", b"0123456789", b"3456", b"\t", b"\x08", b"\0"]
    assert [read_picture(uri) for uri in uris[:4]] == [b"\x27", b"\0", b"0123456789", b"3456"]


def test_picture_that_is_not_there_costs_no_other(tmp_path: Path) -> None:
    table, file = _table(tmp_path), tmp_path / "a.jpg"
    file.write_bytes(b"0123456789")
    bad = [parquet_uri(table, 4), parquet_uri(table, 99), tar_uri(str(file), 8, 4), parquet_uri(str(file), 0)]
    with ThreadPoolExecutor(2) as pool:
        results = read_pictures([*bad, parquet_uri(table, 5)], pool)
    assert results[-1] == b"\x05"
    for uri, result, sentence in zip(
        bad,
        results,
        ("no picture in row 4", "no picture in row 99", "ends before byte 12", "is not a readable Parquet file"),
        strict=False,
    ):
        assert isinstance(result, OSError)
        assert sentence in str(result)
        with pytest.raises(OSError, match=sentence):
            read_picture(uri)
