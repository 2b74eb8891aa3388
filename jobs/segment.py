"""Segment images with the trained network: ``python -m jobs.segment``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from engine.config import ConfidenceConfig, CrfConfig, InferenceConfig, ShardConfig
from engine.distributed.cluster import Cluster
from engine.distributed.pipeline import Pool, Step
from engine.ops.confidence import LEVELS
from engine.plain_settings import to_dict
from engine.records import mask_schema
from engine.runs.options import ShardOptions
from engine.runs.shards import claim, label_shards, mask_pools, network_classes, shard_metadata
from engine.stages.segment import Segment
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentImages(ShardOptions):
    """Make a mask for every image with the segmentation network; it needs no tags."""

    segmentation: str
    """Folder that jobs.train_segmentation wrote."""
    use_tags: bool = False
    """Only background and the classes of an image's tags may appear in its mask."""
    segmentation_inference: Annotated[InferenceConfig, tyro.conf.arg(name="segmentation.inference")]
    """How the network looks at an image."""
    crf: CrfConfig
    """The dense CRF after the network; --crf.num-iterations 0 leaves it out."""
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    """The expected quality of a mask."""
    shards: ShardConfig
    """The output's layout."""


def run(config: SegmentImages) -> dict[str, Any]:
    """Write a mask, or an error, for every image of the manifest as Parquet shards under ``--out``."""
    class_names = network_classes(config.segmentation, "segmentation", config)
    settings = {
        "segmentation": {"inference": to_dict(config.segmentation_inference)},
        "crf": to_dict(config.crf),
        "confidence": to_dict(config.confidence),
        "shards": to_dict(config.shards),
    }
    claimed = claim(
        "segment",
        config,
        settings,
        {"segmentation": weights_hash(config.segmentation), "use_tags": str(config.use_tags)},
        rows_per_shard=config.shards.rows_per_shard,
        class_names=class_names,
        needs_tags=config.use_tags,
    )

    def pools(cluster: Cluster) -> list[Pool]:
        arguments = {
            "weights": weights_file(config.segmentation),
            "config": config.segmentation_inference,
            "device": config.resources.device,
            "images_per_pass": config.resources.images_per_pass,
            "max_pixels": config.max_pixels,
            "use_tags": config.use_tags,
        }
        mask = {
            "num_classes": len(class_names),
            "max_pixels": config.max_pixels,
            "keep_stages": False,
            "confidence": config.confidence.after(LEVELS["segmentation"]),
        }
        networks = [Step(name="segment", stage=Segment, arguments=arguments)]
        return mask_pools(networks, config.crf, mask, config.resources, cluster)

    schema = mask_schema(keep_stages=False, metadata=shard_metadata(claimed))
    return label_shards(config, claimed, schema=schema, pools=pools)


if __name__ == "__main__":
    sys.exit(main(SegmentImages, run))
