"""The names of a run's stages."""

from __future__ import annotations

from engine.runs.stage_scores import stages_of


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
