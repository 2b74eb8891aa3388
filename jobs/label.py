"""Label images: CAM, random walk, dense CRF, Parquet mask shards: ``python -m jobs.label``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from engine.chain import label_chain
from engine.config import Settings, map_paths
from engine.errors import ConfigError
from engine.networks import MAP_KINDS, check_map_network, map_kind, read_architecture
from engine.records import mask_schema
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions, Uses
from engine.runs.output import claim, network_classes
from engine.runs.shards import label_shards
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Label(ShardOptions):
    """Make a mask for every image from its tags."""

    cam: str
    """Output folder of jobs.train_cam; or of jobs.train_segmentation, for the maps of a later round (--later-maps,
    --later-walk)."""
    affinity: str = ""
    """Output folder of jobs.train_affinity; not needed if the walk has 0 steps."""
    keep_stages: bool = False
    """Also write the masks of the CAM alone and of the walk without dCRF: columns mask_cam and mask_walk."""
    profile: bool = False
    """Print where the time went, by stage, and write it to summary.json."""
    settings: Annotated[
        Settings,
        Uses(
            "cam.inference",
            "affinity.inference",
            "walk",
            "later_maps",
            "later_walk",
            "pamr",
            "crf",
            "confidence",
            "shards",
        ),
    ]


def run(config: Label, images: ImageSet | None = None) -> dict[str, Any]:
    """Write a mask, or an error, for every image of the manifest as Parquet shards to the output folder."""
    images, settings = images or ImageSet(config), config.settings
    kind = map_kind(config.cam)
    maps = settings.maps_of(kind)
    check_map_network(config.cam, maps.inference)
    class_names = network_classes(config.cam, MAP_KINDS, images)
    uses = [*map_paths(kind), "affinity.inference", "crf", "confidence", "shards"]
    if settings.pamr.num_iterations > 0:
        uses.append("pamr")
    inputs = {"cam": weights_hash(config.cam), "keep_stages": str(config.keep_stages)}
    if maps.walk.num_steps > 0:
        if not config.affinity:
            walk = map_paths(kind)[1]
            raise ConfigError(
                f"is missing; give the output folder of jobs.train_affinity, or set {walk}.num_steps to 0",
                thing="affinity",
            )
        read_architecture(config.affinity, "affinity")
        inputs["affinity"] = weights_hash(config.affinity)
    claimed = claim(
        "label",
        config,
        images,
        uses=uses,
        inputs=inputs,
        rows_per_shard=settings.shards.rows_per_shard,
        class_names=class_names,
    )
    chain = label_chain(
        settings,
        kind,
        cam=weights_file(config.cam),
        affinity=weights_file(config.affinity),
        num_classes=len(class_names),
        max_pixels=config.max_pixels,
        keep_stages=config.keep_stages,
    )
    schema = mask_schema(keep_stages=config.keep_stages, metadata=claimed.metadata)
    return label_shards(config, claimed, schema=schema, steps=chain, with_profile=config.profile)


if __name__ == "__main__":
    sys.exit(main(Label, run))
