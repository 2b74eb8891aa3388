"""Manifests that benchmarks and experiments derive from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import photographs
from engine.storage.user_manifest import iter_manifest


@pytest.fixture
def manifests(tmp_path: Path) -> list[str]:
    for name, rows in {"own": "a.jpg,cat;dog\nb.jpg,\n", "extra": "c d.jpg,dog\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.csv").write_text("image,tags\n" + rows)
    return [str(tmp_path / name / "manifest.csv") for name in ("own", "extra")]


def test_joined_manifest_keeps_ids_and_tags_and_finds_the_images(tmp_path: Path, manifests: list[str]) -> None:
    (batch,) = iter_manifest(photographs.write_manifest(tmp_path / "new" / "both.csv", manifests))
    assert batch["image_id"] == ["a.jpg", "b.jpg", "c d.jpg"]
    assert batch["uri"] == [str(tmp_path / "own/a.jpg"), str(tmp_path / "own/b.jpg"), str(tmp_path / "extra/c d.jpg")]
    assert batch["tags"] == [["cat", "dog"], [], ["dog"]]


def test_shortened_manifest_holds_the_first_images(
    tmp_path: Path, manifests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frozen = photographs.frozen("own/manifest.csv", 1, tmp_path / "short", ("cat", "dog"), rows_per_shard=8)
    rows = frozen.read_shard(0)
    assert rows["uri"] == [str(tmp_path / "own" / "a.jpg")]
    assert rows["error"] == [None]
