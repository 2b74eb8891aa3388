"""Actor pools for the steps of a chain: how many actors, and what each reserves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from engine.distributed.cluster import Cluster
from engine.resources import ResourceConfig
from engine.step import Step

NETWORK_SHARE = 0.75
"""Network actors per core of one machine; with fewer, cores are idle while labeling."""
MOST_GPU_ACTORS = 64
"""Actors on GPUs to ask a cluster for at once: Ray does not tell how many nodes its autoscaler may add."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Steps that run one after another in each actor of a pool."""

    steps: tuple[Step, ...]
    max_actors: int
    min_actors: int = 1
    """Actors that are started at once; an autoscaler adds the nodes for those that have no place yet."""
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    threads: int = 1


def pools_of(steps: Sequence[Step], resources: ResourceConfig, cluster: Cluster) -> list[Pool]:
    """Group consecutive steps on the same kind of actor into one pool each."""
    make = {"network": network_pool, "crf": crf_pool}
    return [make[kind](list(group), resources, cluster) for kind, group in groupby(steps, lambda step: step.on)]


def network_pool(steps: Sequence[Step], resources: ResourceConfig, cluster: Cluster) -> Pool:
    """A pool for steps that run a network."""
    most = 1024  # nodes may join at any time
    if cluster.started_here:
        cores = NETWORK_SHARE * cluster.num_cores / resources.threads_per_actor
        most = int(cluster.num_gpus / resources.num_gpus) if resources.num_gpus > 0 else math.ceil(cores)
    most = resources.max_network_actors or max(1, most)
    grows = resources.num_gpus > 0 and not cluster.started_here
    return Pool(
        steps=tuple(steps),
        max_actors=most,
        min_actors=min(MOST_GPU_ACTORS, most) if grows else 1,
        num_cpus=float(resources.threads_per_actor),
        num_gpus=resources.num_gpus,
        threads=resources.threads_per_actor,
    )


def crf_pool(steps: Sequence[Step], resources: ResourceConfig, cluster: Cluster) -> Pool:
    """A pool for steps that process full-size images on a CPU."""
    return Pool(
        steps=tuple(steps),
        max_actors=resources.max_crf_actors or (cluster.num_cores if cluster.started_here else 4096),
    )


def fit_to_cluster(pools: Sequence[Pool], cluster: Cluster) -> list[Pool]:
    """Scale CPU requests down so that one actor of each pool fits, with a CPU to spare for Ray's own tasks.

    Each pool can still grow to its ``max_actors``. Only pools that use GPUs request them, so a step without a GPU
    never occupies one. If the cluster has fewer GPUs than one actor needs, or no CPUs, its workers are not up yet:
    requests stay unchanged, as the CPUs of the head node do not count.
    """
    if any(pool.num_gpus > cluster.num_gpus for pool in pools) or not cluster.num_cpus:
        return list(pools)
    share = min(1.0, max(cluster.num_cpus - 1, 0.5) / sum(pool.num_cpus for pool in pools))
    return [replace(pool, num_cpus=math.floor(1000 * pool.num_cpus * share) / 1000) for pool in pools]
