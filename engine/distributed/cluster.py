"""Join a Ray cluster or start one on this machine, without Ray's log output."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from engine.distributed.ray_internals import ENVIRONMENT, answers, started_too_slowly, without_log_level_remark
from engine.errors import ConfigError, StartError, first_line
from engine.progress import doing
from engine.resources import ResourceConfig

_started_here = False
"""Whether this process started the Ray that it is connected to."""
STARTS = 3
"""Attempts at starting Ray."""
ANSWER_S = 10.0
"""How long a cluster may take to answer; Ray itself asks for minutes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Resources of the connected cluster."""

    num_cpus: float
    num_gpus: float
    num_cores: int
    """Cores of this machine."""
    started_here: bool
    """Whether this process started it; if so, it also ends with this process."""


@contextmanager
def connected(resources: ResourceConfig) -> Iterator[Cluster]:
    """Connect to Ray while the block runs; an existing connection is used and kept.

    Raises:
        ConfigError: more GPUs are requested than this machine has, and there is no cluster; ``RAY_ADDRESS`` is not the
            address of a cluster that answers.
        StartError: this machine is too busy to start Ray.
    """
    global _started_here
    if ray.is_initialized():
        yield _describe()
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address, joins = os.environ.get("RAY_ADDRESS", ""), joins_cluster()
    if joins:
        with doing("joining the Ray cluster"):
            _check_address(address)
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
    else:
        cores = num_cores()
        with doing("starting Ray"), without_log_level_remark():
            # logical CPUs: two per core, so that actors that wait for input and Ray's own small tasks always fit
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
        yield cluster
    finally:
        with doing("stopping Ray"):
            ray.shutdown()
        _started_here = False


def joins_cluster() -> bool:
    """Whether :func:`connected` joins a cluster and does not start Ray on this machine."""
    address = os.environ.get("RAY_ADDRESS", "")
    return bool(address or os.environ.get("RAY_JOB_ID")) and address != "local"


def _check_address(address: str) -> None:
    """Raise ConfigError for an address that Ray would ask for minutes, or that no driver can use."""
    scheme, is_url, _ = address.partition("://")
    if is_url and scheme in ("http", "https"):
        raise ConfigError(
            f"RAY_ADDRESS is '{address}', a dashboard, which only takes submissions: use `ray job submit`, or set "
            "RAY_ADDRESS to the cluster itself (host:6379)"
        )
    if is_url and scheme == "ray":
        raise ConfigError(
            f"RAY_ADDRESS is '{address}', a Ray Client server, which runs no data pipelines: use `ray job submit` with "
            "the dashboard's address (http://host:8265), or run on a node of the cluster with RAY_ADDRESS=auto"
        )
    if address and address != "auto" and not is_url and not answers(address, ANSWER_S):
        raise ConfigError(
            f"RAY_ADDRESS is '{address}', but no Ray answered there within {ANSWER_S:g} s; set it to the address of a "
            "cluster (host:6379), or unset it to start a local Ray"
        )


def _start_ray(num_cpus: int) -> None:
    """Start Ray on this machine; retry if a busy machine took longer than Ray waits."""
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
            if not started_too_slowly(error):
                raise
            ray.shutdown()
            if not left:
                reason = f"Ray did not start in {STARTS} attempts ({first_line(error)})"
                raise StartError(f"{reason}; free processors and memory, then rerun the command") from error


def _describe() -> Cluster:
    offered: dict[str, float] = ray.cluster_resources()
    return Cluster(
        num_cpus=offered.get("CPU", 0.0),
        num_gpus=offered.get("GPU", 0.0),
        num_cores=num_cores(),
        started_here=_started_here,
    )


def num_cores() -> int:
    """Cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
