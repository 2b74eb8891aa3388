"""The whole chain as one job, and its report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OutputError, StorageError
from jobs import make_scenes, report, run
from tests.jobs.test_chain import NUM_SCENES, SETTINGS

pytestmark = pytest.mark.slow
STAGES = ["cam", "walk", "crf", "segmentation"]


@pytest.fixture(scope="module", autouse=True)
def quick_reports() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> run.Run:
    root = tmp_path_factory.mktemp("run")
    scenes = root / "scenes"
    make_scenes.run(make_scenes.MakeScenes(out=str(scenes), num_images=NUM_SCENES, width=96, height=96))
    parts = {item.name: getattr(SETTINGS, item.name) for item in dataclasses.fields(SETTINGS)}
    return run.Run(data=str(scenes / "manifest.csv"), truth=str(scenes / "truth"), out=str(root / "out"), **parts)


@pytest.fixture(scope="module")
def summary(config: run.Run, ray_session: None) -> dict[str, Any]:
    return run.run(config)


def test_every_stage_is_scored_on_every_image(config: run.Run, summary: dict[str, Any]) -> None:
    assert summary["images"] == NUM_SCENES
    assert summary["errors"] == {}
    assert list(summary["miou"]) == list(summary["iou"]) == STAGES
    assert all(0 <= value <= 1 for value in summary["miou"].values())
    assert json.loads((Path(config.out) / "summary.json").read_text()) == summary
    evaluation = json.loads((Path(config.out) / "masks" / "evaluation.json").read_text())
    assert evaluation["miou"] == summary["miou"]["crf"]
    assert evaluation["images"] == NUM_SCENES


def test_report_shows_scores_and_pictures_and_needs_no_network(config: run.Run, summary: dict[str, Any]) -> None:
    page = (Path(config.out) / "report.html").read_text()
    assert page.count("data:image/") >= NUM_SCENES
    assert f"{100 * summary['miou']['walk']:.1f}" in page
    assert "http://" not in page
    assert "https://" not in page


def test_report_without_truth_or_photographs_is_still_written(
    config: run.Run, summary: dict[str, Any], tmp_path: Path
) -> None:
    moved = tmp_path / "manifest.csv"
    moved.write_bytes(Path(config.data).read_bytes())  # without the images beside it
    made = report.run(report.Report(data=str(moved), masks=f"{config.out}/masks", out=str(tmp_path)))
    assert "tag2mask" in Path(made["report"]).read_text()


def test_second_run_skips_every_step(config: run.Run, summary: dict[str, Any]) -> None:
    out = Path(config.out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.*") if path.name != "evaluation.json"}
    again = run.run(config)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again["miou"] == summary["miou"]


def test_changed_setting_is_refused_and_with_overwrite_only_what_it_touches_is_done_again(
    config: run.Run, summary: dict[str, Any]
) -> None:
    out = Path(config.out)
    other = replace(config, walk=replace(config.walk, alpha=3.0))
    with pytest.raises(OutputError, match=r"walk\.alpha: 2\.0 -> 3\.0"):
        run.run(other)
    weights = {name: (out / name / "weights.safetensors").stat().st_mtime_ns for name in ("cam", "affinity")}
    run.run(replace(other, overwrite=True))
    assert {name: (out / name / "weights.safetensors").stat().st_mtime_ns for name in weights} == weights
    settings = json.loads((out / "masks" / "run.json").read_text())["settings"]
    assert settings["walk"]["alpha"] == 3.0


def test_truth_that_does_not_exist_is_said_before_the_training(config: run.Run, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="--truth"):
        run.run(replace(config, truth=str(tmp_path / "nothing"), out=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "cam").exists()
