"""What the quality of masks counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.config import RoundsConfig
from engine.presets import preset
from experiments import quality
from experiments.finished_run import FinishedRun


def test_objects_are_scored_one_by_one_and_pixels_together() -> None:
    large, small = np.zeros((10, 10), dtype=np.uint8), np.zeros((10, 10), dtype=np.uint8)
    large[:5] = 1  # half of the image, found but for a fifth
    found = large.copy()
    found[0] = 0
    small[0, :4] = 1  # 4 %, not found
    small[9] = 2  # beside it another class, found
    small_found = np.where(small == 2, small, 0)
    line, ious = quality.scored(iter([(large, found), (small, small_found)]), 2)
    assert line["above 20 %"] == pytest.approx(80)
    assert line["below 5 %"] == 0
    assert line["5 to 20 %"] == pytest.approx(100)
    assert line["several classes"] == pytest.approx(50)
    assert ious == pytest.approx([100 * 136 / 150, 100 * 40 / 54, 100])
    assert line["mIoU"] == pytest.approx(np.mean(ious))


def test_several_runs_are_one_line_a_stage() -> None:
    objects = dict.fromkeys(quality.OBJECTS, 50.0)
    runs = [{"walk": ({"mIoU": value, **objects}, [value, value])} for value in (60.0, 64.0)]
    (line,) = quality.lines_of(runs, ("dog",))
    assert (line["stage"], line["mIoU"], line["spread"], line["dog"]) == ("walk", 62.0, 4.0, 62.0)


def test_stages_of_all_rounds_are_scored_in_order(tmp_path: Path) -> None:
    settings = replace(preset("tiny"), rounds=RoundsConfig(num_rounds=2))
    run = FinishedRun(folder=tmp_path, data="m.csv", truth="truth", settings=settings, class_names=("dog",))
    assert list(quality.stage_columns(run).values()) == [
        (str(tmp_path / "round-1" / "masks"), "mask_walk"),
        (str(tmp_path / "round-1" / "masks"), "mask"),
        (str(tmp_path / "masks"), "mask_walk"),
        (str(tmp_path / "masks"), "mask"),
        (str(tmp_path / "segmented"), "mask"),
    ]
