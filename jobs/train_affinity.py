"""Train AffinityNet on the seeds: ``python -m jobs.train_affinity``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from engine.config import AffinityConfig
from engine.runs.inputs import made_with, shard_source
from engine.runs.options import TrainOptions
from engine.runs.shards import claim
from engine.runs.training import WRITES, held_out, train, training_settings
from jobs.cli.command import main


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
