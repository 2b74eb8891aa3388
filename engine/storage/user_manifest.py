"""The rows of a user's manifest, or of files that hold the pictures themselves (:mod:`engine.storage.sources`)."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from engine.errors import ManifestError, about
from engine.records import Batch
from engine.storage import filesystem
from engine.storage.retries import readable
from engine.storage.sources.columns import TableForm
from engine.storage.sources.find import Source, find_source, source_hash
from engine.storage.sources.long_form import in_long_form, one_row_each
from engine.storage.sources.parquet import iter_parquet
from engine.storage.sources.rows import SCHEMA, checked_rows
from engine.storage.sources.tags import TagReader
from engine.storage.sources.tar import iter_tars
from engine.storage.sources.text import iter_csv, iter_jsonl


def iter_manifest(location: str, form: TableForm = TableForm()) -> Iterator[Batch]:  # noqa: B008 - frozen
    """The rows of a user's manifest or of files that hold pictures, some thousand at a time.

    Args:
        location: as :func:`engine.storage.sources.find.find_source`.
        form: what the user says of its form.

    Yields:
        columns ``image_id`` (the image where there is none), ``image`` (empty where there is none), ``uri`` (where the
        picture is read from) and ``tags`` (a list of names, each once).

    Raises:
        UserError: a file is missing, empty, damaged, of another kind, or lacks a column.
    """
    folder = find_source(location).folder
    for table in iter_tables(location, form):
        batch: Batch = {name: table.column(name).to_pylist() for name in SCHEMA.names}
        uris = [place_of(uri, image, folder) for uri, image in zip(batch["uri"], batch["image"], strict=True)]
        yield {**batch, "uri": uris}


def iter_tables(
    location: str,
    form: TableForm = TableForm(),  # noqa: B008 - frozen
    *,
    needs_tags: bool = True,
    known: Sequence[str] = (),
    notes: dict[str, None] | None = None,
) -> Iterator[pa.Table]:
    """The same as tables of :data:`engine.storage.sources.rows.SCHEMA`, without a loop over the rows.

    Args:
        known: the names of the classes, where they are known.
        notes: takes what a user should know of how the source was read, a sentence each.
    """
    source = find_source(location)
    reader = TagReader(form.tag_separator, known=known, strict=needs_tags)
    num_rows = 0
    with about("data"), readable(source.location, f"{source.ending[1:]} file"):
        tables = _tables(source, form, reader, needs_tags)
        first = next(tables, None)
        if first is not None and in_long_form(first):
            rows = pa.concat_tables([first, *tables])
            images = one_row_each(rows)
            reader.notes[f"{len(rows)} rows, one for each image and tag, are {len(images)} images"] = None
            first, tables = images, iter(())
        for table in itertools.chain([] if first is None else [first], tables):
            num_rows += len(table)
            yield table
        if num_rows == 0:
            raise ManifestError(f"'{source.location}' holds no image; it needs at least one row")
    if notes is not None:
        notes.update(reader.notes)


def _tables(source: Source, form: TableForm, reader: TagReader, needs_tags: bool) -> Iterator[pa.Table]:
    if source.ending == ".tar":
        yield from iter_tars(source, form, reader, needs_tags=needs_tags)
        return
    for file in source.files:
        first_row = 0
        for columns in _columns(source, file, form, needs_tags, reader.notes):
            yield checked_rows(columns, f"'{file}'", first_row, reader)
            first_row += len(columns["image"])


def _columns(
    source: Source, file: str, form: TableForm, needs_tags: bool, notes: dict[str, None]
) -> Iterator[dict[str, Any]]:
    if source.ending == ".parquet":
        yield from iter_parquet(source, file, form, needs_tags=needs_tags, notes=notes)
        return
    first_row = 0
    for columns, batch in (iter_csv if source.ending == ".csv" else iter_jsonl)(file, form, needs_tags=needs_tags):
        notes.update(columns.notes)
        yield columns.taken(batch, f"'{file}'", first_row)
        first_row += len(batch[columns.image])


def manifest_hash(location: str, form: TableForm = TableForm()) -> str:  # noqa: B008 - frozen
    """SHA-256 that tells whether two manifests hold the same rows in the eyes of their readers, as hexadecimal digits.

    Raises:
        UserError: a file cannot be read.
    """
    rows = source_hash(location)
    return rows if form == TableForm() else hashlib.sha256(json.dumps([rows, asdict(form)]).encode()).hexdigest()


def place_of(uri: str | None, image: str, folder: str) -> str:
    """Where the picture of a row is read from."""
    return uri or (filesystem.resolve(image, folder) if image else "")
