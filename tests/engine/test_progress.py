"""Progress where there is no terminal: lines, now and then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.display import LINE_EVERY_S, display
from engine.progress import SKIPPED, Chain, Meter, Planned, doing, job, started, starting


class Clock:
    """A clock that a test turns."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The display's clock; its thread sleeps."""
    clock = Clock()
    monkeypatch.setattr("engine.display.time.monotonic", clock)
    monkeypatch.setattr("engine.display._TICK_S", 1000)
    return clock


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What has been said since it was last asked for."""

    def said() -> list[str]:
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()

    return said


def _update(meter: Meter, clock: Clock, *counts: int, every_s: float = 5.0, note: str = "") -> None:
    for count in counts:
        clock.now += every_s
        meter.update(count, note)


def test_end_is_said_in_one_line(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with Meter("label", 10, unit="images") as meter:
        _update(meter, clock, *range(1, 11), every_s=0.1)
    assert lines() == ["[label] done: 10 of 10 images in 1 s"]


def test_no_eta_is_said_before_a_rate_is_known(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with Meter("label", 100, unit="images") as meter:
        clock.now += 300  # the start of processes, which says nothing of the rate
        display.say_if_due()
        assert lines() == ["[label] 0 of 100 images, starting (5 min)"]
        _update(meter, clock, 10, 20)
        display.say_if_due()
        assert lines() == ["[label] 20 of 100 images"]
        _update(meter, clock, 30, note="2 errors")
        display.say_if_due()
        clock.now += LINE_EVERY_S
        display.say_if_due()
        assert lines() == ["[label] 30 of 100 images, ETA 27 s, 2 errors"]


def test_silence_is_broken_by_what_is_going_on(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with job("label"), doing("starting Ray"):
        display.say_if_due()
        assert lines() == []
        clock.now += 1
        display.say_if_due()
        display.say_if_due()
        assert lines() == ["[label] starting Ray"]
        clock.now += LINE_EVERY_S
        display.say_if_due()
        assert lines() == [f"[label] starting Ray ({LINE_EVERY_S + 1:.0f} s)"]
    display.say_if_due()
    assert lines() == []


def test_library_says_nothing_unless_a_job_asks_for_it(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with doing("starting Ray"):
        clock.now += 100
        display.say_if_due()
    assert lines() == []


def test_resumed_count_starts_again_where_it_is(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with Meter("label", 200, unit="images", done=4):
        assert lines() == ["[label] resuming at image 4 of 200"]
    with Meter("train_cam", 200, unit="steps") as meter:
        _update(meter, clock, 10, 20, 30, 40)
        meter.resume_at(20)
        assert meter.eta_s() is None
        _update(meter, clock, 30, 40, 50)
        assert meter.eta_s() == pytest.approx(75)
    assert lines()[1] == "[train_cam] resuming at step 20 of 200"


def test_failure_does_not_claim_an_end(lines: Callable[[], list[str]]) -> None:
    with pytest.raises(KeyError), Meter("label", 10, unit="images"):
        raise KeyError
    assert lines() == []


STEPS = [
    Planned(name="cam", kind="cam", passes=4),
    Planned(name="round-1/masks", kind="masks", note="round 1 of 2"),
    Planned(name="masks", kind="masks", note="round 2 of 2"),
    Planned(name="report", kind="report", passes=0),
]


def test_eta_of_a_chain_is_said_once_every_kind_of_step_is_measured(
    clock: Clock, lines: Callable[[], list[str]]
) -> None:
    chain = Chain("run", STEPS)
    with chain:
        chain.begin()
        assert lines() == ["[run] step 1 of 4: cam"]
        with Meter("train_cam", 40, unit="steps") as meter:
            _update(meter, clock, 10, 20, 30)
            assert meter.eta_s() == pytest.approx(5)
            assert chain.eta_s() is None  # no masks were made yet
        assert lines() == ["[cam] done: 30 of 40 steps in 15 s"]
        chain.measured(5)
        chain.begin()
        assert lines() == ["[run] step 2 of 4: round-1/masks, round 1 of 2"]
        with Meter("label", 40, unit="images") as meter:
            _update(meter, clock, 10, 20, 30)
            display.say_if_due()
            # 20 s for these masks, and as much for the others
            assert lines() == ["[round-1/masks] 30 of 40 images, ETA 5 s; ETA of the run 25 s"]
        job("label").say(SKIPPED)
        assert lines()[-1] == "[round-1/masks] skipped (already complete)"
        chain.measured(18)
        chain.begin()
        assert lines() == ["[run] step 3 of 4: masks, round 2 of 2, ETA of the run 18 s"]
        chain.begin()
        assert lines() == ["[run] step 4 of 4: report"]


def test_start_of_a_command_is_shown_until_it_has_started(clock: Clock, lines: Callable[[], list[str]]) -> None:
    block = starting("label")
    display.say_if_due()
    assert lines() == []
    block.announce()
    block.announce()
    assert lines() == ["[label] starting"]
    started()
    clock.now += 100
    display.say_if_due()
    assert lines() == []
    assert display.innermost is None
