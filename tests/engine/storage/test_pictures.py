"""Pictures inside larger files: where they are found, and what is said when they are not."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.storage import filesystem, parquet_pages
from engine.storage.parquet_pages import pages_of, read_pages
from engine.storage.pictures import parquet_uris, read_picture, read_pictures, tar_uri


def _table(folder: Path) -> str:
    pictures = [None if number == 4 else bytes([number]) for number in range(40)]
    pq.write_table(pa.table({"image": pa.array(pictures, pa.large_binary())}), folder / "p.parquet", row_group_size=9)
    return str(folder / "p.parquet")


def test_pictures_come_back_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    table, file = _table(tmp_path), tmp_path / "a.jpg"
    file.write_bytes(b"0123456789")
    rows = list(parquet_uris(table, "image"))
    uris = [rows[row] for row in (39, 0, 9, 8, 0)]
    uris[2:2] = [str(file), tar_uri(str(file), 3, 4)]
    with ThreadPoolExecutor(2) as pool:
        assert read_pictures(uris, pool) == [b"\x27", b"\0", b"0123456789", b"3456", b"\t", b"\x08", b"\0"]
    assert [read_picture(uri) for uri in uris[:4]] == [b"\x27", b"\0", b"0123456789", b"3456"]


def test_picture_that_is_not_there_costs_no_other(tmp_path: Path) -> None:
    table, file = _table(tmp_path), tmp_path / "a.jpg"
    file.write_bytes(b"0123456789")
    rows = list(parquet_uris(table, "image"))
    bad = [
        rows[4],
        rows[39].replace("//3@", "//99@"),
        tar_uri(str(file), 8, 4),
        rows[0].replace(table, str(file)),
        rows[0].replace("@4+", "@999999+"),
    ]
    with ThreadPoolExecutor(2) as pool:
        results = read_pictures([*bad, rows[5]], pool)
    assert results[-1] == b"\x05"
    for uri, result, sentence in zip(
        bad,
        results,
        (
            "no picture in row 4",
            "no picture in row 99",
            "ends before byte 12",
            "is not a readable Parquet file",
            "has no page at byte 999999",
        ),
        strict=False,
    ):
        assert isinstance(result, OSError)
        assert sentence in str(result)
        with pytest.raises(OSError, match=sentence):
            read_picture(uri)


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_every_kind_give_their_pictures(
    tmp_path: Path, codec: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_pages, "_NEAR_BYTES", 0)  # so small a column would be read as a whole
    generator = np.random.default_rng(0)
    pictures = [None if row % 17 == 4 else generator.bytes(int(generator.integers(0, 9000))) for row in range(90)]
    pictures[50:60] = [pictures[3]] * 10
    location = str(tmp_path / "p.parquet")
    structs = [None if row == 7 else {"bytes": data, "path": "x"} for row, data in enumerate(pictures)]
    columns = [
        ("image.bytes", pa.array(structs), True),
        ("image", pa.array(pictures, pa.large_binary()), True),
        ("image", pa.array([data or b"" for data in pictures], pa.binary()), False),
    ]
    for (column, values, nullable), dictionary in itertools.product(columns, (True, False)):
        schema = pa.schema([("number", pa.int64()), pa.field("image", values.type, nullable=nullable)])
        pq.write_table(
            pa.table([range(90), values], schema),
            location,
            compression=codec,
            data_page_version=version,
            data_page_size=8000,
            dictionary_pagesize_limit=20_000,
            write_batch_size=4,
            use_dictionary=dictionary,
            row_group_size=60,
        )
        parquet_pages.pages_of.cache_clear()
        parquet_pages._read_pages.cache_clear()
        parquet_pages._chunks.cache_clear()
        pages = pages_of(location, column)
        assert len(pages) >= 20
        found = [picture for one in pages for picture in read_pages(location, one.offset, one.size).to_pylist()]
        plain = values.field("bytes").to_pylist() if column == "image.bytes" else values.to_pylist()
        assert found == [None if value is None else data for value, data in zip(values.to_pylist(), plain, strict=True)]


def test_row_group_of_a_whole_file_is_read_once_whatever_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    pictures = [generator.bytes(1000) for _ in range(20_000)]  # pyarrow ends a page after 1024 rows at the earliest
    location = str(tmp_path / "p.parquet")
    pq.write_table(pa.table({"image": pa.array(pictures, pa.binary())}), location)
    assert pq.read_metadata(location).num_row_groups == 1
    num_bytes = most = 0
    open_filesystem = filesystem.open_filesystem

    def counting(place: str) -> tuple[Any, str]:
        opened, path = open_filesystem(place)

        class Counted:
            def open_input_file(self, name: str) -> Any:
                file = opened.open_input_file(name)

                class File:
                    def __enter__(self) -> Any:
                        return self

                    def __exit__(self, *_: object) -> None:
                        file.close()

                    def read_at(self, size: int, offset: int) -> Any:
                        nonlocal num_bytes, most
                        data = file.read_at(size, offset)
                        num_bytes, most = num_bytes + len(data), max(most, len(data))
                        return data

                return File()

        return Counted(), path

    parquet_pages._chunks(location)  # the footer, by pyarrow itself
    with monkeypatch.context() as patched:
        patched.setattr(filesystem, "open_filesystem", counting)
        patched.setattr(parquet_pages, "_FAR_BYTES", parquet_pages._NEAR_BYTES)
        uris = list(parquet_uris(location, "image"))
        shards = [uris[start : start + 64] for start in range(0, 20_000, 64)]
        with ThreadPoolExecutor(2) as pool:
            found = [picture for shard in shards for picture in read_pictures(shard, pool)]
    assert found == pictures
    assert num_bytes < 1.2 * 20_000 * 1000
    assert most < 3 << 20
