"""Progress of what lasts, on the screen: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class Meter:
    """A named count up to a total, used as a ``with`` block."""

    def __init__(self, name: str, total: int, *, unit: str, done: int = 0) -> None:
        """Args:
        total: where the count ends.
        unit: what is counted, in the plural.
        done: what an earlier run has done already.
        """
        self._name, self._total, self._unit = name, total, unit
        self._first = self._done = done
        self._start = time.monotonic()
        self._last_line = self._start
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(f"{unit} {{task.fields[note]}}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(name, total=total, completed=done, note="")

    def __enter__(self) -> Meter:
        if self._bar is not None:
            self._bar.start()
        elif self._first:
            self.say(f"{self._first} of {self._total} {self._unit} were done before")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self.say(f"{self._done} of {self._total} {self._unit} in {time.monotonic() - self._start:.0f} s")

    def go_on(self, done: int) -> None:
        """Start to count again from what turns out to be done already."""
        self._first = self._done = done
        self._start = self._last_line = time.monotonic()
        self.say(f"resuming at {self._unit.removesuffix('s')} {done} of {self._total}")

    def update(self, done: int, note: str = "") -> None:
        """Say how far it is.

        Args:
            done: the count so far.
            note: what else is worth a look, for example the loss.
        """
        self._done = done
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif now - self._last_line >= LINE_EVERY_S and done < self._total:
            self._last_line = now
            rate = (done - self._first) / (now - self._start)
            left = f"{(self._total - done) / rate:.0f} s left" if rate > 0 else "starting"
            self.say(f"{done} of {self._total} {self._unit}, {left}" + (f", {note}" if note else ""))

    def say(self, text: str) -> None:
        """A line for the screen."""
        if self._bar is not None:
            self._bar.console.print(f"[{self._name}] {text}", markup=False, highlight=False)
        else:
            print(f"[{self._name}] {text}", file=sys.stderr, flush=True)
