"""Train the segmentation network on the masks: ``python -m jobs.train_segmentation``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from engine.config import SegmentationConfig
from engine.runs.inputs import made_with, shard_source
from engine.runs.options import OptionalText, TrainOptions, check_fraction
from engine.runs.shards import claim
from engine.runs.training import WRITES, held_out, train, training_settings
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSegmentation(TrainOptions):
    """Train the segmentation network with full supervision on synthesized masks."""

    masks: str
    """Folder of mask shards that jobs.label wrote."""
    start: OptionalText = ""
    """Folder of jobs.train_cam, or of this job: start from that network, which knows the classes, not from ImageNet."""
    min_confidence: float = 0.0
    """Masks with less confidence are not learned from, 0 to 1; 0 takes all."""
    segmentation_network: Annotated[SegmentationConfig, tyro.conf.arg(name="segmentation")]
    """The segmentation network."""

    def __post_init__(self) -> None:
        TrainOptions.__post_init__(self)
        check_fraction("min_confidence", self.min_confidence)


def run(config: TrainSegmentation) -> dict[str, Any]:
    """Train the network; writes ``weights.safetensors``, ``run.json`` and ``summary.json`` under ``--out``."""
    made = made_with(config.masks, ("label", "segment"), "--masks", data=config.data)
    network = held_out(config.segmentation_network, config)
    settings = training_settings("segmentation", network)
    if config.min_confidence:
        settings["min_confidence"] = config.min_confidence
    inputs = {"masks": made.hash}
    if config.start:
        inputs["start"] = weights_hash(config.start)
        network = replace(network, weights=weights_file(config.start))
    claimed = claim(
        "train_segmentation",
        config,
        settings,
        inputs,
        rows_per_shard=made.manifest.rows_per_shard,
        class_names=made.manifest.class_names,
        writes=WRITES,
        needs_tags=False,
    )
    source = shard_source(
        config,
        claimed,
        config.masks,
        "mask",
        confidence_power=network.confidence_power,
        min_confidence=config.min_confidence,
    )
    return train(config, claimed, network, source)


if __name__ == "__main__":
    sys.exit(main(TrainSegmentation, run))
