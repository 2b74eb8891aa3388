"""Frozen manifests to inspect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from engine.storage.manifest import Manifest, freeze_manifest

Row = tuple[str, Sequence[str]]
"""An image and its tags."""


def frozen(folder: Path, rows: Sequence[Row], class_names: Sequence[str], *, with_ids: bool = False) -> Manifest:
    """Freeze a manifest of these rows.

    Args:
        with_ids: Whether each row has an id of its own, so that images may occur twice.
    """
    lines = [
        {"image": image, "tags": list(tags)} | ({"image_id": str(number)} if with_ids else {})
        for number, (image, tags) in enumerate(rows)
    ]
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return freeze_manifest(
        str(folder / "manifest.jsonl"), str(folder / "frozen"), rows_per_shard=8, class_names=tuple(class_names)
    )


def rows_of(*tags: Sequence[str]) -> list[Row]:
    """Rows of images that do not exist."""
    return [(f"{number}.png", one) for number, one in enumerate(tags)]
