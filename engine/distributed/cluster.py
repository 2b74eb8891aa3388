"""Joining a Ray cluster, or starting one on this machine, without Ray's chatter."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import ray

from engine.errors import ConfigError
from engine.resources import ResourceConfig

QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",  # on a machine that is busy a node takes longer than the usual 30
    "RAY_worker_niceness": "0",
}
_STDERR = 2
_REMARK = b"Set ray log level from environment variable"
_started_here = False
"""Whether the Ray that this process is connected to is its own."""
STARTS = 3
"""Times that Ray is started before it is given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What the connected cluster offers."""

    num_cpus: float
    num_gpus: float
    num_cores: int
    """Cores of this machine."""
    started_here: bool
    """Whether this process started it; then it also ends with this process."""


@contextmanager
def connected(resources: ResourceConfig) -> Iterator[Cluster]:
    """Ray, for the time of a ``with`` block; a connection that stands already is used and left standing.

    Raises:
        ConfigError: GPUs are asked for and this machine, alone, has none.
    """
    global _started_here
    if ray.is_initialized():
        yield _describe()
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    joins = bool(os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"))
    if joins:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    else:
        cores = num_cores()
        with _without_remark():
            # Logical CPUs: two for each core, so that actors of a starved stage and Ray's own small tasks always fit.
            _start_ray(num_cpus=2 * cores + 2)
    _started_here = not joins
    try:
        cluster = _describe()
        if not joins and resources.num_gpus > cluster.num_gpus:
            raise ConfigError(
                f"must be at most {cluster.num_gpus:g}, the GPUs of this machine, got {resources.num_gpus:g}; "
                "use 0 for CPUs or run on a cluster",
                thing="resources.num_gpus",
            )
        with _interrupted_by_sigterm():
            yield cluster
    finally:
        ray.shutdown()
        _started_here = False


def _start_ray(num_cpus: int) -> None:
    """Start Ray here; again where a busy machine did not do it within Ray's own 30 seconds."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
            return
        except Exception as error:
            # Ray raises no type of its own
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


@contextmanager
def _without_remark() -> Iterator[None]:
    """Standard error is held while the block runs, and said after it but for what Ray says of its own log level.

    Its C++ writes that to the file descriptor, whatever the level is.
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


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM (``ray job stop``, a batch system's end) as Ctrl-C; Ray's own handler dies with a dump of addresses."""
    if threading.current_thread() is not threading.main_thread():  # only there Python takes signals
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _describe() -> Cluster:
    offered: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Cluster(
        num_cpus=offered.get("CPU", 0.0),
        num_gpus=offered.get("GPU", 0.0),
        num_cores=num_cores(),
        started_here=_started_here,
    )


def num_cores() -> int:
    """Cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
