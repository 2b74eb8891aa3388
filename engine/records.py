"""Rows between stages and on disk: columns, types and encoding.

A batch is a dict of columns; a column is a list with one plain value per row. Later stages pass a row with an ``error``
through unchanged. Maps are stored as float16 on the grid, images and masks as encoded files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

IGNORE = 255
"""Value of ignored pixels and cells in 8-bit masks and seeds."""
IGNORE_16 = 65535
"""Value of ignored pixels and cells in 16-bit masks and seeds."""
MAX_CLASSES_8_BIT = 254
"""Maximum number of classes in an 8-bit mask, excluding background."""

Batch = dict[str, list[Any]]

COLUMN_TYPES: dict[str, pa.DataType] = {
    "shard": pa.int64(),  # number of the row's shard
    "image_id": pa.string(),  # unique over the manifest
    "image": pa.string(),  # path or URI as in the manifest
    "uri": pa.string(),  # where the image is read from
    "tags": pa.list_(pa.string()),
    "class_ids": pa.list_(pa.int32()),  # (K,) 1..C, in the order of the tags
    "error": pa.string(),  # null, or "stage: reason"
    "encoded": pa.large_binary(),  # the image's file
    "height": pa.int32(),  # pixels, after EXIF orientation
    "width": pa.int32(),
    "cam": pa.large_binary(),  # encode_map of (K, h, w) in [0, 1], maximum 1 a class
    "refined_cam": pa.large_binary(),  # encode_map of (K+1, h, w), background first, after the walk or from a network
    "found_ids": pa.list_(pa.int32()),  # (K,) 1..C, the classes of refined_cam if these are not the tags'
    "mask": pa.large_binary(),  # PNG (H, W) of class ids
    "mask_cam": pa.large_binary(),  # the same from the CAM alone, with keep_stages
    "mask_walk": pa.large_binary(),  # the same after the walk, before the dCRF
    "areas": pa.list_(pa.float32()),  # fraction of the pixels: background, then each tag
    "confidence": pa.float32(),  # [0, 1]
    "seed": pa.large_binary(),  # PNG (h, w) of class ids, IGNORE where uncertain
    "cams": pa.list_(pa.large_binary()),  # in a search: like "cam", one per set of scales
    "distances": pa.large_binary(),  # in a search: encode_map of (O, h, w), -log of the affinities
    "truth": pa.large_binary(),  # in a search: PNG (H, W) of class ids
    "probabilities": pa.list_(pa.float32()),  # (C,) by class, from the classifier
    "row": pa.int64(),  # number of the image in the manifest, from 0
    "name": pa.string(),  # base name of an exported image's files
    "subset": pa.string(),  # subset of an exported image: train or val
    "entry": pa.large_string(),  # JSON: the image's entry in the export's annotation lists
    "seconds": pa.string(),  # in a shard's first row: JSON, seconds of work so far by stage
    "num_rows": pa.int64(),  # rows of a committed shard
    "num_errors": pa.string(),  # in a committed shard: JSON, number of error rows by stage
    "failure": pa.string(),  # why the run must end: an error that any other shard would meet as well
}
"""Every column that a stage may read or add."""

_IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def mask_schema(*, keep_stages: bool, metadata: dict[str, str]) -> pa.Schema:
    """The schema of a mask shard.

    Args:
        keep_stages: include the columns ``mask_cam`` and ``mask_walk``.
        metadata: key-value metadata of the file, in addition to the ``huggingface`` entry.
    """
    pictures = ["mask", "mask_cam", "mask_walk"] if keep_stages else ["mask"]
    fields = [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("tags", pa.list_(pa.string())),
        *[pa.field(name, _IMAGE_STRUCT) for name in pictures],
        pa.field("areas", pa.list_(pa.float32())),
        pa.field("confidence", pa.float32()),
        pa.field("error", pa.string()),
    ]
    return _with_metadata(pa.schema(fields), pictures, metadata)


def seed_schema(*, metadata: dict[str, str]) -> pa.Schema:
    """The schema of a shard of affinity labels: like a mask shard, with ``seed`` (h, w) in place of ``mask``."""
    fields = [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("seed", _IMAGE_STRUCT),
        pa.field("areas", pa.list_(pa.float32())),
        pa.field("error", pa.string()),
    ]
    return _with_metadata(pa.schema(fields), ["seed"], metadata)


def tag_schema(*, metadata: dict[str, str]) -> pa.Schema:
    """The schema of a shard of tag probabilities."""
    fields = [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("probabilities", pa.list_(pa.float32())),
        pa.field("error", pa.string()),
    ]
    return _with_metadata(pa.schema(fields), [], metadata)


def export_schema() -> pa.Schema:
    """The schema of the intermediate shards from which jobs.export writes the annotation lists."""
    names = ("image_id", "name", "subset", "entry", "error")
    return pa.schema([(name, COLUMN_TYPES[name]) for name in names])


def _with_metadata(schema: pa.Schema, pictures: Sequence[str], metadata: dict[str, str]) -> pa.Schema:
    features: dict[str, Any] = {}
    for item in schema:
        if item.name in pictures:
            features[item.name] = {"_type": "Image"}
        elif pa.types.is_list(item.type):
            features[item.name] = {
                "_type": "List",
                "feature": {"dtype": _hf_name(item.type.value_type), "_type": "Value"},
            }
        else:
            features[item.name] = {"dtype": _hf_name(item.type), "_type": "Value"}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}}), **metadata})


def _hf_name(kind: pa.DataType) -> str:
    return {"float": "float32"}.get(str(kind), str(kind))


def shard_table(batch: Batch, schema: pa.Schema) -> pa.Table:
    """The rows of one shard as a table of ``schema``, in the batch's order.

    Args:
        batch: columns of ``schema``; picture columns hold PNG bytes or None.
    """
    columns: list[pa.Array] = []
    for item in schema:
        values = batch[item.name]
        if item.type == _IMAGE_STRUCT:
            values = [None if png is None else {"bytes": png, "path": None} for png in values]
        columns.append(pa.array(values, item.type))
    return pa.Table.from_arrays(columns, schema=schema)


def to_table(batch: Batch) -> pa.Table:
    """Convert a batch between two stages to Arrow, with the types of :data:`COLUMN_TYPES`."""
    return pa.table({name: pa.array(values, COLUMN_TYPES[name]) for name, values in batch.items()})


def to_batch(table: pa.Table) -> Batch:
    """The inverse of :func:`to_table`."""
    return {name: table.column(name).to_pylist() for name in table.column_names}


def error_counts(errors: Iterable[str | None]) -> dict[str, int]:
    """Number of error rows by stage, from the column ``error``."""
    return dict(Counter(error.split(":", 1)[0] for error in errors if error is not None))


def mask_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """The dtype of a mask with ``num_classes`` classes, excluding background."""
    return np.uint8 if num_classes <= MAX_CLASSES_8_BIT else np.uint16


def ignore_value(num_classes: int) -> int:
    """The value of ignored pixels in a mask with ``num_classes`` classes."""
    return IGNORE if num_classes <= MAX_CLASSES_8_BIT else IGNORE_16
