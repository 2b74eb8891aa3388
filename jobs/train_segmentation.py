"""Train the segmentation network on the masks: ``python -m jobs.train_segmentation``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Annotated, Any

from engine.config import Settings
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource
from engine.runs.images import ImageSet
from engine.runs.options import DataOptions, StartsFrom, Uses
from engine.runs.output import claim, earlier_output
from engine.runs.training import WRITES, MakeObjective, train, training_paths
from engine.storage.filesystem import absolute, join
from engine.storage.run_record import WORK_FOLDER
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSegmentation(DataOptions):
    """Train the segmentation network with full supervision on synthesized masks."""

    masks: Annotated[str, StartsFrom()]
    """Folder of mask shards, the output of jobs.label or jobs.segment."""
    start: str = ""
    """Output folder of jobs.train_cam or of this job, to start from that network rather than from ImageNet weights."""
    settings: Annotated[Settings, Uses("segmentation", "val_fraction")]


def run(
    config: TrainSegmentation, images: ImageSet | None = None, *, make_objective: MakeObjective = Objective.of
) -> dict[str, Any]:
    """Train the network; writes ``weights.safetensors``, ``run.json`` and ``summary.json`` to the output folder."""
    images = images or ImageSet(config)
    network = config.settings.segmentation
    uses = training_paths("segmentation", network)
    made = earlier_output(config.masks, ("label", "segment"), thing="masks", images=images)
    inputs = {"masks": made.hash}
    if config.start:
        inputs["start"] = weights_hash(config.start)
        network = replace(network, weights=weights_file(config.start))
    claimed = claim(
        "train_segmentation",
        config,
        images,
        uses=uses,
        inputs=inputs,
        rows_per_shard=made.manifest.rows_per_shard,
        class_names=made.manifest.class_names,
        writes=WRITES,
        needs_tags=False,
    )
    source = SampleSource(
        manifest=join(absolute(config.out), WORK_FOLDER),
        target="mask",
        shards=absolute(config.masks),
        rows_of_shards=claimed.manifest.rows_of_shards,
        num_classes=len(claimed.manifest.class_names),
        confidence_power=network.confidence_power,
        min_confidence=network.min_confidence,
        max_pixels=config.max_pixels,
    )
    return train(config, claimed, network, source, make_objective=make_objective)


if __name__ == "__main__":
    sys.exit(main(TrainSegmentation, run))
