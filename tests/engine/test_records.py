"""Rows between stages and on disk: encodings and schemas."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from engine.imaging.codecs import encode_map, encode_mask
from engine.records import (
    Batch,
    error_counts,
    ignore_value,
    mask_dtype,
    mask_schema,
    seed_schema,
    shard_table,
    to_batch,
    to_table,
)


def test_mask_widens_where_a_byte_no_longer_holds_the_classes() -> None:
    assert (mask_dtype(254), ignore_value(254)) == (np.uint8, 255)
    assert (mask_dtype(255), ignore_value(255)) == (np.uint16, 65535)


def _rows(**changes: Any) -> dict[str, list[Any]]:
    return {
        "image_id": ["a", "b"],
        "image": ["a.jpg", "b.jpg"],
        "height": [4, None],
        "width": [5, None],
        "tags": [["cat", "dog"], []],
        "mask": [encode_mask(np.zeros((4, 5), dtype=np.uint8)), None],
        "areas": [[1.0, 0.0, 0.0], None],
        "confidence": [0.5, None],
        "error": [None, "fetch: gone"],
        **changes,
    }


def test_shard_table_holds_masks_and_errors_side_by_side() -> None:
    rows = _rows(encoded=[b"x", b"y"], shard=[0, 0])
    table = shard_table(rows, mask_schema(keep_stages=False, metadata={"run": "1"}))
    assert table.column_names == [
        *("image_id", "image", "height", "width", "tags", "mask", "areas", "confidence", "error"),
    ]
    assert table.column("mask").to_pylist() == [{"bytes": rows["mask"][0], "path": None}, None]
    assert table.column("error").to_pylist() == [None, "fetch: gone"]
    assert table.schema.metadata[b"run"] == b"1"


def test_shard_of_only_errors_keeps_the_types_of_the_columns() -> None:
    empty = {name: [None, None] for name in ("height", "width", "mask", "areas", "confidence")}
    schema = mask_schema(keep_stages=False, metadata={})
    table = shard_table(_rows(**empty), schema)
    assert table.schema.equals(schema)
    assert pa.types.is_struct(table.schema.field("mask").type)


def test_every_column_stands_in_the_metadata_that_hugging_face_reads() -> None:
    for schema, pictures in [
        (mask_schema(keep_stages=False, metadata={}), {"mask"}),
        (mask_schema(keep_stages=True, metadata={}), {"mask", "mask_cam", "mask_walk"}),
        (seed_schema(metadata={}), {"seed"}),
    ]:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert list(features) == schema.names
        assert {name for name, feature in features.items() if feature["_type"] == "Image"} == pictures


def test_batch_survives_the_way_through_arrow() -> None:
    batch: Batch = {
        "shard": [3, 3],
        "class_ids": [[1, 2], []],
        "cam": [encode_map(np.ones((2, 3, 3))), None],
        "error": [None, None],
        "height": [None, None],
    }
    table = to_table(batch)
    assert table.schema.field("error").type == pa.string()
    assert to_batch(table) == batch


def test_errors_are_counted_by_stage() -> None:
    assert error_counts([None, "fetch: a: b", "decode: c", "fetch: d", None]) == {"fetch": 2, "decode": 1}
