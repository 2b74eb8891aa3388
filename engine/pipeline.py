"""The stages as Ray Data actor pools: shards of a frozen manifest in, committed shards out.

One block is one shard from the manifest to its file, so a shard is the unit of commit: a crash costs the shards in
flight, and a rerun does those that have no file. The only import of ray.data for labeling.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from engine.cluster import Cluster
from engine.config import ResourceConfig
from engine.records import to_batch, to_table
from engine.stages.commit import CommitShard
from engine.stages.fetch import FetchImages
from engine.stages.guard import guarded
from engine.stages.load_shard import LoadShard
from engine.storage.manifest import Manifest

UNGUARDED = ("manifest", "commit")
"""Steps whose failure is no single image's."""
MAX_CRASHES_OF_A_SHARD = 2
"""Times that a shard may take its actor down before it is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One stage with what its constructor takes."""

    name: str
    """Names the stage in the error column."""
    stage: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Stages that run one after the other in each actor of a pool."""

    steps: tuple[Step, ...]
    max_actors: int
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    threads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """What came of one shard."""

    shard: int
    num_rows: int
    errors: Counter[str]


def network_pool(steps: Sequence[Step], resources: ResourceConfig, cluster: Cluster) -> Pool:
    """A pool for stages that run a network."""
    if resources.num_gpus > 0:
        most = resources.max_network_actors or max(1, int(cluster.num_gpus / resources.num_gpus)) * 4
    else:
        most = resources.max_network_actors or max(1, cluster.num_cores // 2 if cluster.started_here else 1024)
    return Pool(
        steps=tuple(steps),
        max_actors=most,
        num_cpus=float(resources.threads_per_actor),
        num_gpus=resources.num_gpus,
        threads=resources.threads_per_actor,
    )


def crf_pool(steps: Sequence[Step], resources: ResourceConfig, cluster: Cluster) -> Pool:
    """A pool for stages that work on full images with a CPU."""
    return Pool(
        steps=tuple(steps),
        max_actors=resources.max_crf_actors or (cluster.num_cores if cluster.started_here else 4096),
    )


def run_shards(
    manifest: Manifest,
    shards: Sequence[int],
    pools: Sequence[Pool],
    *,
    folder: str,
    schema: pa.Schema,
    resources: ResourceConfig,
    cluster: Cluster,
    on_commit: Callable[[Committed], None],
) -> None:
    """Stream shards of the manifest through the pools and commit each.

    Args:
        shards: numbers of the shards to do.
        pools: what happens between the fetching of the images and the commit.
        folder: where the shards are written.
        schema: of a shard.
        on_commit: called in this process after every commit.
    """
    if not shards:
        return
    _set_context()
    first = Pool(
        steps=(
            Step(name="manifest", stage=LoadShard, arguments={"manifest": manifest}),
            Step(name="fetch", stage=FetchImages, arguments={"threads": resources.fetch_threads}),
        ),
        max_actors=max(1, int(cluster.num_cpus // 16)),
        num_cpus=0.5,
    )
    commit = Step(name="commit", stage=CommitShard, arguments={"folder": folder, "schema": schema})
    *middle, last = pools
    chain = [first, *middle, Pool(**{**_fields(last), "steps": (*last.steps, commit)})]
    share = min(1.0, max(cluster.num_cpus - 1, 0.5) / sum(pool.num_cpus for pool in chain))
    dataset: ray.data.Dataset = ray.data.from_items(
        [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
    )
    for pool in chain:
        dataset = dataset.map_batches(
            type("_".join(step.name for step in pool.steps), (_Actor,), {}),
            fn_constructor_kwargs={"pool": pool},
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=round(pool.num_cpus * share, 3),
            num_gpus=pool.num_gpus or None,
            compute=ActorPoolStrategy(min_size=1, max_size=pool.max_actors),
            max_task_retries=MAX_CRASHES_OF_A_SHARD,
        )
    for row in dataset.iter_rows():
        on_commit(
            Committed(shard=row["shard"], num_rows=row["num_rows"], errors=Counter(json.loads(row["num_errors"])))
        )


def _fields(pool: Pool) -> dict[str, Any]:
    return {name: getattr(pool, name) for name in pool.__slots__}


def _set_context() -> None:
    context = DataContext.get_current()
    context.target_max_block_size = None  # a block is a shard and stays whole
    context.max_errored_blocks = -1  # a shard that keeps failing must not end the others
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class _Actor:
    """What Ray calls: builds the stages of a pool and takes a shard through them."""

    def __init__(self, pool: Pool) -> None:
        import torch  # here, so that the driver does without

        torch.set_num_threads(pool.threads)
        self._steps = [(step.name, step.stage(**step.arguments)) for step in pool.steps]

    def __call__(self, table: pa.Table) -> pa.Table:
        batch = to_batch(table)
        for name, stage in self._steps:
            batch = guarded(name, stage, batch) if name not in UNGUARDED else stage(batch)
        return to_table(batch)
