"""Train AffinityNet on the seeds: ``python -m jobs.train_affinity``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from engine.config import Settings
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource
from engine.runs.images import ImageSet
from engine.runs.options import DataOptions, StartsFrom, Uses
from engine.runs.output import earlier_output
from engine.runs.training import MakeObjective, train
from engine.storage.filesystem import absolute
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainAffinity(DataOptions):
    """Train AffinityNet on the seeds of the same images."""

    seeds: Annotated[str, StartsFrom()]
    """Output folder of jobs.make_seeds."""
    settings: Annotated[Settings, Uses("affinity", "val_fraction")]


def run(
    config: TrainAffinity, images: ImageSet | None = None, *, make_objective: MakeObjective = Objective.of
) -> dict[str, Any]:
    """Train AffinityNet; see :func:`engine.runs.training.train`."""
    images, network = images or ImageSet(config), config.settings.affinity
    made = earlier_output(config.seeds, ("make_seeds",), thing="seeds", images=images)
    samples = partial(SampleSource, target="seed", shards=absolute(config.seeds), grid_stride=network.grid_stride)
    return train(
        "affinity",
        config,
        images,
        network,
        samples,
        inputs={"seeds": made.hash},
        made=made,
        make_objective=make_objective,
    )


if __name__ == "__main__":
    sys.exit(main(TrainAffinity, run))
