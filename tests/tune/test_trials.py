"""Trials on Ray Tune: chosen by a model, stopped early, and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.cli.command import parse
from tests.tune.conftest import SPACE, arguments
from tune import search


@pytest.mark.slow
def test_optuna_chooses_betas_and_goes_on_from_those_it_has_tried(folder: Path, ray_session: None) -> None:
    pytest.importorskip("optuna")
    out = "optuna"
    options = (*SPACE, "--search", "optuna", "--num-betas", "3", "--cam-scales", "0.6,1", "--early-stopping")
    search.run(parse(search.Search, arguments(folder, out, *options)))
    betas = {row["beta"] for row in pq.read_table(folder / out / "results.parquet").to_pylist()}
    assert 3 <= len(betas) <= 4  # and that of the default
    assert all(1.5 <= beta <= 9 for beta in betas)
    trials = sorted((folder / out / ".tag2mask" / "counts").iterdir())
    shards = [shard for trial in trials[1:] for shard in trial.glob("*.parquet")]
    kept = {shard: shard.stat().st_mtime_ns for shard in shards}
    shutil.rmtree(trials[0])
    search.run(parse(search.Search, arguments(folder, out, *options)))
    assert kept
    assert all(shard.stat().st_mtime_ns == written for shard, written in kept.items())
    assert len(pq.read_table(folder / out / "results.parquet").to_pylist()) >= len(betas)
