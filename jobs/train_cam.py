"""Train the classifier whose activation maps start everything: ``python -m jobs.train_cam``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from engine.config import CamConfig
from engine.fitting.samples import SampleSource
from engine.runs.options import TrainOptions
from engine.runs.shards import claim
from engine.runs.training import WRITES, held_out, train, training_settings
from engine.storage.filesystem import absolute, join
from engine.storage.run_record import WORK_FOLDER
from jobs.cli.command import main

ROWS_PER_SHARD = 1024
"""Rows of the manifest that a loader reads at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCam(TrainOptions):
    """Train the multi-label classifier on images and their tags."""

    cam_network: Annotated[CamConfig, tyro.conf.arg(name="cam")]
    """The classifier."""


def run(config: TrainCam) -> dict[str, Any]:
    """Train the classifier; writes ``weights.safetensors``, ``run.json`` and ``summary.json`` under ``--out``."""
    network = held_out(config.cam_network, config)
    settings = training_settings("cam", network)
    claimed = claim("train_cam", config, settings, {}, rows_per_shard=ROWS_PER_SHARD, writes=WRITES)
    manifest = claimed.manifest
    source = SampleSource(
        manifest=join(absolute(config.out), WORK_FOLDER),
        target="tags",
        rows_of_shards=manifest.rows_of_shards,
        num_classes=len(manifest.class_names),
        max_pixels=config.max_pixels,
    )
    return train(config, claimed, network, source)


if __name__ == "__main__":
    sys.exit(main(TrainCam, run))
