"""Make the affinity labels that teach AffinityNet: ``python -m jobs.make_seeds``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from engine.config import CamInferenceConfig, InferenceConfig, SeedConfig, ShardConfig
from engine.distributed.cluster import Cluster
from engine.distributed.pipeline import Pool, Step
from engine.networks import INFERENCE_OF_KIND, MAP_KINDS, check_map_network, inference_record, read_architecture
from engine.plain_settings import to_dict
from engine.records import seed_schema
from engine.runs.options import ShardOptions
from engine.runs.shards import behind_networks, claim, label_shards, network_classes, shard_metadata
from engine.stages.cam import ComputeCam
from engine.stages.seed import MakeSeed
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeSeeds(ShardOptions):
    """Find the cells of each image that are surely one class or surely background."""

    cam: str
    """Folder that jobs.train_cam wrote, or jobs.train_segmentation."""
    cam_inference: Annotated[CamInferenceConfig, tyro.conf.arg(name="cam.inference")]
    """How the activation maps are taken."""
    recam: InferenceConfig
    """The same in the place of --cam.inference, where --cam is a segmentation network."""
    seed: SeedConfig
    """How sure a cell must be."""
    shards: ShardConfig
    """The output's layout."""


def run(config: MakeSeeds) -> dict[str, Any]:
    """Write a seed for every image as Parquet shards under ``--out``."""
    kind = read_architecture(config.cam, MAP_KINDS).kind
    inference: InferenceConfig = getattr(config, INFERENCE_OF_KIND[kind])
    check_map_network(config.cam, inference)
    settings = {
        **inference_record(kind, inference),
        "seed": to_dict(config.seed),
        "shards": to_dict(config.shards),
    }
    claimed = claim(
        "make_seeds",
        config,
        settings,
        {"cam": weights_hash(config.cam)},
        rows_per_shard=config.shards.rows_per_shard,
        class_names=network_classes(config.cam, MAP_KINDS, config),
    )

    def pools(cluster: Cluster) -> list[Pool]:
        cam = {
            "weights": weights_file(config.cam),
            "config": inference,
            "device": config.resources.device,
            "images_per_pass": config.resources.images_per_pass,
            "max_pixels": config.max_pixels,
        }
        seed = {
            "seed": config.seed,
            "num_classes": len(claimed.manifest.class_names),
            "max_pixels": config.max_pixels,
        }
        return behind_networks(
            [Step(name="cam", stage=ComputeCam, arguments=cam)],
            Step(name="seed", stage=MakeSeed, arguments=seed),
            config.seed.crf,
            config.resources,
            cluster,
        )

    return label_shards(config, claimed, schema=seed_schema(metadata=shard_metadata(claimed)), pools=pools)


if __name__ == "__main__":
    sys.exit(main(MakeSeeds, run))
