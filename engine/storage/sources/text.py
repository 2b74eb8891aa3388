"""Manifests as text: CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from engine.errors import ManifestError
from engine.storage.sources.find import open_source_file
from engine.storage.sources.rows import BATCH_ROWS, check_columns

Columns = dict[str, Any]


def iter_csv(location: str, *, needs_tags: bool) -> Iterator[Columns]:
    """The columns image_id, image and tags of a CSV file, as they are written.

    Args:
        needs_tags: whether there must be a column ``tags``.

    Raises:
        ManifestError: it is not CSV, or lacks a column.
    """
    with open_source_file(location) as source, io.TextIOWrapper(source, encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text, strict=True, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(rows, [])]
            if not header:
                raise ManifestError(f"'{location}' is empty; it needs a header, then rows")
            check_columns(location, header, needs_tags=needs_tags)
            columns = {name: header.index(name) for name in ("image_id", "image", "tags") if name in header}
            width = len(header)
            batch: list[list[str]] = []
            for row in rows:
                if not row:
                    continue
                if len(row) != width:
                    raise ManifestError(
                        f"'{location}', line {rows.line_num} has {len(row)} columns where the header has "
                        f"{width}; separate tags by ';' or put them in quotes"
                    )
                batch.append(row)
                if len(batch) == BATCH_ROWS:
                    yield {name: [row[index] for row in batch] for name, index in columns.items()}
                    batch = []
            if batch:
                yield {name: [row[index] for row in batch] for name, index in columns.items()}
        except csv.Error as error:
            raise ManifestError(f"'{location}', line {rows.line_num} is not CSV: {error}") from error


def iter_jsonl(location: str, *, needs_tags: bool) -> Iterator[Columns]:
    """The same of a file with a JSON object a line.

    Raises:
        ManifestError: a line is no JSON object, or a column is missing from all.
    """
    found: dict[str, None] = {}
    batch: Columns = {"image_id": [], "image": [], "tags": []}
    with open_source_file(location) as source, io.TextIOWrapper(source, encoding="utf-8-sig") as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ManifestError(f"'{location}', line {number} is not JSON: {error}") from error
            except RecursionError as error:
                raise ManifestError(f"'{location}', line {number} is not JSON: nested too deep") from error
            if not isinstance(row, dict):
                raise ManifestError(f"'{location}', line {number} is not a JSON object in braces")
            found.update(dict.fromkeys(row))
            for name, values in batch.items():
                values.append(row.get(name))
            if len(batch["image"]) == BATCH_ROWS:
                check_columns(location, list(found), needs_tags=needs_tags)
                yield batch
                batch = {name: [] for name in batch}
    if batch["image"]:
        check_columns(location, list(found), needs_tags=needs_tags)
        yield batch
