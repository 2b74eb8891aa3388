"""A manifest with the cached maps of a search. Does not import torch, for actors that only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.records import Batch
from engine.storage.manifest import Manifest
from engine.storage.shards import read_shard


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedMaps(Manifest):
    """A manifest whose rows include the cached maps and true masks of their images."""

    cams: tuple[str, ...]
    """Folders of the CAMs, one for each set of scales."""
    distances: str
    """Folder of the affinities; empty without a walk."""
    truth: str
    """Folder of the true masks."""

    def read_shard(self, shard: int) -> Batch:
        """Read the rows of one shard, with ``height``, ``width``, ``cams``, ``distances`` and ``truth``.

        Raises:
            StorageError: A shard of the cache cannot be read.
        """
        rows = Manifest.read_shard(self, shard)
        cams = [columns_of(folder, shard, ("height", "width", "error", "cam")) for folder in self.cams]
        beside = {"error": [None] * len(rows["error"]), "distances": [None] * len(rows["error"])}
        if self.distances:
            beside = columns_of(self.distances, shard, ("error", "distances"))
        errors = zip(rows["error"], *(cam["error"] for cam in cams), beside["error"], strict=True)
        return {
            **rows,
            "error": [next((error for error in some if error is not None), None) for some in errors],
            "height": cams[0]["height"],
            "width": cams[0]["width"],
            "cams": [list(some) for some in zip(*(cam["cam"] for cam in cams), strict=True)],
            "distances": beside["distances"],
            "truth": columns_of(self.truth, shard, ("truth",))["truth"],
        }


def columns_of(folder: str, shard: int, names: Sequence[str]) -> Batch:
    """Read columns of one shard."""
    columns: Batch = read_shard(folder, shard, names).to_pydict()
    return columns
