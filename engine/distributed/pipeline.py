"""The stages as Ray Data actor pools: shards of a frozen manifest in, committed shards out.

One block is one shard from the manifest to its file, so a shard is the unit of commit: a crash costs the shards in
flight, and a rerun does those that have no file. A shard that its workers do not survive is done again image by image,
so that the guilty one alone becomes an error row.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from engine.config import ResourceConfig
from engine.distributed.blocks import small_blocks
from engine.distributed.cluster import Cluster
from engine.distributed.metrics import StageWatch
from engine.distributed.throttled_executor import unhurried_context
from engine.errors import StorageError, StoreUnavailableError, UserError
from engine.guard import BrokenProcessError, guarded
from engine.imaging.memory import give_back_memory
from engine.records import Batch, error_counts, shard_table, to_batch, to_table
from engine.stages.commit import CommitShard
from engine.stages.fetch import FetchImages
from engine.stages.load_shard import LoadShard
from engine.step import Step
from engine.storage.filesystem import absolute, delete_folder, join
from engine.storage.manifest import Manifest, SingleRows
from engine.storage.retries import expect_stores
from engine.storage.run_record import WORK_FOLDER
from engine.storage.shards import committed_shards, read_shard, write_shard
from engine.timing import measured

UNGUARDED = ("manifest", "commit")
"""Steps whose failure is no single image's."""
TRIES = 3
"""Times that a shard is tried among others before it is set aside."""
TRIES_ALONE = 2
"""Times that what was set aside is tried with an actor for itself: first the shard, then each of its images."""

LEAST_LOADERS = 4
"""Actors that fetch images on a cluster, which may be its head alone as yet."""

_WITNESS_SHARDS = 8
"""Shards in which an image is looked for that shows whether the stages work."""

NETWORK_SHARE = 0.75
"""Of a machine's cores, as many as labeling gives to its networks; fewer actors would leave cores idle."""
MIN_FAILED_SHARDS, MAX_FAILED_PART = 8, 0.01
"""Shards, as a number and as a part of all, that may fail again and again before one of them is looked into."""
MAX_DEATHS_AT_BIRTH = 3
"""Actors of a pool that may die in a row while they start, as when a spot node goes, before the run ends."""


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
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of work by stage, and of waiting, over all actors that the shard went through."""


def network_pool(steps: Sequence[Step], resources: ResourceConfig, cluster: Cluster) -> Pool:
    """A pool for stages that run a network."""
    # what a cluster offers now says nothing of what it grows to
    most = 1024
    if cluster.started_here:
        cores = NETWORK_SHARE * cluster.num_cores / resources.threads_per_actor
        most = int(cluster.num_gpus / resources.num_gpus) if resources.num_gpus > 0 else math.ceil(cores)
    return Pool(
        steps=tuple(steps),
        max_actors=resources.max_network_actors or max(1, most),
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRun:
    """Where the rows of shards come from, where their files go, and on what they are done."""

    manifest: Manifest | SingleRows
    folder: str
    """Output folder, a path or URI."""
    schema: pa.Schema
    """Of a shard."""
    resources: ResourceConfig
    cluster: Cluster
    fetch: bool = True
    """Whether the images are read at all."""

    def pools(self, steps: Sequence[Step]) -> list[Pool]:
        """From the manifest to the files: loading first, a pool per run of steps on one kind of actor, commit last."""
        load = Step(name="manifest", build=partial(LoadShard, self.manifest), on="crf")
        read = Step(name="fetch", build=partial(FetchImages, threads=self.resources.fetch_threads), on="crf")
        first = Pool(
            steps=(load, read) if self.fetch else (load,),
            max_actors=max(1 if self.cluster.started_here else LEAST_LOADERS, int(self.cluster.num_cpus // 16)),
            num_cpus=0.5,
        )
        commit = Step(name="commit", build=partial(CommitShard, self.folder, self.schema), on="crf")
        make = {"network": network_pool, "crf": crf_pool}
        *middle, last = [
            make[kind](list(group), self.resources, self.cluster) for kind, group in groupby(steps, lambda one: one.on)
        ]
        return [first, *middle, replace(last, steps=(*last.steps, commit))]


def run_shards(
    run: ShardRun, steps: Sequence[Step], shards: Sequence[int], *, on_commit: Callable[[Committed], None]
) -> None:
    """Stream shards of the manifest through the steps and commit each.

    Args:
        steps: what happens between fetching the images and the commit.
        shards: numbers of the shards to do.
        on_commit: called in this process after every commit.

    Raises:
        StorageError: input or output became unusable during the run: the store is away, credentials expired, the disk
            is full. Completed shards are kept.
    """
    if not shards:
        return
    # the workers of a Ray that was started elsewhere have another working directory
    run = replace(run, folder=absolute(run.folder))
    done: set[int] = set()

    def commit(committed: Committed) -> None:
        done.add(committed.shard)
        on_commit(committed)

    todo = list(shards)
    while todo:
        most = max(MIN_FAILED_SHARDS, int(MAX_FAILED_PART * len(todo)))
        try:
            _stream(run, steps, todo, on_commit=commit, max_failed=most)
            break
        except RayError:
            left = [shard for shard in todo if shard not in done]
            # where this is no single image's fault, to go on would last for as long as there are shards
            if not left or not _redo_by_image(run, steps, left[:1], on_commit=commit):
                return
            tried = max((shard for shard in todo if shard in done), default=-1)
            todo = [shard for shard in left if shard > tried]
    # a shard that takes its actor down takes those along that wait for the same actor: they pass here
    left = [shard for shard in shards if shard not in done]
    _stream(run, steps, left, on_commit=commit, alone=True)
    left = [shard for shard in shards if shard not in done]
    # the first one by itself: where no image of it survives, none is to blame, and to go on would last for ever
    for group in (left[:1], left[1:]):
        if group and not _redo_by_image(run, steps, group, on_commit=on_commit):
            break


def parts_folder(folder: str) -> str:
    """Where images that are done one by one wait for the rest of their shard."""
    return join(folder, WORK_FOLDER, "parts")


def _redo_by_image(
    run: ShardRun, steps: Sequence[Step], shards: Sequence[int], *, on_commit: Callable[[Committed], None]
) -> bool:
    """Do each image of some shards apart from the others; one that fails even so becomes an error row.

    Returns:
        Whether every shard is committed. One of which no image survived is not, unless an image that was done before
        survives: without that nobody knows whether the stages work at all.
    """
    manifest, folder = run.manifest, run.folder
    assert isinstance(manifest, Manifest)
    parts, step = parts_folder(folder), manifest.rows_per_shard
    witnesses, survived = _done_before(folder, manifest), set[int]()
    rows_of = {shard: range(shard * step, min((shard + 1) * step, manifest.num_rows)) for shard in shards}
    earlier = committed_shards(parts)
    todo = [row for rows in rows_of.values() for row in rows if row not in earlier]
    singly = replace(run, manifest=SingleRows(manifest=manifest), folder=parts)
    _stream(singly, steps, [*witnesses, *todo], on_commit=lambda one: survived.add(one.shard), alone=True)
    made = committed_shards(parts)
    stages_work = step == 1 or not survived.isdisjoint(witnesses)
    complete = True
    for shard, rows in rows_of.items():
        if made.isdisjoint(rows) and not stages_work:
            complete = False
            continue
        tables = [read_shard(parts, row) if row in made else _given_up(manifest, row, run.schema) for row in rows]
        table = pa.concat_tables(tables)
        try:
            write_shard(folder, shard, table)
        except OSError as error:
            raise _stopped(error) from error
        errors = Counter(error_counts(table.column("error").to_pylist()))
        on_commit(Committed(shard=shard, num_rows=len(rows), errors=errors))
    delete_folder(parts)
    return complete


def _done_before(folder: str, manifest: Manifest) -> list[int]:
    """A row that is done and has no error, if there is one among the first shards."""
    for shard in sorted(committed_shards(folder))[:_WITNESS_SHARDS]:
        errors = read_shard(folder, shard, ["error"]).column("error").to_pylist()
        if None in errors:
            return [shard * manifest.rows_per_shard + errors.index(None)]
    return []


def _given_up(manifest: Manifest, row: int, schema: pa.Schema) -> pa.Table:
    values = SingleRows(manifest=manifest).read_shard(row)
    reason = values["error"][0] or f"crash: its worker died {TRIES_ALONE} times in a row, with no other image at work"
    return shard_table({**{name: [None] for name in schema.names}, **values, "error": [reason]}, schema)


def _stream(
    run: ShardRun,
    steps: Sequence[Step],
    shards: Sequence[int],
    *,
    on_commit: Callable[[Committed], None],
    alone: bool = False,
    max_failed: int = -1,
) -> None:
    """Take every shard through the pools once; one that fails again and again is left out.

    Args:
        alone: an actor has one shard at a time, none waiting, so that no other is lost with it.
        max_failed: of the shards that are left out; -1 for any number.

    Raises:
        RayError: more than so many failed.
    """
    if not shards:
        return
    with DataContext.current(_stream_context(alone=alone, max_failed=max_failed)):
        _flow(run, steps, shards, on_commit=on_commit, alone=alone)


def _flow(
    run: ShardRun,
    steps: Sequence[Step],
    shards: Sequence[int],
    *,
    on_commit: Callable[[Committed], None],
    alone: bool,
) -> None:
    dataset = small_blocks([{"shard": shard} for shard in shards])
    for pool in fitted(run.pools(steps), run.cluster):
        # not map_batches, which has no whole blocks for actors with GPUs
        dataset = dataset.map_batches_internal(
            type("_".join(step.name for step in pool.steps), (_Actor,), {}),
            fn_constructor_kwargs={"pool": pool},
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus or None,
            compute=ActorPoolStrategy(
                min_size=1, max_size=pool.max_actors, max_tasks_in_flight_per_actor=1 if alone else None
            ),
            max_task_retries=(TRIES_ALONE if alone else TRIES) - 1,
        )
    # iter_rows would look ahead, and tell of a shard when the one after it is done
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        table: Any = batch
        for row in table.to_pylist():
            if row["failure"] is not None:
                raise _stopped(row["failure"])
            on_commit(
                Committed(
                    shard=row["shard"],
                    num_rows=row["num_rows"],
                    errors=Counter(json.loads(row["num_errors"])),
                    seconds=json.loads(row["seconds"]),
                )
            )


def _stopped(reason: object) -> StorageError:
    return StorageError(f"{reason}; what was written stays, and the same command goes on from there")


def fitted(chain: Sequence[Pool], cluster: Cluster) -> list[Pool]:
    """Pools of which one actor each fits the cluster, with a CPU to spare for Ray's own tasks.

    A pool then grows up to its ``max_actors`` as far as the cluster goes, GPUs for those that ask for them alone, so
    a stage without a GPU never takes the place of one that has. Where the nodes that do the work are still to come,
    the requests stay as they are: the CPUs of the head say nothing.
    """
    if any(pool.num_gpus > cluster.num_gpus for pool in chain):
        return list(chain)
    share = min(1.0, max(cluster.num_cpus - 1, 0.5) / sum(pool.num_cpus for pool in chain))
    return [replace(pool, num_cpus=math.floor(1000 * pool.num_cpus * share) / 1000) for pool in chain]


def _stream_context(*, alone: bool, max_failed: int) -> DataContext:
    """For one stream alone: a training that this process starts later must lose no block of its samples."""
    context = unhurried_context().copy()
    if alone:  # a pool grows when its actors have more waiting than this; with one shard at a time none ever waits
        context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    context.target_max_block_size = None  # a block is a shard and stays whole
    context.max_errored_blocks = max_failed  # a shard that keeps failing must not end the others
    context.max_consecutive_actor_init_deaths = MAX_DEATHS_AT_BIRTH
    return context


class _Actor:
    """What Ray calls: builds the stages of a pool and takes a shard through them."""

    def __init__(self, pool: Pool) -> None:
        expect_stores()
        self._failure = ""
        self._watch = StageWatch([step.name for step in pool.steps])
        try:
            self._steps = [(step.name, step.build()) for step in pool.steps]
        except (OSError, UserError) as error:  # weights that nobody can read any more
            self._failure = str(error)
        if "torch" in sys.modules:  # a pool that only reads starts seconds sooner without it
            import torch

            torch.set_num_threads(pool.threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        batch = to_batch(table)
        if "failure" in batch:  # of a pool before this one; the driver is to hear of it
            return table
        done = to_table(self._watch.watched(self._through, batch))
        del batch
        give_back_memory()
        return done

    def _through(self, batch: Batch) -> Batch:
        if self._failure:
            return _failed(batch, self._failure)
        for name, stage in self._steps:
            try:
                with measured(name):
                    batch = stage(batch) if name in UNGUARDED else guarded(name, stage, batch)
            except StoreUnavailableError as error:
                return _failed(batch, str(error))
            except BrokenProcessError as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                os._exit(1)  # the next process of this actor tries the shard again
            except (OSError, UserError) as error:
                if name not in UNGUARDED:
                    raise
                return _failed(batch, str(error))  # the disk is full, the bucket is gone, ...
        return batch


def _failed(batch: Batch, reason: str) -> Batch:
    return {"shard": batch["shard"][:1], "num_rows": [0], "num_errors": ["{}"], "failure": [reason]}
