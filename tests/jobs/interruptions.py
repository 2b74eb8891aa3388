"""Signals at random moments of the whole chain; benchmarks/signals.py has the long form."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.storage.shards import read_shards
from tests.jobs.small_runs import CHAIN_SETTINGS, Run, started, write_settings

ENDS_WITHIN_S = 10.0
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
JOB_LIMIT_S = 1800.0


@dataclass(kw_only=True)
class Interruptions:
    """A chain that is interrupted again and again, and resumed until it is done; then another."""

    scenes: Path
    """Folder of the manifest and the truth."""
    calm: Path
    """Output of a chain that nothing disturbed."""
    folder: Path
    """For the chain that is interrupted."""
    rng: random.Random
    longest_s: float
    """A signal comes at a random moment of so many seconds after the first line of the job."""
    tell: Callable[[str], None] = lambda line: None
    """Called with a line a signal."""
    told: list[dict[str, Any]] = field(default_factory=list)
    num_chains: int = 0
    """Chains that were resumed to their end, with the masks of the undisturbed one."""

    def run(self, num_signals: int) -> None:
        """Send so many signals, and resume the last chain until it is done."""
        while len(self.told) < num_signals:
            self._interrupt()
        while not self._is_done():
            with self._started() as run:
                status, said = run.finish(JOB_LIMIT_S)
            assert status == 0, said
        self._check_end()

    def _started(self) -> AbstractContextManager[Run]:
        return started("run", *chain_options(self.scenes, self.folder / "hurt"))

    def _is_done(self) -> bool:
        return (self.folder / "hurt" / "report.html").exists()

    def _interrupt(self) -> None:
        """Start or resume the chain, and send it a signal or two."""
        if self._is_done():
            self._check_end()
        number = self.rng.choice(list(STATUS))
        is_double = self.rng.random() < 0.3
        with self._started() as run:
            said = _Lines(run)
            first_line_s = said.wait_for_first()
            after_s = self.rng.uniform(0, self.longest_s)
            if said.wait_for_end(after_s):
                assert run.process.wait() == 0, said.text()
                return  # it was faster
            _send(run, number)
            start = time.monotonic()
            if is_double:
                time.sleep(self.rng.uniform(0, 1))
                _send(run, self.rng.choice(list(STATUS)))
            status = run.process.wait(60)
            took_s = time.monotonic() - start
            left = run.processes()
            said.wait_for_end(10)
        *before, last = ["", *said.text().splitlines()]
        kind = f"{number.name} {'twice' if is_double else ''}".strip()
        done: dict[str, Any] = {"signal": kind, "after_s": after_s, "status": status, "ends_after_s": took_s}
        self.told.append(done | {"first_line_s": first_line_s, "during": before[-1]})
        self.tell(f"{len(self.told)}: {kind} {after_s:.1f} s after '{before[-1]}': {status} in {took_s:.2f} s")
        if status == 0:  # done at that very moment
            assert self._is_done(), said.text()
            return
        assert status == STATUS[number], said.text()
        assert took_s < ENDS_WITHIN_S, said.text()
        assert left == {}, left
        assert last == f"interrupted: completed work in '{self.folder / 'hurt'}' is kept; rerun the command to resume"
        assert "Traceback" not in said.text()

    def _check_end(self) -> None:
        """The chain has the masks of the undisturbed one; the next starts afresh."""
        for masks in ("round-1/masks", "masks", "segmented"):
            assert _masks(self.folder / "hurt" / masks) == _masks(self.calm / masks), masks
        shutil.rmtree(self.folder / "hurt")
        self.num_chains += 1


def chain_options(scenes: Path, out: Path) -> list[str]:
    """The options of the chain."""
    settings = write_settings(scenes, CHAIN_SETTINGS)
    options = {"data": scenes / "manifest.csv", "truth": scenes / "truth", "config": settings, "out": out}
    return [f"--{name}={value}" for name, value in options.items()]


class _Lines:
    """What a job says on standard error, while it runs."""

    def __init__(self, run: Run) -> None:
        assert run.process.stderr is not None
        self._stream = run.process.stderr
        self._lines: list[str] = []
        self._start = time.monotonic()
        self._first_s = 0.0
        self._first, self._end = threading.Event(), threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._stream:
            self._lines.append(line)
            self._first_s = self._first_s or time.monotonic() - self._start
            self._first.set()
        self._first.set()
        self._end.set()

    def wait_for_first(self) -> float:
        """Seconds from the start of the job to its first line."""
        assert self._first.wait(JOB_LIMIT_S)
        return self._first_s

    def wait_for_end(self, limit_s: float) -> bool:
        return self._end.wait(limit_s)

    def text(self) -> str:
        return "".join(self._lines)


def _send(run: Run, number: signal.Signals) -> None:
    try:
        os.kill(run.process.pid, number)
    except ProcessLookupError:  # it has ended
        return


def _masks(folder: Path) -> dict[str, bytes]:
    rows = [row for table in read_shards(str(folder), ("image_id", "mask")) for row in table.to_pylist()]
    return {row["image_id"]: row["mask"]["bytes"] for row in rows}
