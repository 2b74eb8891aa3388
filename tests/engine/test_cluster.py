"""Joining or starting Ray."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engine.cluster import connected
from engine.config import ResourceConfig


@pytest.mark.slow
def test_connection_that_stands_is_used_and_left_standing(ray_session: None) -> None:
    import ray

    with connected(ResourceConfig()) as cluster:
        assert (cluster.num_cpus, cluster.num_gpus, cluster.started_here) == (8, 0, False)
    assert ray.is_initialized()


ALONE = """
import ray
from engine.cluster import connected
from engine.config import ResourceConfig
from engine.errors import ConfigError

try:
    with connected(ResourceConfig(num_gpus=1)):
        print("went on without a GPU")
except ConfigError as error:
    print(error)
print(ray.is_initialized())
"""


@pytest.mark.slow
def test_alone_it_starts_ray_quietly_and_ends_it_and_refuses_gpus_that_are_not_there() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "--resources.num-gpus is 1, but this machine has 0 GPUs; allowed: 0 (CPUs), or run it on a cluster",
        "False",
    ]
    assert len(done.stderr.splitlines()) <= 2
