"""Manifests as Parquet: paths of images, or the images themselves.

Of embedded pictures only ids, names and tags are read here, and where the pictures lie
(:mod:`engine.storage.parquet_pages`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import ManifestError
from engine.storage import filesystem
from engine.storage.pictures import parquet_uris
from engine.storage.plain_columns import check_plain
from engine.storage.sources.columns import TableForm, choose_columns
from engine.storage.sources.find import Source, holds_bytes, open_source_file
from engine.storage.sources.rows import BATCH_ROWS


def iter_parquet(
    source: Source, location: str, form: TableForm, *, needs_tags: bool, notes: dict[str, None]
) -> Iterator[dict[str, Any]]:
    """The columns image_id, image and tags of a Parquet file, and ``uri`` where it holds the pictures.

    Args:
        source: of which the file is one.
        form: what the user says of it.
        needs_tags: whether there must be tags.
        notes: takes :attr:`Columns.notes`.

    Raises:
        ManifestError: a column is missing, or does not hold what it should.
    """
    with open_source_file(location) as opened:
        file = pq.ParquetFile(opened)
        schema = file.schema_arrow

        def values_of(name: str) -> Sequence[Any]:
            kind = schema.field(name).type
            if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                return []
            batch = next(file.iter_batches(batch_size=BATCH_ROWS, columns=[name]), None)
            return [] if batch is None else list(batch.column(0).to_pylist())

        chosen = choose_columns(location, schema.names, form, needs_tags=needs_tags, values_of=values_of)
        notes.update(chosen.notes)
        check_plain(schema, chosen.names)
        _check_kinds(schema, chosen.image, chosen.tags, location)
        embedded = holds_bytes(schema.field(chosen.image).type)
        bytes_column, path_column = _bytes_and_path(schema, chosen.image)
        columns = [name for name in chosen.names if not embedded or name != chosen.image]
        repeated = _repeated(file, path_column) if embedded and path_column else None
        uris = parquet_uris(location, bytes_column) if embedded else iter(())
        first = 0
        for rows in file.iter_batches(batch_size=BATCH_ROWS, columns=[*columns, path_column] if embedded else columns):
            values: dict[str, Any] = {name: rows.column(name) for name in columns}
            if embedded:
                values[chosen.image] = _names(rows, source.name_of(location), first, chosen.image, repeated)
            batch = chosen.taken(values, f"'{location}'", first)
            if embedded:
                batch["uri"] = list(islice(uris, rows.num_rows))
            elif (folder := filesystem.parent(location)) != source.folder:
                paths = batch["image"].cast(pa.string()).to_pylist()
                batch["uri"] = [filesystem.resolve(path, folder) if path else None for path in paths]
            first += rows.num_rows
            if rows.num_rows:
                yield batch


def _check_kinds(schema: pa.Schema, image: str, tags: Sequence[str], location: str) -> None:
    """Raises ManifestError for a column of lists of pictures, or of pictures where tags are wanted."""
    kind = schema.field(image).type
    if pa.types.is_nested(kind) and not holds_bytes(kind):
        raise ManifestError(
            f"'{location}': its column '{image}' holds {'lists' if pa.types.is_list(kind) else str(kind)[:40]}; a row "
            "is one picture or one path"
        )
    for name in tags:
        if holds_bytes(schema.field(name).type):
            raise ManifestError(
                f"'{location}': its column '{name}' holds pictures; tags are names. Masks are truth, and "
                "tags_column names the column of the tags"
            )


def _bytes_and_path(schema: pa.Schema, image: str) -> tuple[str, str]:
    """The column of the pictures' bytes, and that of their paths, empty where there is none."""
    kind = schema.field(image).type
    if not pa.types.is_struct(kind):
        return image, ""
    return f"{image}.bytes", f"{image}.path" if kind.get_field_index("path") >= 0 else ""


def _repeated(file: pq.ParquetFile, path_column: str) -> pa.Array:
    """Paths that stand in several rows."""
    paths = pa.chunked_array(
        [_paths(rows.column(0)) for rows in file.iter_batches(batch_size=BATCH_ROWS, columns=[path_column])],
        pa.string(),
    )
    counts = pc.value_counts(paths)
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))


def _paths(pictures: pa.Array) -> pa.Array:
    return pc.fill_null(pc.struct_field(pictures, "path").cast(pa.string()), "")


def _names(rows: pa.RecordBatch, file: str, first: int, image: str, repeated: pa.Array | None) -> pa.Array:
    """``file/path`` where the picture has a path of its own, else ``file/row``."""
    numbers = pa.array(range(first, first + rows.num_rows), pa.int64()).cast(pa.string())
    if repeated is not None:
        paths = _paths(rows.column(image))
        shared = pc.or_(pc.equal(paths, ""), pc.is_in(paths, value_set=repeated))
        numbers = pc.if_else(shared, numbers, paths)
    return pc.binary_join_element_wise(pa.scalar(file), numbers, "/")
