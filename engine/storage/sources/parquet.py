"""Manifests as Parquet: paths of images, or the images themselves.

Of embedded pictures only ids, names and tags are read here; the bytes are fetched row group by row group where they are
needed (:mod:`engine.storage.pictures`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.storage import filesystem
from engine.storage.pictures import parquet_uri
from engine.storage.plain_columns import check_plain
from engine.storage.sources.find import Source, holds_pictures, open_source_file
from engine.storage.sources.rows import BATCH_ROWS, check_columns


def iter_parquet(source: Source, location: str, *, needs_tags: bool) -> Iterator[dict[str, Any]]:
    """The columns image_id, image and tags of a Parquet file, and ``uri`` where it holds the pictures.

    Args:
        source: of which the file is one.
        needs_tags: whether there must be a column ``tags``.

    Raises:
        ManifestError: a column is missing.
    """
    with open_source_file(location) as opened:
        file = pq.ParquetFile(opened)
        schema = file.schema_arrow
        check_columns(location, schema.names, needs_tags=needs_tags)
        check_plain(schema, ("image", "image_id", "tags"))
        embedded = holds_pictures(schema)
        columns = [name for name in ("tags", "image_id") if name in schema.names]
        columns += _name_columns(schema) if embedded else ["image"]
        first = 0
        for rows in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            batch: dict[str, Any] = {
                name: rows.column(name) for name in ("image_id", "tags") if name in rows.schema.names
            }
            if embedded:
                batch["image"] = _names(rows, source.name_of(location), first)
                batch["uri"] = [parquet_uri(location, row) for row in range(first, first + rows.num_rows)]
            else:
                batch["image"] = rows.column("image")
                folder = filesystem.parent(location)
                if folder != source.folder:
                    paths = batch["image"].cast(pa.string()).to_pylist()
                    batch["uri"] = [filesystem.resolve(path, folder) if path else None for path in paths]
            first += rows.num_rows
            if rows.num_rows:
                yield batch


def _name_columns(schema: pa.Schema) -> list[str]:
    kind = schema.field("image").type
    return ["image.path"] if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 else []


def _names(rows: pa.RecordBatch, file: str, first: int) -> pa.Array:
    """``file/path`` where the picture has a path, else ``file/row``."""
    numbers = pa.array(range(first, first + rows.num_rows), pa.int64()).cast(pa.string())
    if "image" in rows.schema.names:
        paths = pc.struct_field(rows.column("image"), "path").cast(pa.string())
        numbers = pc.if_else(pc.equal(pc.fill_null(paths, ""), ""), numbers, paths)
    return pc.binary_join_element_wise(pa.scalar(file), numbers, "/")
