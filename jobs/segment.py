"""Segment images with the trained network: ``python -m jobs.segment``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from engine.chain import segment_chain
from engine.config import Settings
from engine.records import mask_schema
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions, StartsFrom, Uses
from engine.runs.output import claim, trained_network
from engine.runs.shards import label_shards
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentImages(ShardOptions):
    """Make a mask for every image with the segmentation network; tags are optional."""

    segmentation: Annotated[str, StartsFrom()]
    """Output folder of jobs.train_segmentation."""
    use_tags: bool = False
    """Restrict each mask to background and the classes of the image's tags."""
    settings: Annotated[Settings, Uses("segmentation.inference", "crf", "confidence", "shards")]


def run(config: SegmentImages, images: ImageSet | None = None) -> dict[str, Any]:
    """Write Parquet shards with a mask or an error for every image of the manifest."""
    images, settings = images or ImageSet(config), config.settings
    network = trained_network(config.segmentation, "segmentation", images, thing="segmentation")
    claimed = claim(
        "segment",
        config,
        images,
        uses=("segmentation.inference", "crf", "confidence", "shards"),
        inputs={"segmentation": network.hash, "use_tags": str(config.use_tags)},
        rows_per_shard=settings.shards.rows_per_shard,
        class_names=network.class_names,
        needs_tags=config.use_tags,
        hidden=True,
    )
    chain = segment_chain(
        settings, network, use_tags=config.use_tags, decoding=claimed.manifest.decoding(config.max_pixels)
    )
    return label_shards(config, claimed, schema=mask_schema(keep_stages=False, metadata=claimed.metadata), steps=chain)


if __name__ == "__main__":
    sys.exit(main(SegmentImages, run))
