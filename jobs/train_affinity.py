"""Train AffinityNet on the seeds: ``python -m jobs.train_affinity``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from engine.config import AffinityConfig
from jobs.command import main
from jobs.options import TrainOptions
from jobs.shard_job import claim
from jobs.shard_samples import made_with, shard_source
from jobs.training_job import WRITES, held_out, train, training_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainAffinity(TrainOptions):
    """Train AffinityNet on the seeds of the same images."""

    seeds: str
    """Folder that jobs.make_seeds wrote."""
    affinity_network: Annotated[AffinityConfig, tyro.conf.arg(name="affinity")]
    """AffinityNet."""


def run(config: TrainAffinity) -> dict[str, Any]:
    """Train AffinityNet; writes ``weights.safetensors``, ``run.json`` and ``summary.json`` under ``--out``."""
    made = made_with(config.seeds, ("make_seeds",), "--seeds", data=config.data)
    network = held_out(config.affinity_network, config)
    settings = training_settings("affinity", network)
    claimed = claim(
        "train_affinity",
        config,
        settings,
        {"seeds": made.hash},
        rows_per_shard=made.manifest.rows_per_shard,
        class_names=made.manifest.class_names,
        writes=WRITES,
    )
    source = shard_source(config, claimed, config.seeds, "seed", grid_stride=network.grid_stride)
    return train(config, claimed, network, source)


if __name__ == "__main__":
    sys.exit(main(TrainAffinity, run))
