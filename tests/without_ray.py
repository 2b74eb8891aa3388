"""Shards that go through their actors in this process.

They are the very actors of a cluster, without the processes, which take seconds to start. What Ray adds is tested where
it is what matters: tests of ``engine.distributed``, of deaths, of nodes, of submitted jobs, of the whole chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
import torch

from engine.distributed import pipeline
from engine.distributed.actor import PoolActor
from engine.distributed.cluster import Cluster
from engine.distributed.stream import Committed, ShardRun, _committed
from engine.resources import ResourceConfig
from engine.runs import shards as shards_of_jobs
from engine.step import Step
from tune import search


@contextmanager
def shards_in_this_process() -> Iterator[None]:
    """Inside, jobs and searches take their shards through the actors here, one after the other."""
    num_threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "stream", _stream)
        for module in (shards_of_jobs, search):
            patch.setattr(module, "connected", no_cluster)
        yield
    torch.set_num_threads(num_threads)  # an actor sets its own


@contextmanager
def no_cluster(resources: ResourceConfig) -> Iterator[Cluster]:
    """In the place of :func:`engine.distributed.cluster.connected`: this machine."""
    yield Cluster(num_cpus=8, num_gpus=0, num_cores=2, started_here=True)


def _stream(
    run: ShardRun, steps: Sequence[Step], shards: Sequence[int], *, on_commit: Callable[[Committed], None], **_: Any
) -> None:
    actors = [PoolActor(pool) for pool in run.pools(steps)] if shards else []
    for shard in shards:
        table = pa.table({"shard": [shard]})
        for actor in actors:
            table = actor(table)
        (row,) = table.to_pylist()
        on_commit(_committed(row))
