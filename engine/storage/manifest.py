"""The manifest: which images there are, and their tags.

A user's manifest, or the rows of files that hold the pictures themselves (:mod:`engine.storage.sources`), is read once,
in batches, and frozen into one Parquet file; ``manifest.json`` beside it says how a job sees it. Shard i is its rows
``[i * rows_per_shard, (i + 1) * rows_per_shard)``, whatever the row groups, so jobs with other shards share the file.
What follows from a row alone (its class ids, the place of its picture, whether it is an error) is worked out when its
shard is read.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.errors import ManifestError, OutsideError, StorageError, first_line
from engine.records import Batch
from engine.resources import Decoding
from engine.storage import filesystem
from engine.storage.pictures import file_of
from engine.storage.plain_columns import check_plain
from engine.storage.retries import readable, retry
from engine.storage.roots import lies_outside, outside_reason
from engine.storage.sources.columns import TableForm
from engine.storage.sources.find import find_source
from engine.storage.sources.rows import SCHEMA
from engine.storage.user_manifest import iter_tables, manifest_hash, place_of
from engine.storage.value_range import Sample, measured_range
from engine.storage.vocabulary import TagTranslation

MANIFEST_NAME = "manifest"
"""Name of the frozen rows; no ``.parquet`` ending, so that no reader of the masks takes it for a shard."""
VIEW_NAME = "manifest.json"
"""Name of what says how a job sees them; written last."""
FROZEN_COLUMNS = ("image_id", "image", "uri", "tags", "class_ids", "error")
"""What a shard of it gives."""

_ROWS_PER_GROUP = 4096


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
    """SHA-256 of the user's manifest and of how it is read, as hexadecimal digits."""
    source_folder: str
    """What the paths of images are relative to."""
    allow_outside: bool
    """Whether local images that do not lie below that folder are read too."""
    needs_tags: bool = True
    """Whether a tag that is no class is an error of its row; without it such a row counts as one without tags."""
    bands: tuple[int, ...] = ()
    """As :class:`engine.resources.Decoding` has them."""
    value_range: tuple[float, ...] = ()
    """The same; where the user gives none, as measured on some of the images."""
    ignored_tags: dict[str, int] = field(default_factory=dict)
    """The most common tags that are no classes and were dropped, with their number of images."""

    def decoding(self, max_pixels: int) -> Decoding:
        """How the images become RGB."""
        return Decoding(max_pixels=max_pixels, bands=self.bands, value_range=self.value_range)

    @property
    def embeds_pictures(self) -> bool:
        """Whether the images lie in tars or Parquet files."""
        return any(file_of(uri) != uri for uri in self.read_shard(0)["uri"][:1])

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
        first = shard * self.rows_per_shard
        last = min(first + self.rows_per_shard, self.num_rows) - 1
        group = first // _ROWS_PER_GROUP
        tables = [_read_group(self.location, number) for number in range(group, last // _ROWS_PER_GROUP + 1)]
        rows = pa.concat_tables(tables).slice(first - group * _ROWS_PER_GROUP, last - first + 1)
        return _whole_rows(rows, self)


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleRows:
    """A manifest cut into shards of one row each, to do images apart from their neighbours."""

    manifest: Manifest

    def read_shard(self, row: int) -> Batch:
        """One row of the manifest, as :meth:`Manifest.read_shard`."""
        shard, offset = divmod(row, self.manifest.rows_per_shard)
        return {name: values[offset : offset + 1] for name, values in self.manifest.read_shard(shard).items()}


def _whole_rows(table: pa.Table, manifest: Manifest) -> Batch:
    """The frozen columns, and those that follow from them."""
    batch: Batch = {name: table.column(name).to_pylist() for name in SCHEMA.names}
    ids = {name: class_id for class_id, name in enumerate(manifest.class_names, start=1)}
    folder = manifest.source_folder
    if not manifest.needs_tags:
        batch["tags"] = [tags if ids.keys() >= set(tags) else [] for tags in batch["tags"]]
    class_ids: list[list[int]] = []
    errors: list[str | None] = []
    for image, uri, tags in zip(batch["image"], batch["uri"], batch["tags"], strict=True):
        unknown = next((tag for tag in tags if tag not in ids), None)
        if not image:
            errors.append("manifest: the row names no image")
        elif unknown is not None:
            errors.append(f"manifest: tag '{unknown}' is not among the classes")
        elif not manifest.allow_outside and lies_outside(uri or image, folder):
            errors.append(f"manifest: {outside_reason(image)}")
        else:
            errors.append(None)
        class_ids.append([] if unknown is not None else [ids[tag] for tag in tags])
    uris = [place_of(uri, image, folder) for uri, image in zip(batch["uri"], batch["image"], strict=True)]
    return {**batch, "uri": uris, "class_ids": class_ids, "error": errors}


@lru_cache(maxsize=2)
def _read_group(location: str, group: int) -> pa.Table:
    def read() -> pa.Table:
        opened, path = filesystem.open_filesystem(location)
        with opened.open_input_file(path) as source:
            file = pq.ParquetFile(source, metadata=_footer(location))
            check_plain(file.schema_arrow, SCHEMA.names)
            return file.read_row_group(group, columns=SCHEMA.names)

    with readable(location, "frozen manifest"):
        return cast(pa.Table, retry(read, location))


@lru_cache(maxsize=2)
def _footer(location: str) -> pq.FileMetaData:
    def read() -> pq.FileMetaData:
        opened, path = filesystem.open_filesystem(location)
        with opened.open_input_file(path) as source:
            return pq.read_metadata(source)

    with readable(location, "frozen manifest"):
        return retry(read, location)


def freeze_manifest(
    location: str,
    folder: str,
    *,
    rows_per_shard: int,
    class_names: tuple[str, ...],
    synonyms: Mapping[str, str] = {},
    ignore_unknown: bool = False,
    allow_outside: bool = False,
    needs_tags: bool = True,
    data_hash: str = "",
    form: TableForm = TableForm(),  # noqa: B008 - frozen
    decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    notes: dict[str, None] | None = None,
) -> Manifest:
    """Check a user's manifest and write it as ``folder/manifest``, whole or not at all.

    Args:
        location: as :func:`engine.storage.user_manifest.iter_manifest`.
        folder: where the frozen manifest goes, local path or URI.
        rows_per_shard: images of a shard.
        class_names: the classes 1..C.
        synonyms: other name to class; in the frozen rows the class stands in its place.
        ignore_unknown: drop tags that are no classes; without it they are errors of their rows.
        allow_outside: take local images that are not below the manifest's folder too; without it they are error rows.
        needs_tags: refuse a manifest that has none; without it they may be left out, or be no classes.
        data_hash: its :func:`engine.storage.user_manifest.manifest_hash`, where it is known already.
        form: what the user says of its form.
        decoding: how its pictures become RGB; without a range of values it is measured.
        notes: as :func:`engine.storage.user_manifest.iter_tables`.

    Raises:
        ManifestError: the manifest cannot be used, or an image_id occurs twice.
        OutsideError: every image lies outside its folder.
        StorageError: the frozen manifest cannot be written.
    """
    assert rows_per_shard >= 1, rows_per_shard
    source = find_source(location)
    known = (*class_names, *synonyms)
    tables = iter_tables(location, form, needs_tags=needs_tags, known=known, notes=notes)
    first = next(tables)  # a manifest that cannot be used is said before anything is written
    data_hash = data_hash or manifest_hash(location, form)
    target = filesystem.join(filesystem.absolute(folder), MANIFEST_NAME)
    hashes: list[NDArray[np.int64]] = []
    some_inside = allow_outside
    sample, translation = Sample(), TagTranslation(class_names, synonyms, ignore_unknown=ignore_unknown)
    with (
        filesystem.atomic_file(target) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd", write_statistics=False, use_dictionary=False) as writer,
    ):
        groups = _Groups(writer, _ROWS_PER_GROUP)
        for table in itertools.chain((first,), tables):
            hashes.append(hashes_of(table.column("image_id")))
            groups.add(table.set_column(3, SCHEMA.field("tags"), translation.applied(table.column("tags"))))
            sample.add(table)
            some_inside = some_inside or _some_inside(table, source.folder)
        groups.finish()
        _check_unique(np.concatenate(hashes), location, form, needs_tags)
        if not some_inside:
            raise OutsideError(
                f"'{location}' only has images outside its folder '{source.folder}'; use paths below it or URIs",
                thing="data",
            )
    if notes is not None and needs_tags:
        notes.update(dict.fromkeys(translation.notes))
    uris = sample.uris(source.folder, allow_outside=allow_outside)
    manifest = Manifest(
        location=target,
        num_rows=sum(len(one) for one in hashes),
        rows_per_shard=rows_per_shard,
        class_names=class_names,
        data_hash=data_hash,
        source_folder=source.folder,
        allow_outside=allow_outside,
        needs_tags=needs_tags,
        bands=decoding.bands,
        value_range=decoding.value_range or measured_range(uris, decoding),
        ignored_tags=translation.ignored,
    )
    _write_view(manifest)
    return manifest


def share_manifest(
    manifest: Manifest, folder: str, *, rows_per_shard: int, class_names: tuple[str, ...], needs_tags: bool
) -> Manifest:
    """Give another folder the rows of a frozen manifest, seen in another way; a link or a copy of its file.

    Raises:
        StorageError: it cannot be read or written.
    """
    target = filesystem.join(filesystem.absolute(folder), MANIFEST_NAME)
    filesystem.copy_file(manifest.location, target)
    shared = replace(
        manifest, location=target, rows_per_shard=rows_per_shard, class_names=class_names, needs_tags=needs_tags
    )
    _write_view(shared)
    return shared


def has_manifest(folder: str) -> bool:
    """Whether a frozen manifest lies in ``folder``."""
    return filesystem.exists(filesystem.join(folder, VIEW_NAME))


def _some_inside(table: pa.Table, folder: str) -> bool:
    """Whether a row may be read without the user's word; the first one ends the search."""
    return any(
        not lies_outside(uri or image, folder)
        for uri, image in zip(table.column("uri").to_pylist(), table.column("image").to_pylist(), strict=True)
    )


class _Groups:
    """Collects rows and writes them in row groups of one size."""

    def __init__(self, writer: pq.ParquetWriter, size: int) -> None:
        self._writer = writer
        self._size = size
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._num_waiting += len(table)
        if self._num_waiting >= self._size:
            rows = pa.concat_tables(self._waiting)
            whole = self._num_waiting - self._num_waiting % self._size
            self._writer.write_table(rows.slice(0, whole), row_group_size=self._size)
            self._waiting, self._num_waiting = [rows.slice(whole)], self._num_waiting - whole

    def finish(self) -> None:
        if self._num_waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=self._size)


def _write_view(manifest: Manifest) -> None:
    values = asdict(manifest)
    del values["location"]
    filesystem.write_bytes(
        filesystem.join(filesystem.parent(manifest.location), VIEW_NAME), json.dumps(values).encode()
    )
    _footer.cache_clear()
    _read_group.cache_clear()


def open_manifest(folder: str) -> Manifest:
    """The frozen manifest that lies in ``folder``; its rows are not read.

    Raises:
        StorageError: it is missing or damaged.
    """
    folder = filesystem.absolute(folder)
    view = filesystem.join(folder, VIEW_NAME)
    try:
        values = json.loads(filesystem.read_bytes(view))
        lists: dict[str, Any] = {name: tuple(values.pop(name, ())) for name in ("class_names", "bands", "value_range")}
        return Manifest(location=filesystem.join(folder, MANIFEST_NAME), **lists, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(f"'{view}' is not a frozen manifest: {first_line(error)}") from error


def hashes_of(texts: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """(n,) int64: Python's hash of each text, 8 bytes where the text itself would take a hundred."""
    return np.fromiter(map(hash, texts.to_pylist()), dtype=np.int64, count=len(texts))


def _check_unique(hashes: NDArray[np.int64], location: str, form: TableForm, needs_tags: bool) -> None:
    """Every id stands once; ids whose hashes agree by chance are told apart by their text."""
    hashes.sort()
    twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(twice):
        return
    seen: set[str] = set()
    for table in iter_tables(location, form, needs_tags=needs_tags):
        image_ids = table.column("image_id")
        for image_id in image_ids.filter(pa.array(np.isin(hashes_of(image_ids), twice))).to_pylist():
            if image_id in seen:
                raise ManifestError(
                    f"'{filesystem.absolute(location)}' has the image_id '{image_id}' more than once "
                    f"({len(twice)} such ids); an image_id must be unique",
                    thing="data",
                )
            seen.add(image_id)
