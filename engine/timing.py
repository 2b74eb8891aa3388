"""Measure where time is spent: seconds by name, from ``with measured(name)`` blocks.

The time of a block excludes that of the blocks nested in it, so the seconds add up. Outside :func:`collected` a block
costs next to nothing, inside a few microseconds. Asynchronous GPU work counts where its result is awaited. A leaf.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Open(threading.local):
    seconds: dict[str, float] | None = None
    inner: list[float]
    """For each open block, the seconds spent in the blocks nested in it."""


_open = _Open()


@contextmanager
def collected() -> Iterator[dict[str, float]]:
    """Collect the measurements of this thread in a dict of seconds by name, updated as measured blocks end."""
    before = _open.seconds, getattr(_open, "inner", [])
    _open.seconds, _open.inner = {}, []
    try:
        yield _open.seconds
    finally:
        _open.seconds, _open.inner = before


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Measure a block, or as ``@measured(name)`` a function, excluding the blocks nested in it."""
    seconds = _open.seconds
    if seconds is None:
        yield
        return
    inner = _open.inner
    inner.append(0.0)
    start = time.perf_counter()
    try:
        yield
    finally:
        elapsed = time.perf_counter() - start
        seconds[name] = seconds.get(name, 0.0) + elapsed - inner.pop()
        if inner:
            inner[-1] += elapsed
