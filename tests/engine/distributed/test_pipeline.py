"""Runs go on past shards that keep failing, and end soon where every shard fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.distributed import pipeline
from engine.storage.shards import committed_shards
from tests.engine.distributed.examples import numbered_images, run_past


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "few_tries")
def test_run_ends_after_a_few_of_many_shards_if_no_image_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MIN_FAILED_SHARDS", 2)
    manifest = numbered_images(tmp_path / "images", 100, rows_per_shard=2)
    tried = tmp_path / "tried"
    tried.mkdir()
    assert run_past(range(1, 101), manifest, str(tmp_path / "out"), tried=tried) == []
    assert committed_shards(str(tmp_path / "out")) == set()
    assert 2 < len(list(tried.iterdir())) < 20


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "few_tries")
def test_more_failing_shards_than_are_tolerated_cost_no_other_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MIN_FAILED_SHARDS", 1)
    manifest = numbered_images(tmp_path / "images", 8, rows_per_shard=2)
    committed = run_past((3, 5), manifest, str(tmp_path / "out"))
    assert [(one.shard, dict(one.errors)) for one in committed] == [
        (0, {}),
        (1, {"crash": 1}),
        (2, {"crash": 1}),
        (3, {"measure": 1}),
    ]
