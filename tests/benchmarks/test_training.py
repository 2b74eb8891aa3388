"""Speeds from the reports of a training."""

from __future__ import annotations

import pytest

from benchmarks import training


def test_speed_and_waiting_leave_out_the_first_report() -> None:
    curve = [
        {"step": 2.0, "images_per_s": 1.0, "waiting": 1.0},
        {"step": 4.0, "images_per_s": 8.0, "waiting": 0.5},
        {"step": 6.0, "images_per_s": 4.0, "waiting": 0.0},
    ]
    intervals = training.intervals_of(curve, batch_size=4)
    assert training.speed_of(intervals) == {"images_per_s": 16 / 3, "waiting": 0.5 / 3}


def test_a_run_with_one_report_is_too_short() -> None:
    with pytest.raises(SystemExit, match="too short"):
        training.intervals_of([{"step": 2.0, "images_per_s": 1.0, "waiting": 0.0}], batch_size=4)
