"""Make the affinity labels for training AffinityNet: ``python -m jobs.make_seeds``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from engine.chain import seed_chain
from engine.config import Settings, map_paths
from engine.networks import MAP_KINDS, check_map_network
from engine.records import seed_schema
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions, StartsFrom, Uses
from engine.runs.output import claim, trained_network
from engine.runs.shards import label_shards
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeSeeds(ShardOptions):
    """Find the confident foreground and background cells of each image."""

    cam: Annotated[str, StartsFrom()]
    """Output folder of jobs.train_cam or jobs.train_segmentation."""
    settings: Annotated[Settings, Uses("cam.inference", "later_maps", "seed", "shards")]


def run(config: MakeSeeds, images: ImageSet | None = None) -> dict[str, Any]:
    """Write Parquet shards with a seed for every image."""
    images, settings = images or ImageSet(config), config.settings
    cam = trained_network(config.cam, MAP_KINDS, images, thing="cam")
    check_map_network(cam, settings.maps_of(cam.map_kind).inference)
    claimed = claim(
        "make_seeds",
        config,
        images,
        uses=(map_paths(cam.map_kind)[0], "seed", "shards"),
        inputs={"cam": cam.hash},
        rows_per_shard=settings.shards.rows_per_shard,
        class_names=cam.class_names,
        hidden=True,
    )
    chain = seed_chain(settings, cam, decoding=claimed.manifest.decoding(config.max_pixels))
    return label_shards(config, claimed, schema=seed_schema(metadata=claimed.metadata), steps=chain)


if __name__ == "__main__":
    sys.exit(main(MakeSeeds, run))
