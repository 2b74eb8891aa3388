"""The bytes of a picture, wherever it lies: a file of its own, a member of a tar, a row of a Parquet file.

Where a file holds many, the URI says which: ``tar://OFFSET+SIZE/LOCATION`` is a range of bytes,
``parquet://ROW@OFFSET+SIZE/LOCATION`` a row, counted from 0, of the pages of a column that lie there
(:mod:`engine.storage.parquet_pages`). LOCATION is a local path or a URI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor

from engine.errors import MissingError, StorageError
from engine.storage import filesystem
from engine.storage.parquet_pages import pages_of, read_pages
from engine.storage.retries import readable, retry

_TAR = re.compile(r"^tar://(\d+)\+(\d+)/(.+)$", re.DOTALL)
_PARQUET = re.compile(r"^parquet://(\d+)@(\d+)\+(\d+)/(.+)$", re.DOTALL)
MOST_BYTES = 1 << 30
"""Largest file of a picture that is read; 100 million pixels of 16 bits are .6 GB."""


def tar_uri(location: str, offset: int, size: int) -> str:
    """The URI of a member of a tar.

    Args:
        offset: of its first byte in the file.
        size: bytes.
    """
    return f"tar://{offset}+{size}/{location}"


def parquet_uris(location: str, column: str) -> Iterator[str]:
    """The URI of the picture in each row of a Parquet file.

    Args:
        column: dotted path of the column of bytes.
    """
    for pages in pages_of(location, column):
        for row in range(pages.num_rows):
            yield f"parquet://{row}@{pages.offset}+{pages.size}/{location}"


def file_of(uri: str) -> str:
    """The file that holds a picture; ``uri`` itself where it is one."""
    member, row = _TAR.match(uri), _PARQUET.match(uri)
    if member is not None:
        return member.group(3)
    return uri if row is None else row.group(4)


def page_bytes(uri: str) -> int:
    """Bytes that are read for a picture in a Parquet file, with its neighbours; 0 of any other."""
    row = _PARQUET.match(uri)
    return 0 if row is None else int(row.group(3))


def read_picture(uri: str) -> bytes:
    """The file of one picture.

    Args:
        uri: local path, URI, :func:`tar_uri` or one of :func:`parquet_uris`.

    Raises:
        StorageError: it is not there, or cannot be read.
    """
    member, row = _TAR.match(uri), _PARQUET.match(uri)
    if member is not None:
        return _read_range(member.group(3), int(member.group(1)), int(member.group(2)))
    if row is not None:
        [found] = _read_rows(row.group(4), int(row.group(2)), int(row.group(3)), [int(row.group(1))])
        if isinstance(found, StorageError):
            raise found
        return found
    return filesystem.read_bytes(uri, most_bytes=MOST_BYTES)


def read_pictures(uris: Sequence[str], pool: Executor) -> list[bytes | StorageError]:
    """As :func:`read_picture` for many at a time; rows of the same pages of a Parquet file are read together.

    Args:
        pool: threads that wait for the storage.

    Returns:
        The file of each picture, or why there is none.
    """
    places: dict[str, list[int]] = {}
    for index, uri in enumerate(uris):
        row = _PARQUET.match(uri)
        places.setdefault(uri if row is None else uri[row.end(1) :], []).append(index)
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
        return _read_rows(rows[0].group(4), int(rows[0].group(2)), int(rows[0].group(3)), numbers)
    except StorageError as error:
        return [error] * len(uris)


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


def _read_rows(location: str, offset: int, size: int, rows: Sequence[int]) -> list[bytes | StorageError]:
    """Pictures of rows, counted from the first row of the pages at a place."""
    with readable(location, "Parquet file"):
        column = retry(lambda: read_pages(location, offset, size), location)
    found = [column[row].as_py() if row < len(column) else None for row in rows]
    return [
        MissingError(f"'{location}' has no picture in row {row} of the page at byte {offset}") if data is None else data
        for row, data in zip(rows, found, strict=True)
    ]
