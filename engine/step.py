"""One stage of a chain, and the kind of actor that runs it. A leaf: importing it loads no stage, so that actors
which only read images start without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from engine.records import Batch

Stage = Callable[[Batch], Batch]
Actor = Literal["network", "crf"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A stage, how to build it, and the kind of actor that runs it."""

    name: str
    """Name of the stage, also in the ``error`` column."""
    build: Callable[[], Stage]
    """Builds the stage in the process that runs it."""
    on: Actor
    """``network``: an actor with the networks' device; ``crf``: a CPU actor for full-size images."""
