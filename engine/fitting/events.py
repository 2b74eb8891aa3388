"""Progress events of a training, and the clock that measures its speed."""

from __future__ import annotations

import time
from dataclasses import dataclass

REPORT_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStarted:
    """The workers are ready: at the start, and each time that they resume from a checkpoint after losing a worker."""

    step: int
    """Steps that were completed earlier."""
    num_steps: int
    num_workers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingProgress:
    """Progress since the last report."""

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    images_per_s: float
    waiting: float
    """Fraction of the time spent waiting for images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingValidated:
    """Scores on the held-out images."""

    step: int
    scores: dict[str, float]
    """The first entry selects the best weights; ``loss`` is one of the others."""
    is_best: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingDiverged:
    """The loss became NaN and all workers stopped, without a checkpoint of this step."""

    step: int


TrainingEvent = TrainingStarted | TrainingProgress | TrainingValidated


class Clock:
    """Images per second and the fraction of time spent waiting for them, since the last report."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        """Start over, so that the time since the last report does not count."""
        self._start = time.monotonic()
        self._steps = 0
        self._waited = 0.0

    def waiting(self) -> Clock:
        """A ``with`` block that waits for the images of a step."""
        return self

    def __enter__(self) -> None:
        self._wait_start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._waited += time.monotonic() - self._wait_start
        self._steps += 1

    def is_due(self) -> bool:
        """Whether a report is due."""
        return time.monotonic() - self._start >= REPORT_EVERY_S

    def progress(self, step: int, num_steps: int, loss: float, learning_rate: float) -> TrainingProgress:
        """Return the report and start over."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        progress = TrainingProgress(
            step=step,
            num_steps=num_steps,
            loss=loss,
            learning_rate=learning_rate,
            images_per_s=self._steps * self._batch_size / elapsed,
            waiting=min(1.0, self._waited / elapsed),
        )
        self.reset()
        return progress
