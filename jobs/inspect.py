"""Inspect a data set before a run: ``python -m jobs.inspect``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from engine.config import Settings
from engine.runs.images import ImageSet
from engine.runs.inspection import inspect_images, lines_of
from engine.runs.options import DataOptions, Uses
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspect(DataOptions):
    """Report what is in a data set, what is odd about it and what to do, and estimate the time, memory and disk of
    jobs.run."""

    predict: bool = True
    """Time a few images with untrained networks to estimate a run; takes up to a minute."""
    settings: Annotated[Settings, Uses.everything()]


def run(config: Inspect, images: ImageSet | None = None) -> dict[str, Any]:
    """Print and write ``inspection.json``; see :func:`engine.runs.inspection.inspect_images`."""
    result = inspect_images(config, images or ImageSet(config), predict=config.predict)
    for line in lines_of(result):
        print(line)
    return result


if __name__ == "__main__":
    sys.exit(main(Inspect, run))
