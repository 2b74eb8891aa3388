"""A manifest together with the masks that an earlier job made of its images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.errors import StorageError
from engine.records import Batch
from engine.storage.manifest import Manifest
from engine.storage.shards import read_shard

COLUMNS = ("image_id", "height", "width", "mask", "confidence", "error")
"""What is read of a mask shard."""
SKIPPED = ("mask", "confidence")
"""Stages of the rows that are left out on purpose: the labeling's own errors, masks that are too unsure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabeledManifest(Manifest):
    """The rows of a manifest, each with its mask; a row without a usable mask carries an error."""

    masks: str
    """Folder of mask shards, whose rows are those of the manifest."""
    min_confidence: float = 0.0
    """Masks with less are left out."""

    @classmethod
    def of(cls, manifest: Manifest, *, masks: str, min_confidence: float) -> LabeledManifest:
        """A frozen manifest, and the folder of the masks that were made of it."""
        fields = {item.name: getattr(manifest, item.name) for item in dataclasses.fields(Manifest)}
        return cls(**fields, masks=masks, min_confidence=min_confidence)

    def read_shard(self, shard: int) -> Batch:
        """The rows of one shard: the manifest's columns, ``row``, and ``mask`` (PNG), ``confidence``, size.

        Raises:
            StorageError: manifest or shard is missing or damaged, or they do not belong together.
        """
        rows = Manifest.read_shard(self, shard)
        table = read_shard(self.masks, shard, COLUMNS)
        if table.column("image_id").to_pylist() != rows["image_id"]:
            raise StorageError(f"'{self.masks}' holds other images than data in shard {shard}", thing="masks")
        made = mask_columns(table, self.min_confidence)
        made["error"] = [mine or theirs for mine, theirs in zip(rows["error"], made["error"], strict=True)]
        first = shard * self.rows_per_shard
        return {**rows, **made, "row": list(range(first, first + table.num_rows))}


def mask_columns(table: pa.Table, min_confidence: float) -> dict[str, list[Any]]:
    """The columns of a mask shard as plain values, with an error (of :data:`SKIPPED`) where there is no usable mask.

    Args:
        table: with :data:`COLUMNS`.
        min_confidence: what a mask must have at least.

    Returns:
        ``height``, ``width``, ``mask`` (PNG or None), ``confidence`` and ``error``.
    """
    columns = {name: table.column(name).to_pylist() for name in COLUMNS[1:]}
    errors: list[str | None] = []
    for error, confidence in zip(columns["error"], columns["confidence"], strict=True):
        if error is not None:
            errors.append(f"mask: {error}")
        elif min_confidence > 0 and (confidence is None or confidence < min_confidence):
            errors.append("confidence: below min_confidence")
        else:
            errors.append(None)
    pictures = [None if picture is None else picture["bytes"] for picture in columns["mask"]]
    return {**columns, "mask": pictures, "error": errors}
