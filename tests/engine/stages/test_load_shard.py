"""Rows of a shard from the frozen manifest."""

from __future__ import annotations

from pathlib import Path

from engine.stages.load_shard import LoadShard
from engine.storage.manifest import freeze_manifest


def test_shards_are_the_manifest_cut_in_order(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(5)]
    (tmp_path / "manifest.csv").write_text("image,tags\n" + "".join(f"{name},cat\n" for name in names))
    manifest = freeze_manifest(
        str(tmp_path / "manifest.csv"), str(tmp_path / "frozen"), rows_per_shard=2, class_names=("cat",)
    )
    stage = LoadShard(manifest)
    shards = [stage({"shard": [shard]}) for shard in range(3)]
    assert [shard["image_id"] for shard in shards] == [names[:2], names[2:4], names[4:]]
    assert [shard["shard"] for shard in shards] == [[0, 0], [1, 1], [2]]
    assert all(len(values) == 2 for values in shards[0].values())
