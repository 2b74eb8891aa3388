"""Train the segmentation network on the masks: ``python -m jobs.train_segmentation``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
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
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSegmentation(DataOptions):
    """Train the segmentation network with the masks as full supervision."""

    masks: Annotated[str, StartsFrom()]
    """Output folder of jobs.label or jobs.segment."""
    start: str = ""
    """Output folder of jobs.train_cam or of this job, to initialize the network from instead of ImageNet weights."""
    settings: Annotated[Settings, Uses("segmentation", "val_fraction")]


def run(
    config: TrainSegmentation, images: ImageSet | None = None, *, make_objective: MakeObjective = Objective.of
) -> dict[str, Any]:
    """Train the network; see :func:`engine.runs.training.train`."""
    images, network = images or ImageSet(config), config.settings.segmentation
    made = earlier_output(config.masks, ("label", "segment"), thing="masks", images=images)
    inputs = {"masks": made.hash}
    if config.start:
        inputs["start"] = weights_hash(config.start)
        network = replace(network, weights=weights_file(config.start))
    samples = partial(
        SampleSource,
        target="mask",
        shards=absolute(config.masks),
        confidence_power=network.confidence_power,
        min_confidence=network.min_confidence,
    )
    return train(
        "segmentation",
        config,
        images,
        network,
        samples,
        inputs=inputs,
        made=made,
        needs_tags=False,
        make_objective=make_objective,
    )


if __name__ == "__main__":
    sys.exit(main(TrainSegmentation, run))
