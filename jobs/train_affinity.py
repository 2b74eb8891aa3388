"""Train AffinityNet on the seeds: ``python -m jobs.train_affinity``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
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
    """Train AffinityNet; writes ``weights.safetensors``, ``run.json`` and ``summary.json`` to the output folder."""
    images = images or ImageSet(config)
    network = config.settings.affinity
    made = earlier_output(config.seeds, ("make_seeds",), thing="seeds", images=images)
    claimed = claim(
        "train_affinity",
        config,
        images,
        uses=training_paths("affinity", network),
        inputs={"seeds": made.hash},
        rows_per_shard=made.manifest.rows_per_shard,
        class_names=made.manifest.class_names,
        writes=WRITES,
    )
    source = SampleSource(
        manifest=join(absolute(config.out), WORK_FOLDER),
        target="seed",
        shards=absolute(config.seeds),
        rows_of_shards=claimed.manifest.rows_of_shards,
        num_classes=len(claimed.manifest.class_names),
        grid_stride=network.grid_stride,
        max_pixels=config.max_pixels,
    )
    return train(config, claimed, network, source, make_objective=make_objective)


if __name__ == "__main__":
    sys.exit(main(TrainAffinity, run))
