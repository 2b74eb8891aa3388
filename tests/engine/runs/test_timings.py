"""Where the time went, in summary.json and on the screen."""

from __future__ import annotations

import pytest

from engine.runs.timings import bill, print_profile, profile, timing_summary

SECONDS = {"decode": 3.0, "dcrf": 9.0, "waiting: cam+walk": 5.0}


def test_seconds_by_stage_and_an_estimate_for_a_million_images() -> None:
    assert timing_summary(SECONDS, num_images=1000, wall_s=7.2, num_cores=4) == {
        "stage_seconds": {"decode": 3.0, "dcrf": 9.0},
        "waiting_seconds": {"cam+walk": 5.0},
        "per_million_images": {"hours": 2.0, "core_hours": 8.0, "stage_hours": {"decode": 0.833, "dcrf": 2.5}},
    }
    assert "per_million_images" not in timing_summary({}, num_images=0, wall_s=1.0)


def test_a_price_per_core_hour_gives_the_cost_of_a_million_images() -> None:
    summary = timing_summary(SECONDS, num_images=1000, wall_s=7.2, num_cores=4, price=0.02)
    assert summary["per_million_images"]["cost"] == 0.16
    assert bill(summary) == "0.03 core-seconds per image, startup included; a million images: 8 core-hours, cost 0.16"


def test_profile_shows_the_longest_stage_first_and_waiting_last(capsys: pytest.CaptureFixture[str]) -> None:
    rows = profile(timing_summary(SECONDS, num_images=1000, wall_s=7.2), 1000)
    assert rows == [
        {"stage": "dCRF", "seconds": 9.0, "share": 0.75, "ms_per_image": 9.0},
        {"stage": "decode", "seconds": 3.0, "share": 0.25, "ms_per_image": 3.0},
        {"stage": "waiting (cam+walk)", "seconds": 5.0},
    ]
    print_profile(rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "dCRF" in line and "75.0%" in line]


def test_nothing_done_is_no_division_by_zero() -> None:
    assert profile(timing_summary({}, num_images=0, wall_s=1.0), 0) == []
