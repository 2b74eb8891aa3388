"""Everything that relies on Ray's undocumented behavior; pyproject.toml has the versions that it was tested with.

Each function says why the documented interface is insufficient, and ``tests/engine/distributed/test_ray_internals.py``
fails if Ray's behavior changes.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import ray.data
from ray._private.grpc_utils import init_grpc_channel
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

ENVIRONMENT = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # workers wait for the next of these after each report; the default of 2 is long for small networks
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # otherwise CUDA_VISIBLE_DEVICES is emptied in workers without a GPU, with a warning that this will change
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # under ``uv run`` Ray would rebuild an environment for each worker
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # on a busy machine a node takes longer to start than the default of 30 seconds
    "RAY_raylet_start_wait_time_s": "120",
    # with the default of 15, workers yield to every other process of the machine
    "RAY_worker_niceness": "0",
}
"""Environment variables to set before starting or joining Ray; existing values are kept."""

_STDERR = 2
_REMARK = b"Set ray log level from environment variable"

PAUSE_S = 0.02
"""Seconds between iterations of Ray Data's scheduling loop; an iteration takes one or two milliseconds."""


class Pause(ExecutionCallback):
    """Sleeps after each iteration of Ray Data's scheduling loop.

    The loop waits only while tasks run. When its outputs are full and not consumed, no task runs and it spins: it uses
    a whole core, and in a training worker the interpreter lock as well, which more than doubled the time of a step.
    """

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(PAUSE_S)


def throttled_context() -> DataContext:
    """This process's context, with :class:`Pause` in all streams that start from now on and without progress bars."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    if Pause not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Pause)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return context


def map_whole_blocks(dataset: ray.data.Dataset, actor: type, **options: Any) -> ray.data.Dataset:
    """Map each block as one pyarrow table; ``map_batches`` refuses ``batch_size=None`` for actors with GPUs."""
    return dataset.map_batches_internal(actor, batch_size=None, batch_format="pyarrow", zero_copy_batch=True, **options)


def grow_with_one_task_each(context: DataContext) -> None:
    """Let actor pools grow whose actors take one task at a time.

    A pool grows while its tasks are at least this multiple of its actors. With one task each that is never more than
    1, so with the default of 1.75 the pool would stay at one actor.
    """
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0


@contextmanager
def restored_sigint() -> Iterator[None]:
    """Restore the handler of SIGINT after the block: ``ray.train`` installs its own in ``fit()`` and leaves it there.

    Ray's handler only aborts the training that it was made for, so a later Ctrl-C would do nothing.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        # in other threads neither Ray nor Python sets a handler
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def answers(address: str, timeout_s: float) -> bool:
    """Whether a Ray head answers at ``host:port``; ``ray.init`` asks for minutes, and prints that it does."""
    with init_grpc_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout_s)
        except grpc.FutureTimeoutError:
            return False
    return True


def started_too_slowly(error: Exception) -> bool:
    """Whether ``ray.init`` gave up on a busy machine; only the message tells this error from others."""
    waited = ("timed out during startup", "while waiting for node to startup", "Failed to start GCS")
    return any(words in str(error) for words in waited)


@contextmanager
def without_log_level_remark() -> Iterator[None]:
    """Hold back standard error while the block runs, and drop Ray's remark on its log level.

    Its C++ code writes that to the file descriptor whenever ``RAY_BACKEND_LOG_LEVEL`` is set.
    """
    with tempfile.TemporaryFile() as held:
        try:
            before = os.dup(_STDERR)
        except OSError:  # closed, as a daemon's
            yield
            return
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
            held.seek(0)
            for line in held:
                if _REMARK not in line:
                    os.write(_STDERR, line)
