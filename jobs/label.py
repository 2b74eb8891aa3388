"""Label images: CAM, random walk, dense CRF, Parquet mask shards: ``python -m jobs.label``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from engine.config import (
    AffinityInferenceConfig,
    CamInferenceConfig,
    ConfidenceConfig,
    CrfConfig,
    InferenceConfig,
    PamrConfig,
    ShardConfig,
    WalkConfig,
)
from engine.distributed.cluster import Cluster
from engine.distributed.pipeline import Pool, Step
from engine.errors import ConfigError
from engine.networks import (
    MAP_KINDS,
    WALK_OF_KIND,
    check_map_network,
    inference_record,
    map_settings,
    read_architecture,
)
from engine.ops.confidence import LEVELS
from engine.plain_settings import to_dict
from engine.records import mask_schema
from engine.runs.options import OptionalText, ShardOptions
from engine.runs.shards import claim, label_shards, mask_pools, network_classes, shard_metadata
from engine.stages.cam import ComputeCam
from engine.stages.pamr import AdaptMaps
from engine.stages.walk import AddBackground, RefineCam
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Label(ShardOptions):
    """Make a mask for every image from its tags."""

    cam: str
    """Folder that jobs.train_cam wrote; or jobs.train_segmentation, for the maps of a second round (--recam and
    --rewalk)."""
    affinity: OptionalText = ""
    """Folder that jobs.train_affinity wrote; not needed with --walk.num-steps 0, or, where --cam is a segmentation
    network, with --rewalk.num-steps 0."""
    keep_stages: bool = False
    """Also write the masks of the CAM alone and of the walk without dCRF: columns mask_cam and mask_walk."""
    profile: bool = False
    """Print where the time went, stage by stage, and write it into summary.json."""
    cam_inference: Annotated[CamInferenceConfig, tyro.conf.arg(name="cam.inference")]
    """How the activation maps are taken."""
    recam: InferenceConfig
    """The same in the place of --cam.inference, where --cam is a segmentation network."""
    affinity_inference: Annotated[AffinityInferenceConfig, tyro.conf.arg(name="affinity.inference")]
    """How the affinities are taken."""
    walk: WalkConfig
    """Background and random walk."""
    rewalk: WalkConfig
    """The same in the place of --walk, where --cam is a segmentation network."""
    pamr: PamrConfig = field(default_factory=PamrConfig)
    """A local refinement between the walk and the dCRF, off by default."""
    crf: CrfConfig
    """The dense CRF."""
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    """The expected quality of a mask."""
    shards: ShardConfig
    """The output's layout."""


def run(config: Label) -> dict[str, Any]:
    """Write a mask, or an error, for every image of the manifest as Parquet shards under ``--out``."""
    kind = read_architecture(config.cam, MAP_KINDS).kind
    inference, walk = map_settings(kind, config)
    check_map_network(config.cam, inference)
    walk_name = WALK_OF_KIND[kind]
    walks = walk.num_steps > 0
    if walks and not config.affinity:
        raise ConfigError(
            f"--affinity is missing; give the folder of jobs.train_affinity, or --{walk_name}.num-steps 0"
        )
    settings = {
        **inference_record(kind, inference),
        "affinity": {"inference": to_dict(config.affinity_inference)},
        walk_name: to_dict(walk),
        "crf": to_dict(config.crf),
        "confidence": to_dict(config.confidence),
        "shards": to_dict(config.shards),
    }
    if config.pamr.num_iterations > 0:
        settings["pamr"] = to_dict(config.pamr)
    inputs = {"cam": weights_hash(config.cam), "keep_stages": str(config.keep_stages)}
    class_names = network_classes(config.cam, MAP_KINDS, config)
    if walks:
        read_architecture(config.affinity, "affinity")
        inputs["affinity"] = weights_hash(config.affinity)
    claimed = claim(
        "label", config, settings, inputs, rows_per_shard=config.shards.rows_per_shard, class_names=class_names
    )

    def pools(cluster: Cluster) -> list[Pool]:
        network = {
            "device": config.resources.device,
            "images_per_pass": config.resources.images_per_pass,
            "max_pixels": config.max_pixels,
        }
        cam = {"weights": weights_file(config.cam), "config": inference, **network}
        keep_cam = config.keep_stages
        if walks:
            along = {
                "weights": weights_file(config.affinity),
                "affinity": config.affinity_inference,
                "walk": walk,
                **network,
            }
            refining = Step(name="walk", stage=RefineCam, arguments={**along, "keep_cam": keep_cam})
        else:
            refining = Step(name="walk", stage=AddBackground, arguments={"config": walk, "keep_cam": keep_cam})
        mask = {
            "walk": walk,
            "num_classes": len(class_names),
            "max_pixels": config.max_pixels,
            "keep_stages": config.keep_stages,
            "confidence": config.confidence.after(LEVELS[kind]),
        }
        networks = [Step(name="cam", stage=ComputeCam, arguments=cam), refining]
        if config.pamr.num_iterations > 0:
            networks.append(Step(name="pamr", stage=AdaptMaps, arguments={"config": config.pamr, **network}))
        return mask_pools(networks, config.crf, mask, config.resources, cluster)

    schema = mask_schema(keep_stages=config.keep_stages, metadata=shard_metadata(claimed))
    return label_shards(config, claimed, schema=schema, pools=pools, with_profile=config.profile)


if __name__ == "__main__":
    sys.exit(main(Label, run))
