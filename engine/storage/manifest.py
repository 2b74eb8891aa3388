"""The manifest: which images there are, and their tags.

A user's manifest (CSV, JSON lines or Parquet) is read once, in batches, and frozen into one Parquet file that carries a
row of :data:`engine.records.COLUMN_TYPES` for each image. Shard i is its rows ``[i * rows_per_shard, (i + 1) *
rows_per_shard)``; several shards share a row group, so that the footer stays small at ten million rows.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.errors import ManifestError, StorageError
from engine.records import COLUMN_TYPES, IGNORE_16, Batch, to_batch, to_table
from engine.storage import filesystem
from engine.storage.roots import lies_outside, outside_reason

MANIFEST_NAME = "manifest"
"""Name of the frozen manifest; no ``.parquet`` ending, so that no reader of the masks takes it for a shard."""
FROZEN_COLUMNS = ("image_id", "image", "uri", "tags", "class_ids", "error")

_ENDINGS = (".csv", ".jsonl", ".parquet")
_BATCH_ROWS = 8192
_ROWS_PER_GROUP = 4096
_CHUNK_BYTES = 8 << 20
_METADATA_KEY = "tag2mask"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A frozen manifest; small, so that it travels to every actor."""

    location: str
    """The frozen file."""
    num_rows: int
    """Images."""
    rows_per_shard: int
    """Images of a shard; the last one may have fewer."""
    class_names: tuple[str, ...]
    """Names of the classes 1..C."""
    data_hash: str
    """SHA-256 of the user's manifest, as hexadecimal digits."""

    @property
    def num_shards(self) -> int:
        """Shards, and so files of a finished output."""
        return -(-self.num_rows // self.rows_per_shard)

    @property
    def rows_of_shards(self) -> tuple[int, ...]:
        """Rows of each shard."""
        full, rest = divmod(self.num_rows, self.rows_per_shard)
        return (self.rows_per_shard,) * full + ((rest,) if rest else ())

    def read_shard(self, shard: int) -> Batch:
        """The rows of one shard: columns :data:`FROZEN_COLUMNS`, in the manifest's order.

        Raises:
            StorageError: the frozen manifest is missing or damaged.
        """
        assert 0 <= shard < self.num_shards, shard
        shards_per_group = _shards_per_group(self.rows_per_shard)
        table = _read_group(self, shard // shards_per_group)
        rows: pa.Table = table.slice(shard % shards_per_group * self.rows_per_shard, self.rows_per_shard)
        return to_batch(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleRows:
    """A manifest cut into shards of one row each, to do images apart from their neighbours."""

    manifest: Manifest

    def read_shard(self, row: int) -> Batch:
        """One row of the manifest, as :meth:`Manifest.read_shard`."""
        shard, offset = divmod(row, self.manifest.rows_per_shard)
        return {name: values[offset : offset + 1] for name, values in self.manifest.read_shard(shard).items()}


def _shards_per_group(rows_per_shard: int) -> int:
    return max(1, _ROWS_PER_GROUP // rows_per_shard)


@lru_cache(maxsize=2)
def _read_group(manifest: Manifest, group: int) -> pa.Table:
    def read() -> pa.Table:
        opened, path = filesystem.open_filesystem(manifest.location)
        with opened.open_input_file(path) as source:
            return pq.ParquetFile(source, metadata=_footer(manifest)).read_row_group(group)

    return _read_frozen(read, manifest.location)


@lru_cache(maxsize=2)
def _footer(manifest: Manifest) -> pq.FileMetaData:
    def read() -> pq.FileMetaData:
        opened, path = filesystem.open_filesystem(manifest.location)
        with opened.open_input_file(path) as source:
            return pq.read_metadata(source)

    return _read_frozen(read, manifest.location)


def _read_frozen(read: Any, location: str) -> Any:
    try:
        return filesystem.retry(read, location)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"the frozen manifest '{location}' cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def read_class_names(location: str, class_names_file: str = "") -> tuple[str, ...]:
    """The names of the classes 1..C.

    Args:
        location: the manifest.
        class_names_file: a file with a name a line; empty takes ``classes.txt`` beside the manifest, else the sorted
            set of the manifest's tags.

    Raises:
        ManifestError: a name is blank, stands twice or is 'background', there are none or too many, or a file cannot be
            read.
    """
    named = named_classes(location, class_names_file)
    return _check_names(_all_tags(location), f"the tags of '{location}'") if named is None else named


def named_classes(location: str, class_names_file: str = "") -> tuple[str, ...] | None:
    """The names of the classes where a file names them; None where only the tags do.

    Args and errors as :func:`read_class_names`.
    """
    beside = filesystem.join(filesystem.parent(location), "classes.txt")
    source = class_names_file or beside
    try:
        text = filesystem.read_bytes(source).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{_classes_label(class_names_file, source)} is not UTF-8 text") from error
    except FileNotFoundError as error:
        if class_names_file:
            raise ManifestError(f"--classes: {error}; allowed: a text file with a class name a line") from error
        return None
    except OSError as error:
        raise ManifestError(f"{'--classes' if class_names_file else '--data'}: {error}") from error
    return _check_names(
        [line.strip() for line in text.rstrip().split("\n") if text.strip()], _classes_label(class_names_file, source)
    )


def _classes_label(class_names_file: str, source: str) -> str:
    return f"--classes '{source}'" if class_names_file else f"'{source}'"


def _check_names(names: list[str], where: str) -> tuple[str, ...]:
    if not names:
        raise ManifestError(f"{where}: there is no class; at least one is needed")
    if len(names) >= IGNORE_16:
        raise ManifestError(f"{where}: {len(names)} classes; allowed: up to {IGNORE_16 - 1}")
    lines: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name:
            raise ManifestError(f"{where}, line {line} is blank; every line names a class, and its number is the id")
        if name == "background":
            raise ManifestError(f"{where}, line {line} names 'background', which is class 0 by itself; leave it out")
        if name in lines:
            raise ManifestError(f"{where}: '{name}' stands on lines {lines[name]} and {line}; a class is named once")
        lines[name] = line
    return tuple(names)


def _all_tags(location: str) -> list[str]:
    found: set[str] = set()
    for batch in iter_manifest(location):
        for tags in batch["tags"]:
            found.update(tags)
    return sorted(found)


def iter_manifest(location: str) -> Iterator[Batch]:
    """The rows of a user's manifest, some thousand at a time.

    Args:
        location: local path or URI that ends with ``.csv``, ``.jsonl`` or ``.parquet``.

    Yields:
        columns ``image_id`` (the image where the manifest has none), ``image`` (empty where there is none) and ``tags``
        (a list of names, each once).

    Raises:
        ManifestError: the file is missing, empty, damaged, of another kind, or lacks a column.
    """
    location = filesystem.absolute(location)
    readers = {".csv": _iter_csv, ".jsonl": _iter_jsonl, ".parquet": _iter_parquet}
    ending = filesystem.ending(location)
    if ending not in readers:
        raise ManifestError(f"--data is '{location}'; allowed: a file that ends with {', '.join(_ENDINGS)}")
    num_rows = 0
    try:
        for batch in readers[ending](location):
            yield _clean(batch, location, num_rows)
            num_rows += len(batch["image"])
    except StorageError as error:
        raise ManifestError(f"--data: {error}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"--data '{location}' is not UTF-8 text; save it as UTF-8") from error
    except pa.ArrowException as error:
        raise ManifestError(f"--data '{location}' is not a readable {ending[1:]} file: {_first_line(error)}") from error
    except OSError as error:
        raise ManifestError(f"--data: {_first_line(error)}") from error
    if num_rows == 0:
        raise ManifestError(f"--data '{location}' holds no image; at least one row is needed")


def _clean(batch: Batch, location: str, first_row: int) -> Batch:
    images: list[str] = []
    image_ids: list[str] = []
    tag_lists: list[list[str]] = []
    for offset, (image_id, image, tags) in enumerate(
        zip(batch["image_id"], batch["image"], batch["tags"], strict=True)
    ):
        where = f"--data '{location}', row {first_row + offset + 1}"
        path, name = _text(image, "image", where), _text(image_id, "image_id", where)
        if not path and not name:
            raise ManifestError(f"{where} has neither an image nor an image_id; every row names an image")
        images.append(path)
        image_ids.append(name or path)
        tag_lists.append(_tags(tags, where))
    return {"image_id": image_ids, "image": images, "tags": tag_lists}


def _text(value: object, column: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        if not value.isascii() and _HALF_CHARACTER.search(value):
            raise ManifestError(f"{where} has {column} {value!r} with half a character; allowed: Unicode text")
        return value if value.strip() else ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ManifestError(f"{where} has {column} {value!r}; allowed: text")


def _tags(value: object, where: str) -> list[str]:
    if value is None:
        return []
    names = value.split(";") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise ManifestError(f"{where} has tags {value!r}; allowed: a list of names, or names separated by ';'")
    return list(dict.fromkeys(name for name in (_text(name, "a tag", where).strip() for name in names) if name))


def _open(location: str) -> Any:
    opened, path = filesystem.open_filesystem(location)

    def open_file() -> Any:
        if opened.get_file_info(path).type == pafs.FileType.Directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return opened.open_input_file(path)

    return filesystem.retry(open_file, location)


def _missing_columns(location: str, missing: list[str], found: list[str]) -> ManifestError:
    columns = " and ".join(f"'{name}'" for name in missing)
    return ManifestError(
        f"--data '{location}' has no column {columns} (it has: {', '.join(found) or 'none'}); "
        "needed: image and tags, allowed besides: image_id"
    )


def _check_columns(location: str, found: list[str]) -> None:
    missing = [name for name in ("image", "tags") if name not in found]
    if missing:
        raise _missing_columns(location, missing, found)
    twice = [name for name in ("image", "tags", "image_id") if found.count(name) > 1]
    if twice:
        raise ManifestError(f"--data '{location}' has the column '{twice[0]}' twice")


def _iter_csv(location: str) -> Iterator[Batch]:
    with _open(location) as source, io.TextIOWrapper(source, encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text, strict=True, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(rows, [])]
            if not header:
                raise ManifestError(f"--data '{location}' is empty; needed: a header with image and tags, then rows")
            _check_columns(location, header)
            image, tags = header.index("image"), header.index("tags")
            image_id = header.index("image_id") if "image_id" in header else -1
            batch: Batch = {"image_id": [], "image": [], "tags": []}
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ManifestError(
                        f"--data '{location}', line {rows.line_num} has {len(row)} columns where the header has "
                        f"{len(header)}; separate tags by ';' or put them in quotes"
                    )
                batch["image"].append(row[image])
                batch["tags"].append(row[tags])
                batch["image_id"].append(row[image_id] if image_id >= 0 else None)
                if len(batch["image"]) == _BATCH_ROWS:
                    yield batch
                    batch = {name: [] for name in batch}
            if batch["image"]:
                yield batch
        except csv.Error as error:
            raise ManifestError(f"--data '{location}', line {rows.line_num} is not CSV: {error}") from error


def _iter_jsonl(location: str) -> Iterator[Batch]:
    found: dict[str, None] = {}
    batch: Batch = {"image_id": [], "image": [], "tags": []}
    with _open(location) as source, io.TextIOWrapper(source, encoding="utf-8-sig") as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ManifestError(f"--data '{location}', line {number} is not JSON: {error}") from error
            except RecursionError as error:
                raise ManifestError(f"--data '{location}', line {number} is not JSON: nested too deep") from error
            if not isinstance(row, dict):
                raise ManifestError(f"--data '{location}', line {number} is not a JSON object in braces")
            found.update(dict.fromkeys(row))
            for name, values in batch.items():
                values.append(row.get(name))
            if len(batch["image"]) == _BATCH_ROWS:
                _check_columns(location, list(found))
                yield batch
                batch = {name: [] for name in batch}
    if batch["image"]:
        _check_columns(location, list(found))
        yield batch


def _iter_parquet(location: str) -> Iterator[Batch]:
    with _open(location) as source:
        file = pq.ParquetFile(source)
        found = file.schema_arrow.names
        _check_columns(location, found)
        columns = [name for name in ("image_id", "image", "tags") if name in found]
        for rows in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            batch: Batch = {name: rows.column(name).to_pylist() for name in columns}
            batch.setdefault("image_id", [None] * rows.num_rows)
            if rows.num_rows:
                yield batch


def freeze_manifest(
    location: str,
    folder: str,
    *,
    rows_per_shard: int,
    class_names_file: str = "",
    class_names: tuple[str, ...] | None = None,
    allow_outside: bool = False,
) -> Manifest:
    """Check a user's manifest and write it as ``folder/manifest``, whole or not at all.

    Args:
        location: the user's manifest, local path or URI.
        folder: where the frozen manifest goes, local path or URI.
        rows_per_shard: images of a shard.
        class_names_file: as for :func:`read_class_names`.
        class_names: the classes 1..C where they are known already.
        allow_outside: take local images that are not below the manifest's folder too; without it they are error rows.

    Raises:
        ManifestError: the manifest or the classes cannot be used, an image_id stands twice, or all images lie outside.
        StorageError: the frozen manifest cannot be written.
    """
    assert rows_per_shard >= 1, rows_per_shard
    location = filesystem.absolute(location)
    next(iter_manifest(location))
    names = class_names or read_class_names(location, class_names_file)
    ids = {name: class_id for class_id, name in enumerate(names, start=1)}
    source_folder = filesystem.parent(location)
    data_hash = file_hash(location)
    target = filesystem.join(filesystem.absolute(folder), MANIFEST_NAME)
    group_rows = rows_per_shard * _shards_per_group(rows_per_shard)
    schema = pa.schema([(name, COLUMN_TYPES[name]) for name in FROZEN_COLUMNS])
    hashes: list[NDArray[np.uint64]] = []
    num_rows = num_outside = 0
    try:
        with (
            filesystem.atomic_file(target) as temporary,
            pq.ParquetWriter(
                temporary, schema, compression="zstd", write_statistics=False, use_dictionary=False
            ) as writer,
        ):
            waiting: list[pa.Table] = []
            num_waiting = 0
            for batch in iter_manifest(location):
                hashes.append(_hashes(batch["image_id"]))
                outside = [not allow_outside and lies_outside(image, source_folder) for image in batch["image"]]
                num_outside += sum(outside)
                waiting.append(to_table(_frozen_rows(batch, ids, source_folder, outside)))
                num_waiting += len(batch["image"])
                num_rows += len(batch["image"])
                if num_waiting >= group_rows:
                    rows = pa.concat_tables(waiting)
                    whole = num_waiting - num_waiting % group_rows
                    writer.write_table(rows.slice(0, whole), row_group_size=group_rows)
                    waiting, num_waiting = [rows.slice(whole)], num_waiting - whole
            if num_waiting:
                writer.write_table(pa.concat_tables(waiting), row_group_size=group_rows)
            _check_unique(np.concatenate(hashes), location)
            if num_outside == num_rows:
                raise ManifestError(
                    f"--data '{location}': every image lies outside of the manifest's folder '{source_folder}'; "
                    "allowed: paths below it, URIs, or --allow-outside"
                )
            manifest = Manifest(
                location=target,
                num_rows=num_rows,
                rows_per_shard=rows_per_shard,
                class_names=names,
                data_hash=data_hash,
            )
            writer.add_key_value_metadata({_METADATA_KEY: _to_json(manifest)})
    except OSError as error:
        raise StorageError(f"the frozen manifest cannot be written: {error}") from error
    _footer.cache_clear()
    _read_group.cache_clear()
    return manifest


def _to_json(manifest: Manifest) -> str:
    return json.dumps(
        {
            "rows_per_shard": manifest.rows_per_shard,
            "class_names": manifest.class_names,
            "data_hash": manifest.data_hash,
        }
    )


def open_manifest(folder: str) -> Manifest:
    """The frozen manifest that lies in ``folder``; only its footer is read.

    Raises:
        StorageError: it is missing or damaged.
    """
    location = filesystem.join(filesystem.absolute(folder), MANIFEST_NAME)

    def read() -> pq.FileMetaData:
        opened, path = filesystem.open_filesystem(location)
        with opened.open_input_file(path) as source:
            return pq.read_metadata(source)

    footer = _read_frozen(read, location)
    text = (footer.metadata or {}).get(_METADATA_KEY.encode())
    if text is None:
        raise StorageError(f"'{location}' is not a frozen manifest of tag2mask")
    values = json.loads(text)
    return Manifest(
        location=location,
        num_rows=footer.num_rows,
        rows_per_shard=values["rows_per_shard"],
        class_names=tuple(values["class_names"]),
        data_hash=values["data_hash"],
    )


def _frozen_rows(batch: Batch, ids: dict[str, int], folder: str, outside: list[bool]) -> Batch:
    class_ids: list[list[int]] = []
    uris: list[str] = []
    errors: list[str | None] = []
    for image, tags, is_outside in zip(batch["image"], batch["tags"], outside, strict=True):
        unknown = next((tag for tag in tags if tag not in ids), None)
        if not image:
            errors.append("manifest: the row names no image")
        elif unknown is not None:
            errors.append(f"manifest: tag '{unknown}' is not among the classes")
        elif is_outside:
            errors.append(f"manifest: {outside_reason(image)}")
        else:
            errors.append(None)
        class_ids.append([] if unknown is not None else [ids[tag] for tag in tags])
        uris.append(filesystem.resolve(image, folder) if image else "")
    return {
        "image_id": batch["image_id"],
        "image": batch["image"],
        "uri": uris,
        "tags": batch["tags"],
        "class_ids": class_ids,
        "error": errors,
    }


def _hashes(image_ids: list[str]) -> NDArray[np.uint64]:
    """(n, 2) uint64: a 128-bit hash of each id, 16 bytes where the text itself would take a hundred."""
    digests = b"".join(
        hashlib.blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=16).digest() for image_id in image_ids
    )
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)


def _check_unique(hashes: NDArray[np.uint64], location: str) -> None:
    ordered = hashes[np.lexsort((hashes[:, 1], hashes[:, 0]))]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    if not same.any():
        return
    twice = {row.tobytes() for row in ordered[1:][same]}
    for batch in iter_manifest(location):
        for image_id, row in zip(batch["image_id"], _hashes(batch["image_id"]), strict=True):
            if row.tobytes() in twice:
                raise ManifestError(
                    f"--data '{location}' has the image_id '{image_id}' more than once "
                    f"({len(twice)} such ids); an image_id must be unique"
                )
    raise AssertionError("the manifest changed while it was read")


def file_hash(location: str) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits.

    Raises:
        ManifestError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with _open(filesystem.absolute(location)) as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
    except (OSError, StorageError) as error:
        raise ManifestError(f"--data: {_first_line(error)}") from error
    return digest.hexdigest()
