"""Train the classifier: ``python -m jobs.train_cam``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from engine.config import Settings
from engine.errors import ConfigError
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource
from engine.runs.images import ImageSet
from engine.runs.options import DataOptions, Uses
from engine.runs.output import claim
from engine.runs.tag_counts import has_tags
from engine.runs.training import WRITES, MakeObjective, train, training_paths
from engine.storage.filesystem import absolute, delete_file, delete_folder, join
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER
from jobs.cli.command import main

ROWS_PER_SHARD = 1024
"""Rows of the manifest that a loader reads at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCam(DataOptions):
    """Train the multi-label classifier on images and their tags."""

    settings: Annotated[Settings, Uses("cam", "val_fraction")]


def run(
    config: TrainCam, images: ImageSet | None = None, *, make_objective: MakeObjective = Objective.of
) -> dict[str, Any]:
    """Train the classifier; writes ``weights.safetensors``, ``run.json`` and ``summary.json`` to the output folder."""
    network = config.settings.cam
    claimed = claim(
        "train_cam",
        config,
        images or ImageSet(config),
        uses=training_paths("cam", network),
        inputs={},
        rows_per_shard=ROWS_PER_SHARD,
        writes=WRITES,
    )
    manifest = claimed.manifest
    if not has_tags(manifest):
        delete_file(join(config.out, RECORD_NAME))  # so that the corrected manifest may go here
        delete_folder(join(config.out, WORK_FOLDER))
        raise ConfigError("has no tags, so there is nothing to learn from", thing="data")
    source = SampleSource(
        manifest=join(absolute(config.out), WORK_FOLDER),
        target="tags",
        rows_of_shards=manifest.rows_of_shards,
        num_classes=len(manifest.class_names),
        max_pixels=config.max_pixels,
    )
    return train(config, claimed, network, source, make_objective=make_objective)


if __name__ == "__main__":
    sys.exit(main(TrainCam, run))
