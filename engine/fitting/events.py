"""What a training says while it runs, and the clock behind it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

REPORT_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStarted:
    """The workers are ready; also after a worker was lost and all go on from the last checkpoint."""

    step: int
    """Steps that are done already."""
    num_steps: int
    num_workers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingProgress:
    """Where a run is."""

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    images_per_s: float
    waiting: float
    """Fraction of the time in which the network waited for images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingValidated:
    """What the network scores on the images that it never learns from."""

    step: int
    scores: dict[str, float]
    """The first entry decides which weights are the best; ``loss`` is among the others."""
    is_best: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingDiverged:
    """The loss is no number any more, so all workers stopped; nothing of it was kept."""

    step: int


TrainingEvent = TrainingStarted | TrainingProgress | TrainingValidated


class MeanLoss:
    """Mean of the losses since it was last taken, without a device synchronisation a step."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []

    def add(self, value: Tensor) -> None:
        """Count one step's loss."""
        self._values.append(value)

    def take(self) -> float:
        """The mean; counting starts anew."""
        mean = float(torch.stack(self._values).mean())
        self._values = []
        return mean


class Clock:
    """Images a second, and the share of the time that was spent waiting for them, since the last report."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        """Start anew: what was done since does not count as training."""
        self._start = time.monotonic()
        self._steps = 0
        self._waited = 0.0

    def waiting(self) -> Clock:
        """A ``with`` block in which a step's images are waited for."""
        return self

    def __enter__(self) -> None:
        self._wait_start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._waited += time.monotonic() - self._wait_start
        self._steps += 1

    def is_due(self) -> bool:
        """Whether it is time for a report."""
        return time.monotonic() - self._start >= REPORT_EVERY_S

    def progress(self, step: int, num_steps: int, loss: float, learning_rate: float) -> TrainingProgress:
        """The report; counting starts anew."""
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
