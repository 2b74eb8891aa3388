"""An image that kills its worker costs no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.storage.shards import committed_shards, read_shards, shard_path
from tests.engine.distributed.examples import numbered_images, run_past


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "few_tries")
def test_image_that_kills_its_worker_becomes_an_error_row_and_costs_no_other(tmp_path: Path) -> None:
    manifest = numbered_images(tmp_path / "images", 7, rows_per_shard=3)
    calm, hurt = str(tmp_path / "calm"), str(tmp_path / "hurt")
    run_past((), manifest, calm)
    committed = run_past((4, 7), manifest, hurt)  # and so no image of the last shard survives
    assert [(one.shard, one.num_rows, dict(one.errors)) for one in committed] == [
        (0, 3, {}),
        (1, 3, {"crash": 1}),
        (2, 1, {"crash": 1}),
    ]
    assert Path(shard_path(hurt, 0)).read_bytes() == Path(shard_path(calm, 0)).read_bytes()
    expected = [row for table in read_shards(calm) for row in table.to_pylist()]
    rows = [row for table in read_shards(hurt) for row in table.to_pylist()]
    assert [row["image_id"] for row in rows] == [f"{number}.png" for number in range(1, 8)]
    for row, undisturbed in zip(rows, expected, strict=True):
        if row["image_id"] in ("4.png", "7.png"):
            assert row["error"].startswith("crash: its worker died 2 times")
            assert (row["mask"], row["height"], row["width"], row["tags"]) == (None, None, None, ["cat"])
        else:
            assert row == undisturbed
    assert os.listdir(Path(hurt, ".tag2mask")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "few_tries")
def test_run_ends_without_error_rows_if_no_image_survives(tmp_path: Path) -> None:
    manifest = numbered_images(tmp_path / "images", 2, rows_per_shard=2)
    out = str(tmp_path / "out")
    assert run_past((1, 2), manifest, out) == []
    assert committed_shards(out) == set()
