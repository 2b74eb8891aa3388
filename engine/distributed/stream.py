"""One pass of shards through the actor pools of a chain, as a Ray Data stream.

One block is one shard from the manifest to its file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import ActorPoolStrategy, DataContext

from engine.distributed.actor import PoolActor
from engine.distributed.blocks import small_blocks
from engine.distributed.cluster import Cluster
from engine.distributed.pools import Pool, fit_to_cluster, pools_of
from engine.distributed.ray_internals import grow_with_one_task_each, map_whole_blocks, throttled_context
from engine.errors import StorageError
from engine.resources import ResourceConfig
from engine.stages.commit import CommitShard
from engine.stages.fetch import FetchImages
from engine.stages.load_shard import LoadShard
from engine.step import Step
from engine.storage.manifest import Manifest, SingleRows

TRIES = 3
"""Attempts at a shard before the stream skips it."""
TRIES_ALONE = 2
"""Attempts at a shard if its actor holds no other shard."""
MIN_LOADERS = 4
"""Actors that fetch images on a cluster, even if only its head node is up yet."""
MAX_INIT_FAILURES = 3
"""Actors of a pool that may die in a row during start-up, as when a spot node is reclaimed, before the run ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A shard that was written."""

    shard: int
    num_rows: int
    errors: Counter[str]
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of work by stage, and of waiting, over all actors that the shard went through."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRun:
    """Input, output and resources of a run over shards."""

    manifest: Manifest | SingleRows
    folder: str
    """Output folder, a path or URI."""
    schema: pa.Schema
    """Schema of a shard."""
    resources: ResourceConfig
    cluster: Cluster
    fetch: bool = True
    """Whether to read the images."""

    def pools(self, steps: Sequence[Step]) -> list[Pool]:
        """Pools from the manifest to the files: loading first, then the steps, the commit in the last actor."""
        load = Step(name="manifest", build=partial(LoadShard, self.manifest), on="crf")
        fetch = Step(name="fetch", build=partial(FetchImages, threads=self.resources.fetch_threads), on="crf")
        commit = Step(name="commit", build=partial(CommitShard, self.folder, self.schema), on="crf")
        first = Pool(
            steps=(load, fetch) if self.fetch else (load,),
            max_actors=max(1 if self.cluster.started_here else MIN_LOADERS, int(self.cluster.num_cpus // 16)),
            num_cpus=0.5,
        )
        *middle, last = pools_of(steps, self.resources, self.cluster)
        return [first, *middle, replace(last, steps=(*last.steps, commit))]


def stream(
    run: ShardRun,
    steps: Sequence[Step],
    shards: Sequence[int],
    *,
    on_commit: Callable[[Committed], None],
    alone: bool = False,
    max_failed: int = -1,
) -> None:
    """Run each shard through the steps and commit it; skip shards that keep failing.

    Args:
        alone: an actor holds one shard at a time, with none queued, so that a crash loses no other shard.
        max_failed: shards that may be skipped; -1 for any number.

    Raises:
        RayError: more than ``max_failed`` shards failed.
        StorageError: input or output became unusable.
    """
    if not shards:
        return
    with DataContext.current(_context(alone=alone, max_failed=max_failed)):
        dataset = small_blocks([{"shard": shard} for shard in shards])
        for pool in fit_to_cluster(run.pools(steps), run.cluster):
            dataset = map_whole_blocks(
                dataset,
                type("_".join(step.name for step in pool.steps), (PoolActor,), {}),  # the name that Ray shows
                fn_constructor_kwargs={"pool": pool},
                num_cpus=pool.num_cpus,
                num_gpus=pool.num_gpus or None,
                compute=ActorPoolStrategy(
                    min_size=min(pool.min_actors, len(shards)),
                    max_size=pool.max_actors,
                    max_tasks_in_flight_per_actor=1 if alone else None,
                ),
                max_task_retries=(TRIES_ALONE if alone else TRIES) - 1,
            )
        # iter_rows prefetches: it would yield a shard only once the next one is done
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            table: Any = batch
            for row in table.to_pylist():
                on_commit(_committed(row))


def _committed(row: dict[str, Any]) -> Committed:
    if row["failure"] is not None:
        raise stopped(row["failure"])
    errors, seconds = Counter(json.loads(row["num_errors"])), json.loads(row["seconds"])
    return Committed(shard=row["shard"], num_rows=row["num_rows"], errors=errors, seconds=seconds)


def stopped(reason: object) -> StorageError:
    """The error of a run that storage stopped."""
    return StorageError(f"{reason}; completed shards are kept; rerun the command to resume")


def _context(*, alone: bool, max_failed: int) -> DataContext:
    """A copy, for this stream only: a training that this process starts later must not skip blocks."""
    context = throttled_context().copy()
    if alone:
        grow_with_one_task_each(context)
    context.target_max_block_size = None  # never split a block: one block is one shard
    context.max_errored_blocks = max_failed  # one shard that keeps failing must not end the others
    context.max_consecutive_actor_init_deaths = MAX_INIT_FAILURES
    return context
