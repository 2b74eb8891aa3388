"""Progress where there is no terminal: lines, now and then."""

from __future__ import annotations

import pytest

from engine.runs.progress import Meter


def test_end_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("label", 10, unit="images") as meter:
        for done in range(1, 11):
            meter.update(done)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["[label] 10 of 10 images in 0 s"]


def test_work_done_before_is_said_first(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("label", 10, unit="images", done=4) as meter:
        meter.update(10)
    assert capsys.readouterr().err.splitlines()[0] == "[label] 4 of 10 images were done before"


def test_time_left_counts_only_the_work_of_this_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("engine.runs.progress.time.monotonic", lambda: now)
    with Meter("label", 200, unit="images", done=100) as meter:
        now = 120.0  # 50 images in 20 s: the other 50 take as long
        meter.update(150, "2 errors")
    assert "[label] 150 of 200 images, 20 s left, 2 errors" in capsys.readouterr().err.splitlines()


def test_failure_does_not_claim_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), Meter("label", 10, unit="images"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_resumed_count_starts_again_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("engine.runs.progress.time.monotonic", lambda: now)
    with Meter("train_cam", 200, unit="steps") as meter:
        now = 500.0
        meter.go_on(100)
        now = 520.0  # 50 steps in 20 s: the other 50 take as long
        meter.update(150)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["[train_cam] resuming at step 100 of 200", "[train_cam] 150 of 200 steps, 20 s left"]
