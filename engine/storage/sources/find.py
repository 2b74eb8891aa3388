"""Which files ``data`` names: one file, the files of a folder, or those that fit a pattern."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.errors import ManifestError, about
from engine.storage import filesystem
from engine.storage.retries import readable, retry

ENDINGS = (".csv", ".jsonl", ".parquet", ".tar")
MANY = (".tar", ".parquet")
"""Kinds of which there may be several files; where a folder holds both, as img2dataset leaves it, the tars count."""

_CHUNK_BYTES = 8 << 20
_THREADS = 16
_END_BYTES = 64 << 10
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_FILES = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The files that hold the rows, in their order."""

    location: str
    """As the user gave it, made absolute."""
    ending: str
    """One of :data:`ENDINGS`."""
    files: tuple[str, ...]
    folder: str
    """What paths in the rows are relative to, and what the names of files are shown from."""

    def name_of(self, file: str) -> str:
        """A file as it is called from the folder of the source."""
        return file[len(self.folder) :].lstrip("/") if file.startswith(self.folder) else filesystem.name_of(file)


def open_source_file(location: str) -> Any:
    """A file opened for reads anywhere in it; a folder is no file.

    Raises:
        StorageError: it is not there, cannot be read, or the scheme is not supported.
    """
    opened, path = filesystem.open_filesystem(location)

    def open_file() -> Any:
        if opened.get_file_info(path).type == pafs.FileType.Directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return opened.open_input_file(path)

    return retry(open_file, location)


def find_source(location: str) -> Source:
    """The files behind ``data``.

    Args:
        location: a file that ends with one of :data:`ENDINGS`; a folder of ``.tar`` or ``.parquet`` files; or a
            pattern of such, with ``*``, ``?``, ``{a,b}`` and ``{00000..00099}``. A file of exactly this name comes
            before a pattern.

    Raises:
        UserError: there is no such file, or of another kind.
    """
    location = filesystem.absolute(location)
    with about("data"):
        if _is_pattern(location) and not filesystem.exists(location):
            return _by_pattern(location)
        ending = filesystem.ending(location)
        if ending in ENDINGS and not (ending in MANY and _is_folder(location)):
            return Source(location=location, ending=ending, files=(location,), folder=filesystem.parent(location))
        return _in_folder(location)


def _is_folder(location: str) -> bool:
    opened, path = filesystem.open_filesystem(location)
    kind = retry(lambda: opened.get_file_info(path.rstrip("/") or path).type, location)
    return bool(kind == pafs.FileType.Directory)


def _in_folder(location: str) -> Source:
    names = filesystem.list_names(location) if _is_folder(location) else []
    for ending in MANY:
        files = tuple(filesystem.join(location, name) for name in names if name.lower().endswith(ending))
        if files:
            return Source(location=location, ending=ending, files=files, folder=location.rstrip("/"))
    raise ManifestError(
        f"must be a file that ends with {', '.join(ENDINGS)}, a folder of .tar or .parquet files, or a pattern of such "
        f"files, got '{location}'; jobs.import makes a manifest from class folders, VOC, COCO and others"
    )


def _is_pattern(location: str) -> bool:
    return any(letter in location for letter in "*?{")


def _by_pattern(location: str) -> Source:
    files: dict[str, None] = {}
    for one in _expanded(location):
        files.update(dict.fromkeys(_matches(one) if any(letter in one for letter in "*?") else [one]))
    endings = sorted({filesystem.ending(file) for file in files})
    if not files:
        raise ManifestError(f"matches no file: '{location}'")
    if len(endings) > 1 or endings[0] not in MANY:
        raise ManifestError(f"must match only .tar or only .parquet files; '{location}' matches {', '.join(endings)}")
    fixed = re.split(r"[*?{]", location, maxsplit=1)[0]
    return Source(location=location, ending=endings[0], files=tuple(files), folder=fixed.rpartition("/")[0])


def _expanded(pattern: str) -> list[str]:
    """A pattern without its braces: every choice by itself."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    numbers = _RANGE.fullmatch(found.group(1))
    if numbers:
        first, last = numbers.groups()
        if int(last) - int(first) >= _MOST_FILES:
            raise ManifestError(f"'{pattern}' names more than {_MOST_FILES} files")
        choices = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        choices = found.group(1).split(",")
    rests = _expanded(pattern[found.end() :])
    return [f"{pattern[: found.start()]}{choice}{rest}" for choice in choices for rest in rests]


def _matches(pattern: str) -> list[str]:
    """Files that fit ``*`` and ``?`` in any part of a path, sorted."""
    fixed = re.split(r"[*?]", pattern, maxsplit=1)[0].rpartition("/")[0]
    places = [fixed or "/"]
    *folders, last = pattern[len(fixed) :].lstrip("/").split("/")
    for part in folders:
        places = [
            filesystem.join(place, name)
            for place in places
            for name, is_folder in sorted(filesystem.list_entries(place).items())
            if is_folder and fnmatch.fnmatchcase(name, part)
        ]
    return [
        filesystem.join(place, name)
        for place in places
        for name in filesystem.list_names(place)
        if fnmatch.fnmatchcase(name, last)
    ]


def source_hash(location: str) -> str:
    """SHA-256 that tells whether two sources hold the same rows, as hexadecimal digits.

    Of a manifest it is that of its bytes. Files with embedded pictures are too large to be read for it: of these it is
    that of names, sizes and ends, and the end of Parquet is its footer, with place and size of every column chunk.

    Raises:
        UserError: a file cannot be read.
    """
    source = find_source(location)
    with about("data"), readable(location, "parquet file"):
        if len(source.files) == 1 and not _embeds_pictures(source):
            return _hash_of_bytes(source.files[0])
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda file: _size_and_end(file, source.ending), source.files)
            parts = [[source.name_of(file), *one] for file, one in zip(source.files, found, strict=True)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _size_and_end(file: str, ending: str) -> tuple[int, str]:
    with open_source_file(file) as opened:
        size: int = opened.size()
        length = _END_BYTES
        if ending == ".parquet" and size >= 8:
            length = 8 + int.from_bytes(opened.read_at(8, size - 8)[:4], "little")
        end = opened.read_at(min(length, size), max(0, size - length))
    return size, hashlib.sha256(end).hexdigest()


def _hash_of_bytes(file: str) -> str:
    digest = hashlib.sha256()
    with open_source_file(file) as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@lru_cache(maxsize=8)
def parquet_footer(file: str) -> pq.FileMetaData:
    """The footer of a Parquet file, kept for the next who asks."""
    with open_source_file(file) as opened:
        return pq.read_metadata(opened)


def _embeds_pictures(source: Source) -> bool:
    """Whether a file of the source holds pictures, and so is large."""
    if source.ending != ".parquet":
        return source.ending == ".tar"
    return any(holds_bytes(field.type) for field in parquet_footer(source.files[0]).schema.to_arrow_schema())


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type is bytes, plain or as the image struct of ``datasets``."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
