"""Pictures in a column of a Parquet file, found and read by pages.

A row group is the least that pyarrow reads by itself, and pandas and pyarrow write a whole file as one: to read it
for each shard would take work that grows with the square of the rows. A page has a megabyte, or 1024 pictures. The
headers of the pages are walked through once, when the manifest is read; a page is read as a Parquet file of its own,
made of its bytes and a footer, so that decompression and decoding are pyarrow's.

Source: README.md and parquet.thrift of apache/parquet-format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.storage import filesystem
from engine.storage.retries import retry
from engine.storage.thrift import Int32, read_struct, struct

_HEADER_BYTES = 256
_MOST_HEADER_BYTES = 1 << 20
"""Statistics in a header may hold the least and the greatest value, which here are pictures."""
_NEAR_BYTES, _FAR_BYTES = 2 << 20, 32 << 20
"""A column chunk up to this is read as a whole: on a disk, and in a store, where a walk costs a request a page."""
_LARGE_BYTES = 8 << 20
_MAGIC = b"PAR1"
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
_DICTIONARY_ENCODINGS = (2, 8)
_CODECS = {"UNCOMPRESSED": 0, "SNAPPY": 1, "GZIP": 2, "LZO": 3, "BROTLI": 4, "LZ4": 5, "ZSTD": 6, "LZ4_RAW": 7}
_TYPES = {"BYTE_ARRAY": 6}
_REQUIRED, _OPTIONAL = 0, 1
_one_large_page = Lock()


@dataclass(frozen=True, slots=True)
class Pages:
    """Neighbouring pages of a column chunk that are read at once: one large page, or a whole small chunk."""

    offset: int
    size: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    start: int
    """Of its first page, the dictionary where it has one."""
    size: int
    num_rows: int
    path: tuple[str, ...]
    codec: int
    dictionary_size: int
    """Bytes of the page that the chunk begins with if it has one."""
    definition_levels: int

    @property
    def end(self) -> int:
        return self.start + self.size


@lru_cache(maxsize=1024)
def pages_of(location: str, column: str) -> tuple[Pages, ...]:
    """The pages of a column of pictures in the order of its rows.

    Args:
        column: dotted path of the column of bytes.

    Raises:
        StorageError: the file cannot be read.
        pa.ArrowInvalid: it is damaged, or the column is none of bytes.
    """
    opened, path = filesystem.open_filesystem(location)
    most = _NEAR_BYTES if isinstance(opened, pafs.LocalFileSystem) else _FAR_BYTES

    def walk() -> tuple[Pages, ...]:
        found: list[Pages] = []
        with opened.open_input_file(path) as file:
            for chunk in _chunks(location):
                if ".".join(chunk.path) != column:
                    continue
                if chunk.size <= most:
                    found.append(Pages(chunk.start, chunk.size, chunk.num_rows))
                else:
                    found += (Pages(*page[:3]) for page in _walk(file, chunk) if page[3] != _DICTIONARY)
        return tuple(found)

    return retry(walk, location)


def read_pages(location: str, offset: int, size: int) -> pa.Array:
    """The values of the pages that lie at a place, as :func:`pages_of` found them; the last are kept for who asks next.

    Raises:
        pa.ArrowInvalid: there are none, or they are damaged.
        OSError: the file cannot be read.
    """
    chunk = next((chunk for chunk in _chunks(location) if chunk.start <= offset < chunk.end), None)
    if chunk is None or offset + size > chunk.end:
        raise pa.ArrowInvalid(f"it has no page at byte {offset}; the file was changed")
    # the threads of one actor would hold a large page each
    with _one_large_page if size + chunk.dictionary_size > _LARGE_BYTES else nullcontext():
        return _read_pages(location, chunk, offset, size)


@lru_cache(maxsize=2)  # a shard may end one page and begin the next
def _read_pages(location: str, chunk: _Chunk, offset: int, size: int) -> pa.Array:
    opened, path = filesystem.open_filesystem(location)
    with opened.open_input_file(path) as file:
        data = file.read_at(size, offset)
        dictionary = b""
        if offset > chunk.start and chunk.dictionary_size and _uses_dictionary(data):
            dictionary = file.read_at(chunk.dictionary_size, chunk.start)
    num_rows = chunk.num_rows if size == chunk.size else _num_values(_header(data)[0])
    whole = _as_file(chunk, dictionary, data, num_rows)
    del data, dictionary
    column = pq.ParquetFile(pa.BufferReader(whole)).read(use_threads=False).column(0)
    for _ in chunk.path[1:]:
        column = pa.chunked_array([part.field(0) for part in column.chunks], column.type.field(0).type)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


@lru_cache(maxsize=4)
def _chunks(location: str) -> tuple[_Chunk, ...]:
    """The column chunks of bytes that repeat nothing."""
    opened, path = filesystem.open_filesystem(location)
    with opened.open_input_file(path) as file:
        footer = pq.read_metadata(file)
    found = []
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        for index in range(row_group.num_columns):
            leaf, column = footer.schema.column(index), row_group.column(index)
            if column.physical_type in _TYPES and leaf.max_repetition_level == 0:
                # some writers name a dictionary at byte 0, where the file's own mark lies
                dictionary = column.dictionary_page_offset if column.has_dictionary_page else None
                found.append(
                    _Chunk(
                        start=min(column.data_page_offset, dictionary or column.data_page_offset),
                        size=column.total_compressed_size,
                        num_rows=row_group.num_rows,
                        path=tuple(column.path_in_schema.split(".")),
                        codec=_CODECS[column.compression],
                        dictionary_size=column.data_page_offset - dictionary if dictionary else 0,
                        definition_levels=leaf.max_definition_level,
                    )
                )
    return tuple(found)


def _walk(file: Any, chunk: _Chunk) -> Iterator[tuple[int, int, int, int]]:
    """Offset, size, rows and kind of each page of a chunk."""
    offset = chunk.start
    while offset < chunk.end:
        header, header_size = _header_at(file, offset, chunk.end)
        size = header_size + header[3]
        yield offset, size, 0 if header[1] == _DICTIONARY else _num_values(header), header[1]
        offset += size


def _header_at(file: Any, offset: int, end: int) -> tuple[dict[int, Any], int]:
    length = _HEADER_BYTES
    while True:
        try:
            return _header(file.read_at(min(length, end - offset), offset))
        except pa.ArrowInvalid:
            if length >= min(end - offset, _MOST_HEADER_BYTES):
                raise
            length *= 16


def _header(data: bytes) -> tuple[dict[int, Any], int]:
    try:
        header, size = read_struct(data)
    except (IndexError, ValueError) as error:
        raise pa.ArrowInvalid("a page's header is damaged or cut off") from error
    if not {1, 3} <= header.keys() or not isinstance(header[3], int) or header[3] < 0:
        raise pa.ArrowInvalid("a page's header is damaged")
    return header, size


def _num_values(header: dict[int, Any]) -> int:
    return int(header[5 if header[1] == _DATA else 8][1])


def _uses_dictionary(data: bytes) -> bool:
    header, _ = _header(data)
    encoding = header[5][2] if header[1] == _DATA else header[8][4]
    return encoding in _DICTIONARY_ENCODINGS


def _dictionary_size(data: bytes) -> int:
    """Of the dictionary page that data begin with; 0 where they begin with another."""
    header, size = _header(data)
    return size + int(header[3]) if header[1] == _DICTIONARY else 0


def _as_file(chunk: _Chunk, dictionary: bytes, data: bytes, num_rows: int) -> bytes:
    """A Parquet file of one column with these pages, the dictionary first where there is one."""
    size, dictionary_size = len(dictionary) + len(data), len(dictionary) or _dictionary_size(data)
    *groups, leaf = chunk.path
    # how many levels are optional counts, not which
    optional = [position < chunk.definition_levels for position in range(len(chunk.path))]
    schema: list[dict[int, Any]] = [{4: b"schema", 5: Int32(1)}]
    for name, is_optional in zip(groups, optional, strict=False):
        schema.append({3: Int32(_OPTIONAL if is_optional else _REQUIRED), 4: name.encode(), 5: Int32(1)})
    schema.append(
        {1: Int32(_TYPES["BYTE_ARRAY"]), 3: Int32(_OPTIONAL if optional[-1] else _REQUIRED), 4: leaf.encode()}
    )
    column: dict[int, Any] = {
        1: Int32(_TYPES["BYTE_ARRAY"]),
        2: [Int32(0), Int32(3), Int32(8)],
        3: [name.encode() for name in chunk.path],
        4: Int32(chunk.codec),
        5: num_rows,
        6: size,
        7: size,
        9: len(_MAGIC) + dictionary_size,
    }
    if dictionary_size:
        column[11] = len(_MAGIC)
    row_group = {1: [{2: len(_MAGIC), 3: column}], 2: size, 3: num_rows}
    footer = struct({1: Int32(2), 2: schema, 3: num_rows, 4: [row_group]})
    return b"".join((_MAGIC, dictionary, data, footer, len(footer).to_bytes(4, "little"), _MAGIC))
