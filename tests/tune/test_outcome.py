"""What a search writes and prints, from results made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.presets import preset
from tests.tune.test_results import _ranked
from tune.outcome import SearchResults, write_outcome
from tune.results import Default
from tune.search import Search


def _written(folder: Path, *right: int, errors: dict[str, int]) -> dict[str, Any]:
    settings = preset("tiny")
    config = Search(data="", out=str(folder), truth="", cam="", settings=settings, folds=2, bootstrap=20)
    found = SearchResults(
        plain=_ranked(*right),
        with_crf=[],
        short_lists=[],
        seeds=[],
        class_names=("cat",),
        num_images=4,
        errors=errors,
    )
    return write_outcome(config, found, Default(settings=settings, kind="cam"))


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
