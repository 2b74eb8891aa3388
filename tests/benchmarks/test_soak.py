"""The growth of memory over a soak."""

from __future__ import annotations

import os

from benchmarks import soak


def test_growth_compares_the_last_quarter_with_the_second() -> None:
    samples = [{"driver": 10.0}, {"driver": 20.0}, {"driver": 90.0}, {"driver": 25.0, "late": 1.0}]
    assert soak.growth(samples) == [{"process": "driver", "warm_mb": 20.0, "end_mb": 25.0, "growth_mb": 5.0}]
    assert soak.growth(samples[:3]) == []


def test_only_marked_processes_are_seen() -> None:
    assert soak.memory_of(f"no-such-mark-{os.getpid()}") == {}
