"""Label images by CAM, random walk and dense CRF: ``python -m jobs.label``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from engine.chain import label_chain
from engine.config import Settings, map_paths
from engine.errors import ConfigError, about
from engine.networks import MAP_KINDS, check_map_network, open_network
from engine.records import mask_schema
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions, StartsFrom, Uses
from engine.runs.output import claim, trained_network
from engine.runs.shards import label_shards
from engine.storage.weights import weights_file
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Label(ShardOptions):
    """Make a mask for every image from its tags."""

    cam: Annotated[str, StartsFrom()]
    """Output folder of jobs.train_cam, or of jobs.train_segmentation for a later round (--later-maps,
    --later-walk)."""
    affinity: Annotated[str, StartsFrom("affinity.inference")] = ""
    """Output folder of jobs.train_affinity; not needed with --walk.num-steps 0."""
    keep_stages: bool = False
    """Also write intermediate masks: columns mask_cam (CAM alone) and mask_walk (walk without dCRF)."""
    profile: bool = False
    """Print the time spent in each stage and write it to summary.json."""
    settings: Annotated[
        Settings,
        Uses(
            "cam.inference",
            "affinity.inference",
            "walk",
            "later_maps",
            "later_walk",
            "crf",
            "confidence",
            "shards",
        ),
    ]


def run(config: Label, images: ImageSet | None = None) -> dict[str, Any]:
    """Write Parquet shards with a mask or an error for every image of the manifest."""
    images, settings = images or ImageSet(config), config.settings
    cam = trained_network(config.cam, MAP_KINDS, images, thing="cam")
    maps, (inference_path, walk_path) = settings.maps_of(cam.map_kind), map_paths(cam.map_kind)
    check_map_network(cam, maps.inference)
    uses = [inference_path, walk_path, "affinity.inference", "crf", "confidence", "shards"]
    inputs = {"cam": cam.hash, "keep_stages": str(config.keep_stages)}
    if maps.walk.num_steps > 0:
        if not config.affinity:
            raise ConfigError(
                f"is missing; give the output folder of jobs.train_affinity, or set {walk_path}.num_steps to 0",
                thing="affinity",
            )
        with about("affinity"):
            inputs["affinity"] = open_network(config.affinity, "affinity").hash
    claimed = claim(
        "label",
        config,
        images,
        uses=uses,
        inputs=inputs,
        rows_per_shard=settings.shards.rows_per_shard,
        class_names=cam.class_names,
        hidden=True,
    )
    affinity = weights_file(config.affinity)
    chain = label_chain(
        settings, cam, affinity, decoding=claimed.manifest.decoding(config.max_pixels), keep_stages=config.keep_stages
    )
    schema = mask_schema(keep_stages=config.keep_stages, metadata=claimed.metadata)
    return label_shards(config, claimed, schema=schema, steps=chain, with_profile=config.profile)


if __name__ == "__main__":
    sys.exit(main(Label, run))
