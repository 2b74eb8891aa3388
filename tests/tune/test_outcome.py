"""What a search writes and prints, from results made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.presets import preset
from tests.tune.test_results import _ranked
from tune.outcome import SearchResults, write_outcome
from tune.search import Search
from tune.seeds import ScoredSeed


def _written(folder: Path, *right: int, errors: dict[str, int], seeds: Sequence[ScoredSeed] = ()) -> dict[str, Any]:
    settings = preset("tiny")
    config = Search(data="", out=str(folder), truth="", cam="", settings=settings, folds=2, bootstrap=20)
    found = SearchResults(
        plain=_ranked(*right),
        with_crf=[],
        short_lists=[],
        seeds=list(seeds),
        class_names=("cat",),
        num_images=4,
        errors=errors,
    )
    return write_outcome(config, found, "cam")


def test_best_holds_the_searched_part_of_the_settings_tree(tmp_path: Path) -> None:
    summary = _written(tmp_path, 10, 20, 30, 40, 90, 50, errors={})
    assert json.loads((tmp_path / "best.json").read_text()) == json.loads(json.dumps(summary))
    settings = summary["settings"]
    assert set(settings) == {"cam", "walk", "affinity"}
    assert set(settings["cam"]) == set(settings["affinity"]) == {"inference"}
    assert (settings["walk"]["alpha"], settings["walk"]["num_steps"]) == (2.0, 8)
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0]["miou"] == summary["miou"] == summary["miou_cross_validated"]


def test_edge_of_the_grid_and_errors_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = _written(tmp_path, 10, 20, 30, 40, 50, 90, errors={"fetch": 2})
    assert summary["on_edge"] == {"alpha": "largest", "num_steps": "largest"}
    said = capsys.readouterr().out
    assert "the best alpha is the largest value tried" in said
    assert "the best num_steps is the largest value tried" in said
    assert "2 images ended in an error (fetch: 2)" in said


def test_seeds_have_a_table_and_those_with_enough_coverage_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures: Any = dict(scales=(1.0,), miou=0.5, precision=0.75, sure_foreground=0.8, sure_background=0.9)
    few = ScoredSeed(**figures, alpha_low=0.5, alpha_high=2.0, enough=False, is_default=False)
    enough = ScoredSeed(**figures, alpha_low=1.2, alpha_high=5.0, enough=True, is_default=True)
    summary = _written(tmp_path, 10, 20, 30, 40, 90, 50, errors={}, seeds=[few, enough])
    assert (summary["settings"]["seed"]["alpha_low"], summary["settings"]["seed"]["alpha_high"]) == (1.2, 5.0)
    rows = pq.read_table(tmp_path / "seeds.parquet").to_pylist()
    assert [(row["rank"], row["alpha_low"], row["default"], row["precision"]) for row in rows] == [
        (1, 0.5, False, 0.75),
        (2, 1.2, True, 0.75),
    ]
    said = capsys.readouterr().out
    assert "covers less than" in said
    assert "2 pairs of alphas" in said
