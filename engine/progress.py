"""Report progress on standard error, through :mod:`engine.display`.

    with job("label"):                          # prefix of each line
        with doing("reading manifest"):         # work of unknown length
            ...
        with Meter("label", 500, unit="images") as meter:
            meter.update(12, "3.1 images/s")

Blocks can be nested; the innermost is shown, together with the chain that it is a step of. A leaf.
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from engine.display import Block, display, duration

SKIPPED = "skipped (already complete)"
KNOWN_AFTER_S, KNOWN_AFTER_UPDATES = 5.0, 3
"""Minimum time and number of updates before an ETA is shown."""


class job(Block):
    """A job; its name is the prefix of its lines."""


class doing(Block):
    """Work of unknown length, such as ``starting Ray``; announced by a line if it takes long."""

    def __init__(self, what: str, *, name: str = "") -> None:
        super().__init__(name)
        self._what = what
        self.is_announced = False

    def status(self) -> str:
        lasts_s = time.monotonic() - self.start
        return f"{self._what} ({duration(lasts_s)})" if self.is_announced else self._what

    def announce(self) -> None:
        """Announce it now, unless a line already has."""
        self.announced_after_s = 0.0
        display.say_if_due()


class Meter(Block):
    """Progress as a count up to a total."""

    def __init__(self, name: str, total: int, *, unit: str, done: int = 0) -> None:
        """Args:
        total: the final count.
        unit: name of what is counted, in the plural.
        done: the count that an earlier run reached.
        """
        super().__init__(name)
        self._total, self._unit, self._done, self._note = total, unit, done, ""
        self._updates: deque[tuple[float, int]] = deque(maxlen=60)

    def __enter__(self) -> Self:
        super().__enter__()
        if self._done:
            self.resume_at(self._done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            lasted_s = time.monotonic() - self.start
            self.say(f"done: {self._done} of {self._total} {self._unit} in {duration(lasted_s)}")
        super().__exit__(kind, error, traceback)

    def resume_at(self, done: int) -> None:
        """Restart the count at ``done``, as when a training resumes from a checkpoint."""
        self._done, self._note = done, ""
        self._updates.clear()
        self.say(f"resuming at {self._unit.removesuffix('s')} {done} of {self._total}")

    def update(self, done: int, note: str = "") -> None:
        """Set the count.

        Args:
            done: the count so far.
            note: additional text, for example the loss.
        """
        self._done, self._note = done, note
        self._updates.append((time.monotonic(), done))

    def advance(self) -> None:
        """Count one more."""
        self.update(self._done + 1)

    def eta_s(self) -> float | None:
        updates = tuple(self._updates)
        if len(updates) < KNOWN_AFTER_UPDATES:
            return None
        # from the first update: before it, processes start, which says nothing about the rate
        (first_s, first), (last_s, last) = updates[0], updates[-1]
        if last_s - first_s < KNOWN_AFTER_S or last <= first:
            return None
        left_s = (self._total - last) * (last_s - first_s) / (last - first) - (time.monotonic() - last_s)
        return left_s if left_s > 0 else None

    def status(self) -> str:
        eta_s = self.eta_s()
        progress = "" if eta_s is None else f"ETA {duration(eta_s)}"
        if not self._updates:
            progress = f"starting ({duration(time.monotonic() - self.start)})"
        return ", ".join(filter(None, (f"{self._done} of {self._total} {self._unit}", progress, self._note)))

    def count(self) -> tuple[float, float | None]:
        return self._done, self._total


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A step of a chain."""

    name: str
    kind: str
    """Steps of the same kind take equally long per pass over the images."""
    passes: int = 1
    """Passes over the images, such as the epochs of a training; 0 for steps that take negligible time."""
    note: str = ""
    """Additional text when it starts, such as its round."""


class Chain(Block):
    """A job that runs other jobs as its steps."""

    is_whole = True

    def __init__(self, name: str, steps: Sequence[Planned]) -> None:
        super().__init__(name)
        self._steps, self._index = steps, -1
        self._seconds_per_pass: dict[str, float] = {}
        self._step_start = self.start

    def begin(self) -> None:
        """Start the next step."""
        self._index += 1
        self._step_start = time.monotonic()
        self.say(self.status())

    def measured(self, seconds_per_pass: float) -> None:
        """Record the speed of the current step, measured now or in the run that completed it."""
        self._seconds_per_pass[self._steps[self._index].kind] = seconds_per_pass

    def eta_s(self) -> float | None:
        """Seconds until all steps are done, once every kind of remaining step has been measured."""
        step, left, known = self._steps[self._index], self._steps[self._index + 1 :], {**self._seconds_per_pass}
        inner, lasts_s = display.innermost, time.monotonic() - self._step_start
        own_s = None if inner is None or inner is self else inner.eta_s()
        if own_s is not None and step.passes:
            known[step.kind] = (lasts_s + own_s) / step.passes
        elif step.kind in known:
            own_s = max(0.0, known[step.kind] * step.passes - lasts_s)
        if own_s is None or any(later.passes and later.kind not in known for later in left):
            return None
        return own_s + sum(known[later.kind] * later.passes for later in left if later.passes)

    def status(self) -> str:
        if self._index < 0:
            return super().status()
        step, eta_s = self._steps[self._index], self.eta_s()
        whole = "" if eta_s is None else f"ETA of the run {duration(eta_s)}"
        return ", ".join(filter(None, (f"step {self._index + 1} of {len(self._steps)}: {step.name}", step.note, whole)))

    def count(self) -> tuple[float, float | None]:
        return max(0, self._index), len(self._steps)

    def inner_name(self) -> str:
        return self._steps[self._index].name if self._index >= 0 else self.name


_starting: list[doing] = []


def starting(name: str) -> doing:
    """Show that a job is starting, until :func:`started`."""
    block = doing("starting", name=name)
    block.announced_after_s = 1.5  # late enough that an error in the options is the only line
    _starting.append(block.__enter__())
    atexit.register(started)  # restore the cursor of a terminal
    return block


def started() -> None:
    """End :func:`starting`: the job shows its own progress from now on."""
    while _starting:
        _starting.pop().__exit__(None, None, None)
