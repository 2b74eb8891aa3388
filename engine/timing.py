"""Where the time goes: seconds by name, measured where a ``with measured(name)`` block stands.

Of nested blocks each counts its own time alone, so the seconds add up. Outside of :func:`collected` a block costs
nothing but a look; inside some microseconds. Work that a GPU does later counts where its result is waited for. A leaf.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Open(threading.local):
    seconds: dict[str, float] | None = None
    inner: list[float]
    """For each open block what the blocks inside it took."""


_open = _Open()


@contextmanager
def collected() -> Iterator[dict[str, float]]:
    """Collect what this thread measures until the block ends; the seconds by name fill up as blocks close."""
    before = _open.seconds, getattr(_open, "inner", [])
    _open.seconds, _open.inner = {}, []
    try:
        yield _open.seconds
    finally:
        _open.seconds, _open.inner = before


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Count the time of a block, or as ``@measured(name)`` of a function, without that of the blocks inside it."""
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
        took = time.perf_counter() - start
        seconds[name] = seconds.get(name, 0.0) + took - inner.pop()
        if inner:
            inner[-1] += took
