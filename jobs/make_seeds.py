"""Make the affinity labels that train AffinityNet: ``python -m jobs.make_seeds``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from engine.chain import seed_chain
from engine.config import Settings, map_paths
from engine.networks import MAP_KINDS, check_map_network, map_kind
from engine.records import seed_schema
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions, Uses
from engine.runs.output import claim, network_classes
from engine.runs.shards import label_shards
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeSeeds(ShardOptions):
    """Find the cells of each image that are certainly one class or certainly background."""

    cam: str
    """Output folder of jobs.train_cam or jobs.train_segmentation."""
    settings: Annotated[Settings, Uses("cam.inference", "later_maps", "seed", "shards")]


def run(config: MakeSeeds, images: ImageSet | None = None) -> dict[str, Any]:
    """Write a seed for every image as Parquet shards to the output folder."""
    images, settings = images or ImageSet(config), config.settings
    kind = map_kind(config.cam)
    check_map_network(config.cam, settings.maps_of(kind).inference)
    class_names = network_classes(config.cam, MAP_KINDS, images)
    claimed = claim(
        "make_seeds",
        config,
        images,
        uses=(map_paths(kind)[0], "seed", "shards"),
        inputs={"cam": weights_hash(config.cam)},
        rows_per_shard=settings.shards.rows_per_shard,
        class_names=class_names,
    )
    chain = seed_chain(
        settings, kind, cam=weights_file(config.cam), num_classes=len(class_names), max_pixels=config.max_pixels
    )
    return label_shards(config, claimed, schema=seed_schema(metadata=claimed.metadata), steps=chain)


if __name__ == "__main__":
    sys.exit(main(MakeSeeds, run))
