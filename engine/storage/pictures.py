"""The bytes of a picture, wherever it lies: a file of its own, a member of a tar, a row of a Parquet file.

Where a file holds many, the URI says which: ``tar://OFFSET+SIZE/LOCATION`` is a range of bytes, ``parquet://ROW/LOCATION``
the column ``image`` of a row, counted from 0 over the whole file. LOCATION is a local path or a URI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.errors import MissingError, StorageError
from engine.storage import filesystem
from engine.storage.plain_columns import check_plain
from engine.storage.retries import readable, retry

_TAR = re.compile(r"^tar://(\d+)\+(\d+)/(.+)$", re.DOTALL)
_PARQUET = re.compile(r"^parquet://(\d+)/(.+)$", re.DOTALL)
MOST_BYTES = 1 << 30
"""Largest file of a picture that is read; 100 million pixels of 16 bits are .6 GB."""
_BATCH_ROWS = 32
_BUFFER_BYTES = 1 << 20


def tar_uri(location: str, offset: int, size: int) -> str:
    """The URI of a member of a tar.

    Args:
        offset: of its first byte in the file.
        size: bytes.
    """
    return f"tar://{offset}+{size}/{location}"


def parquet_uri(location: str, row: int) -> str:
    """The URI of a picture in a row, counted from 0, of a Parquet file."""
    return f"parquet://{row}/{location}"


def file_of(uri: str) -> str:
    """The file that holds a picture; ``uri`` itself where it is one."""
    member, row = _TAR.match(uri), _PARQUET.match(uri)
    if member is not None:
        return member.group(3)
    return uri if row is None else row.group(2)


def read_picture(uri: str) -> bytes:
    """The file of one picture.

    Args:
        uri: local path, URI, :func:`tar_uri` or :func:`parquet_uri`.

    Raises:
        StorageError: it is not there, or cannot be read.
    """
    member, row = _TAR.match(uri), _PARQUET.match(uri)
    if member is not None:
        return _read_range(member.group(3), int(member.group(1)), int(member.group(2)))
    if row is not None:
        number, location = int(row.group(1)), row.group(2)
        found = _read_rows(location, [number])
        if number not in found:
            raise _no_picture(location, number)
        return found[number]
    return filesystem.read_bytes(uri, most_bytes=MOST_BYTES)


def read_pictures(uris: Sequence[str], pool: Executor) -> list[bytes | StorageError]:
    """As :func:`read_picture` for many at a time; rows of one Parquet file are read together.

    Args:
        pool: threads that wait for the storage.

    Returns:
        The file of each picture, or why there is none.
    """
    places: dict[str, list[int]] = {}
    for index, uri in enumerate(uris):
        row = _PARQUET.match(uri)
        places.setdefault(uri if row is None else f"parquet:{row.group(2)}", []).append(index)
    results: list[bytes | StorageError] = [b""] * len(uris)
    for indices, read in zip(places.values(), pool.map(_read_place, _taken(uris, places.values())), strict=True):
        for index, one in zip(indices, read, strict=True):
            results[index] = one
    return results


def _taken(uris: Sequence[str], groups: Iterable[list[int]]) -> list[list[str]]:
    return [[uris[index] for index in indices] for indices in groups]


def _read_place(uris: list[str]) -> list[bytes | StorageError]:
    rows = [_PARQUET.match(uri) for uri in uris]
    try:
        if rows[0] is None:
            data = read_picture(uris[0])  # the same picture under several ids is read once
            return [data] * len(uris)
        numbers = [int(row.group(1)) for row in rows if row is not None]
        location = rows[0].group(2)
        found = _read_rows(location, numbers)
    except StorageError as error:
        return [error] * len(uris)
    return [found[number] if number in found else _no_picture(location, number) for number in numbers]


def _no_picture(location: str, row: int) -> StorageError:
    return MissingError(f"'{location}' has no picture in row {row}")


def _read_range(location: str, offset: int, size: int) -> bytes:
    def read() -> bytes:
        filesystem.check_size(size, MOST_BYTES)
        opened, path = filesystem.open_filesystem(location)
        with opened.open_input_file(path) as file:
            data: bytes = file.read_at(size, offset)
        if len(data) == size:
            return data
        raise StorageError(f"'{location}' ends before byte {offset + size}; the archive was changed or cut off")

    return retry(read, location)


def _read_rows(location: str, rows: Sequence[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}

    def read() -> None:
        opened, path = filesystem.open_filesystem(location)
        with opened.open_input_file(path) as source:
            # no pre-buffering: that would hold a whole row group, and the rows wanted may be its first
            file = pq.ParquetFile(
                source,
                metadata=_footer(location),
                pre_buffer=False,
                buffer_size=0 if isinstance(opened, pafs.LocalFileSystem) else _BUFFER_BYTES,
            )
            for group, first, wanted in _by_group(_starts(location), rows):
                found.update(_pictures(file, group, first, wanted))

    with readable(location, "Parquet file"):
        retry(read, location)
    return found


def _by_group(starts: tuple[int, ...], rows: Iterable[int]) -> list[tuple[int, int, list[int]]]:
    """The rows by row group: its number, its first row, the rows wanted in their order."""
    groups: dict[int, list[int]] = {}
    for row in sorted(rows):
        if row < starts[-1]:
            groups.setdefault(int(np.searchsorted(starts, row, side="right")) - 1, []).append(row)
    return [(group, starts[group], wanted) for group, wanted in groups.items()]


def _pictures(file: pq.ParquetFile, group: int, first: int, wanted: list[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    check_plain(file.schema_arrow, ["image"])
    is_struct = pa.types.is_struct(file.schema_arrow.field("image").type)
    columns = ["image.bytes" if is_struct else "image"]
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
        column = batch.column(0).field("bytes") if is_struct else batch.column(0)
        for row in wanted:
            if first <= row < first + batch.num_rows:
                data = column[row - first].as_py()
                if data is not None:
                    found[row] = data
        first += batch.num_rows
        if first > wanted[-1]:
            break
    return found


@lru_cache(maxsize=4)
def _footer(location: str) -> pq.FileMetaData:
    opened, path = filesystem.open_filesystem(location)
    with opened.open_input_file(path) as source:
        return pq.read_metadata(source)


@lru_cache(maxsize=4)
def _starts(location: str) -> tuple[int, ...]:
    """First row of each row group, and at the end the number of rows."""
    footer = _footer(location)
    sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    return (0, *(int(end) for end in np.cumsum(sizes)))
