"""Show progress on standard error: bars on a terminal, otherwise a line at least every ten seconds.

:mod:`engine.progress` has the blocks that are shown.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

LINE_EVERY_S = 8.0
"""Maximum time between lines without a terminal: ten seconds, minus a margin for a busy machine."""
_TICK_S = 0.25


class Block:
    """An activity that lasts as long as its ``with`` block."""

    is_whole = False
    """Whether it stays visible with the blocks inside it and names their lines."""
    is_announced = True
    """Whether a line has announced it, or none needs to."""
    announced_after_s = 1.0
    """Shorter activities are not announced."""

    def __init__(self, name: str = "") -> None:
        """Args:
        name: prefix of its lines; by default that of the enclosing block.
        """
        self.name = name
        self.start = time.monotonic()

    def status(self) -> str:
        """Its current state, as one line."""
        return f"running for {duration(time.monotonic() - self.start)}"

    def eta_s(self) -> float | None:
        """Estimated seconds until it is done; None while unknown."""
        return None

    def count(self) -> tuple[float, float | None]:
        """The count so far and the total; the total is None if unknown."""
        return 0, None

    def inner_name(self) -> str:
        """Prefix of the lines of the blocks inside it."""
        return self.name

    def say(self, text: str) -> None:
        """Print a line with its prefix."""
        display.say(text, self)

    def __enter__(self) -> Self:
        self.start = time.monotonic()
        display.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        display.leave(self)


class Display:
    """Shows the innermost block and the overall job around it; nothing while no block is active."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._blocks: list[Block] = []
        self._said_at = 0.0
        self._stop = threading.Event()
        self._stream: TextIO | None = None
        self._live: Live | None = None

    def enter(self, block: Block) -> None:
        """Add a block; the first opens the display, unless it has no name, as when the engine is used as a library."""
        with self._lock:
            if not (self._blocks or block.name):
                return
            self._blocks.append(block)
            if len(self._blocks) == 1:
                self._open()

    def leave(self, block: Block) -> None:
        """Remove a block; the last closes the display."""
        with self._lock:
            if block not in self._blocks:
                return
            self._blocks.remove(block)
            if self._blocks:
                return
            self._stop.set()
            live, stream = self._live, self._stream
            self._live, self._stream = None, None
        if live is not None:  # outside the lock, which the thread that this waits for may need
            live.stop()
        if stream is not None:
            stream.close()

    @property
    def innermost(self) -> Block | None:
        """The innermost active block."""
        return next(reversed(tuple(self._blocks)), None)

    def say(self, text: str, block: Block) -> None:
        """Print a line with the prefix of a block, above the bars."""
        with self._lock:
            line = f"[{self._name(block)}] {text}"
            self._said_at = time.monotonic()
            if self._live is not None:
                self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
                return
            with suppress(OSError):  # the reader of the pipe is gone
                print(line, file=self._stream or sys.stderr, flush=True)

    def say_if_due(self) -> None:
        """Print the current state if it is unannounced or after a long silence; nothing while bars show it."""
        with self._lock:
            block = self.innermost
            if block is None or self._live is not None:
                return
            now = time.monotonic()
            is_news = not block.is_announced and now - block.start >= block.announced_after_s
            if is_news or now - self._said_at >= LINE_EVERY_S:
                whole = self._whole()
                whole_s = None if whole is None or whole is block else whole.eta_s()
                overall = "" if whole_s is None else f"; ETA of the run {duration(whole_s)}"
                self.say(block.status() + overall, block)
                block.is_announced = True

    def _name(self, block: Block) -> str:
        whole = self._whole()
        if whole is not None and whole is not block:
            return whole.inner_name()
        return next(one.name for one in (block, *reversed(tuple(self._blocks))) if one.name)

    def _whole(self) -> Block | None:
        return next((block for block in tuple(self._blocks) if block.is_whole), None)

    def _open(self) -> None:
        self._stop = threading.Event()
        self._said_at = time.monotonic()
        with suppress(OSError, ValueError):  # closed, or not a file
            # a duplicate, because the original is held back while Ray starts
            self._stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", errors="replace")
        if self._stream is not None and self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._bars,
                console=Console(file=self._stream),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # otherwise results redirected to a file would go to the terminal
            )
            self._live.start()
        else:
            threading.Thread(target=self._tick, args=(self._stop,), name="progress", daemon=True).start()

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(_TICK_S):
            self.say_if_due()

    def _bars(self) -> RenderableType:
        """A row for the overall job and one for the innermost block."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        # without the lock: rich holds its own here, and :meth:`say` acquires the two in the opposite order
        table = Table.grid(padding=(0, 1))
        for block in dict.fromkeys((self._whole(), self.innermost)):
            if block is not None:
                done, total = block.count()
                bar = ProgressBar(total=total, completed=done, pulse=total is None, width=24)
                table.add_row(Text(self._name(block)), bar, Text(block.status()))
        return table


display = Display()
"""The display of this process."""


def duration(seconds: float) -> str:
    """Format seconds for a reader: ``70 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
