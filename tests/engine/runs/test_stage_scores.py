"""The names of a run's stages, and the progress of scoring them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.progress import job
from engine.runs.stage_scores import score_rounds, stages_of
from tests.engine.runs.examples import MASK, TRUTH, write_masks, write_truth


def test_stages_of_two_rounds_stand_in_the_order_of_the_work() -> None:
    def scores(first: float) -> dict[str, float]:
        return {stage: first + number for number, stage in enumerate(("cam", "walk", "crf"))}

    rounds = [{"miou": scores(first), "iou": {stage: {"dog": first} for stage in scores(0)}} for first in (10, 20)]
    last = {"segmentation": 30.0}
    found = stages_of({"rounds": rounds, "miou": last, "iou": {"segmentation": {"dog": 30.0}}})
    assert found["miou"] == {
        "cam": 10,
        "walk": 11,
        "crf": 12,
        "maps 2": 20,
        "walk 2": 21,
        "dCRF 2": 22,
        "segmentation": 30,
    }
    assert list(found["iou"]) == list(found["miou"])


def test_scoring_all_stages_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = {"a": TRUTH, "b": TRUTH}
    stages = {column: dict.fromkeys(masks, MASK) for column in ("mask_cam", "mask_walk")}
    folder = write_masks(tmp_path / "masks", masks, stages=stages)
    segmented = write_masks(tmp_path / "segmented", masks)
    with job("report"):
        score_rounds([folder], segmented, write_truth(tmp_path / "truth", masks))
    done = [line for line in capsys.readouterr().err.splitlines() if "done: " in line]
    assert len(done) == 1
    assert "done: 8 of 8 masks in " in done[0]
