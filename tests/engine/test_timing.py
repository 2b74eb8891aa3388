"""Seconds by name."""

from __future__ import annotations

import time

import pytest

from engine.timing import collected, measured


def test_nested_blocks_count_their_own_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    @measured("decode")
    def decode() -> None:
        nonlocal now
        now += 2

    with collected() as seconds:
        with measured("cam"):
            now += 1
            decode()
            decode()
            now += 4
        with measured("walk"):
            now += 8
    assert seconds == {"decode": 4, "cam": 5, "walk": 8}


def test_block_that_fails_is_counted_and_leaves_no_trace() -> None:
    with collected() as seconds:
        with pytest.raises(KeyError), measured("cam"), measured("decode"):
            raise KeyError
        with measured("walk"):
            pass
    assert seconds.keys() == {"cam", "decode", "walk"}
    assert min(seconds.values()) >= 0


def test_nothing_is_collected_outside() -> None:
    with collected() as seconds:
        pass
    with measured("cam"):
        pass
    assert seconds == {}
