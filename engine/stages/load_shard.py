"""Load the rows of one shard of the frozen manifest."""

from __future__ import annotations

from engine.records import Batch
from engine.storage.manifest import Manifest, SingleRows


class LoadShard:
    """Reads one row with ``shard``; returns the rows of that shard with the manifest's columns and ``shard``."""

    def __init__(self, manifest: Manifest | SingleRows) -> None:
        self._manifest = manifest

    def __call__(self, batch: Batch) -> Batch:
        (shard,) = batch["shard"]
        rows = self._manifest.read_shard(shard)
        return {**rows, "shard": [shard] * len(rows["image_id"])}
