"""One stage of a chain, and the kind of actor that runs it. A leaf: it loads no stage, so actors that only read start
without torch.
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
    """A stage and how it is made."""

    name: str
    """Names the stage in the error column."""
    build: Callable[[], Stage]
    """Loads the stage in the process that runs it."""
    on: Actor
    """An actor with the networks' device, or one with a CPU for full-size images."""
