"""The actor that runs shards through the steps of a pool."""

from __future__ import annotations

import os
import sys

import pyarrow as pa

from engine.distributed.metrics import StageWatch
from engine.distributed.pools import Pool
from engine.errors import StoreUnavailableError, UserError
from engine.guard import BrokenProcessError, guarded
from engine.imaging.memory import give_back_memory
from engine.records import Batch, to_batch, to_table
from engine.storage.retries import expect_stores
from engine.timing import measured

UNGUARDED = ("manifest", "commit")
"""Steps whose failure cannot be attributed to an image."""


class PoolActor:
    """Builds the stages of a pool once, then runs one shard after another through them."""

    def __init__(self, pool: Pool) -> None:
        expect_stores()
        self._failure = ""
        self._watch = StageWatch([step.name for step in pool.steps])
        try:
            self._stages = [(step.name, step.build()) for step in pool.steps]
        except (OSError, UserError) as error:  # such as weights that can no longer be read
            self._failure = str(error)
        if "torch" in sys.modules:  # a pool that only reads images starts seconds faster without it
            import torch

            torch.set_num_threads(pool.threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Process one shard: returns its rows, after the last pool its counts, or a ``failure`` that ends the run."""
        batch = to_batch(table)
        if "failure" in batch:  # from an earlier pool: pass it on to the driver
            return table
        done = to_table(self._watch.watched(self._through, batch))
        del batch
        give_back_memory()
        return done

    def _through(self, batch: Batch) -> Batch:
        if self._failure:
            return _failed(batch, self._failure)
        for name, stage in self._stages:
            try:
                with measured(name):
                    batch = stage(batch) if name in UNGUARDED else guarded(name, stage, batch)
            except StoreUnavailableError as error:
                return _failed(batch, str(error))
            except BrokenProcessError as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                os._exit(1)  # Ray restarts the actor and retries the shard
            except (OSError, UserError) as error:
                if name not in UNGUARDED:
                    raise
                return _failed(batch, str(error))  # the disk is full, the bucket is gone, ...
        return batch


def _failed(batch: Batch, reason: str) -> Batch:
    return {"shard": batch["shard"][:1], "num_rows": [0], "num_errors": ["{}"], "failure": [reason]}
