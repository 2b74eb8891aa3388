"""Manifests as text: CSV and JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from engine.errors import ManifestError
from engine.storage.sources.columns import Columns, TableForm, choose_columns
from engine.storage.sources.find import open_source_file
from engine.storage.sources.rows import BATCH_ROWS, json_object

Batch = dict[str, Any]


def iter_csv(location: str, form: TableForm, *, needs_tags: bool) -> Iterator[tuple[Columns, Batch]]:
    """The columns that are read of a CSV file, and the file's columns some thousand rows at a time, as written.

    Args:
        form: what the user says of it.
        needs_tags: whether there must be tags.

    Raises:
        ManifestError: it is not CSV, or lacks a column.
    """
    with open_source_file(location) as source, io.TextIOWrapper(source, encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text, strict=True, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(rows, [])]
            if not header:
                raise ManifestError(f"'{location}' is empty; it needs a header, then rows")
            columns: Columns | None = None
            for batch in _batches(_checked(rows, len(header), location)):
                columns = columns or choose_columns(
                    location,
                    header,
                    form,
                    needs_tags=needs_tags,
                    values_of=lambda name, batch=batch: [row[header.index(name)] for row in batch],  # type: ignore[misc]
                )
                yield columns, {name: [row[header.index(name)] for row in batch] for name in columns.names}
            if columns is None:
                choose_columns(location, header, form, needs_tags=needs_tags, values_of=lambda _: [])
        except csv.Error as error:
            raise ManifestError(f"'{location}', line {rows.line_num} is not CSV: {error}") from error


def _checked(rows: Any, width: int, location: str) -> Iterator[list[str]]:
    """The rows that are not blank, each as wide as the header."""
    for row in rows:
        if not row:
            continue
        if len(row) != width:
            raise ManifestError(
                f"'{location}', line {rows.line_num} has {len(row)} columns where the header has {width}; separate "
                "tags by ';' or put them in quotes"
            )
        yield row


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def iter_jsonl(location: str, form: TableForm, *, needs_tags: bool) -> Iterator[tuple[Columns, Batch]]:
    """The same of a file with a JSON object a line.

    Raises:
        ManifestError: a line is no JSON object, or a column is missing from all.
    """
    columns: Columns | None = None
    with open_source_file(location) as source, io.TextIOWrapper(source, encoding="utf-8-sig") as text:
        for batch in _batches(_objects(text, location)):
            if columns is None:
                names = list(dict.fromkeys(name for row in batch for name in row))
                columns = choose_columns(
                    location,
                    names,
                    form,
                    needs_tags=needs_tags,
                    values_of=lambda name, batch=batch: [row.get(name) for row in batch],  # type: ignore[misc]
                )
            yield columns, {name: [row.get(name) for row in batch] for name in columns.names}


def _objects(lines: Iterable[str], location: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        yield json_object(line, f"'{location}', line {number}")
