"""Write a finished shard atomically."""

from __future__ import annotations

import json

import pyarrow as pa

from engine.records import Batch, error_counts, shard_table
from engine.storage.shards import write_shard


class CommitShard:
    """Reads the columns of the shard's schema and ``shard``; returns one row: ``shard``, ``num_rows``, ``num_errors``
    and an empty ``failure``.
    """

    def __init__(self, folder: str, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema

    def __call__(self, batch: Batch) -> Batch:
        (shard,) = set(batch["shard"])
        write_shard(self._folder, shard, shard_table(batch, self._schema))
        return {
            "shard": [shard],
            "num_rows": [len(batch["shard"])],
            "num_errors": [json.dumps(error_counts(batch["error"]))],
            "failure": [None],
        }
