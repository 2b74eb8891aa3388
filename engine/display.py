"""What standard error shows of progress: bars on a terminal; elsewhere lines, at least one every ten seconds.

:mod:`engine.progress` has the blocks that it shows.
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
"""Longest silence where there is no terminal: ten seconds, less what a busy machine takes for a line."""
_TICK_S = 0.25


class Block:
    """Something that is going on, while a ``with`` block lasts."""

    is_whole = False
    """Whether it is shown beside the blocks inside it, and names their lines."""
    is_announced = True
    """Whether a line has told of it, or none has to."""
    announced_after_s = 1.0
    """Work that takes less is not worth a line."""

    def __init__(self, name: str = "") -> None:
        """Args:
        name: what its lines begin with; that of the block around it by default.
        """
        self.name = name
        self.start = time.monotonic()

    def status(self) -> str:
        """What is going on, as a line."""
        return f"running for {duration(time.monotonic() - self.start)}"

    def eta_s(self) -> float | None:
        """Seconds until it is done, once they are known."""
        return None

    def count(self) -> tuple[float, float | None]:
        """How far it is, and where it ends: None if that is unknown."""
        return 0, None

    def inner_name(self) -> str:
        """What the lines of the blocks inside it begin with."""
        return self.name

    def say(self, text: str) -> None:
        """Print a line about it."""
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
    """Shows the innermost block, and a whole around it; nothing while there is no block."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._blocks: list[Block] = []
        self._said_at = 0.0
        self._stop = threading.Event()
        self._stream: TextIO | None = None
        self._live: Live | None = None

    def enter(self, block: Block) -> None:
        """A block begins; the first opens the display, unless it has no name: nobody asked a library for progress."""
        with self._lock:
            if not (self._blocks or block.name):
                return
            self._blocks.append(block)
            if len(self._blocks) == 1:
                self._open()

    def leave(self, block: Block) -> None:
        """A block ends; the last closes the display."""
        with self._lock:
            if block not in self._blocks:
                return
            self._blocks.remove(block)
            if self._blocks:
                return
            self._stop.set()
            live, stream = self._live, self._stream
            self._live, self._stream = None, None
        if live is not None:  # outside of the lock, which the thread that it waits for may want
            live.stop()
        if stream is not None:
            stream.close()

    @property
    def innermost(self) -> Block | None:
        """What is going on now."""
        return next(reversed(tuple(self._blocks)), None)

    def say(self, text: str, block: Block) -> None:
        """Print a line about a block, above the bars."""
        with self._lock:
            line = f"[{self._name(block)}] {text}"
            self._said_at = time.monotonic()
            if self._live is not None:
                self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
                return
            with suppress(OSError):  # its reader has left
                print(line, file=self._stream or sys.stderr, flush=True)

    def say_if_due(self) -> None:
        """Print what is going on if no line has told of it, or after a long silence; bars show it anyway."""
        with self._lock:
            block = self.innermost
            if block is None or self._live is not None:
                return
            now = time.monotonic()
            is_news = not block.is_announced and now - block.start >= block.announced_after_s
            if is_news or now - self._said_at >= LINE_EVERY_S:
                whole = self._whole()
                whole_s = None if whole is None or whole is block else whole.eta_s()
                beside = "" if whole_s is None else f"; ETA of the run {duration(whole_s)}"
                self.say(block.status() + beside, block)
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
        with suppress(OSError, ValueError):  # it is closed, or no file
            # its own, as the start of Ray holds back what comes through the other
            self._stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", errors="replace")
        if self._stream is not None and self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._bars,
                console=Console(file=self._stream),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # else results would leave their file for the terminal
            )
            self._live.start()
        else:
            threading.Thread(target=self._tick, args=(self._stop,), name="progress", daemon=True).start()

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(_TICK_S):
            self.say_if_due()

    def _bars(self) -> RenderableType:
        """A row for the whole and one for the innermost block."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        # without the lock: rich holds its own here, and :meth:`say` takes both the other way round
        table = Table.grid(padding=(0, 1))
        for block in dict.fromkeys((self._whole(), self.innermost)):
            if block is not None:
                done, total = block.count()
                bar = ProgressBar(total=total, completed=done, pulse=total is None, width=24)
                table.add_row(Text(self._name(block)), bar, Text(block.status()))
        return table


display = Display()
"""Of this process."""


def duration(seconds: float) -> str:
    """Seconds in the units that say enough: ``70 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
