"""Train the classifier: ``python -m jobs.train_cam``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from engine.config import Settings
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource
from engine.runs.images import ImageSet
from engine.runs.options import DataOptions, Uses
from engine.runs.training import MakeObjective, train
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCam(DataOptions):
    """Train the multi-label classifier on images and their tags."""

    settings: Annotated[Settings, Uses("cam", "val_fraction")]


def run(
    config: TrainCam, images: ImageSet | None = None, *, make_objective: MakeObjective = Objective.of
) -> dict[str, Any]:
    """Train the classifier; see :func:`engine.runs.training.train`."""
    images, samples = images or ImageSet(config), partial(SampleSource, target="tags")
    return train("cam", config, images, config.settings.cam, samples, inputs={}, make_objective=make_objective)


if __name__ == "__main__":
    sys.exit(main(TrainCam, run))
