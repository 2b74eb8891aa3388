"""A signal to a job on a cluster. ``python -m benchmarks signals`` sends many over a whole chain of a local Ray."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from engine.storage.shards import committed_shards
from tests.jobs.chaos import actors_of, add_node
from tests.jobs.interruptions import ENDS_WITHIN_S
from tests.jobs.small_runs import small_settings, started, write_random_cam, write_settings, write_some_scenes

pytestmark = pytest.mark.slow


def test_signal_ends_the_actors_on_a_cluster_but_not_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    add_node(cluster)
    settings = small_settings()
    shards = replace(settings.shards, rows_per_shard=1)
    options = {
        "data": write_some_scenes(tmp_path / "scenes", 12, repeat=50),
        "cam": write_random_cam(tmp_path / "cam"),
        "config": write_settings(tmp_path, replace(settings, shards=shards)),
        "out": tmp_path / "masks",
        "walk.num-steps": 0,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with started("label", *arguments, address=cluster.address) as run:
        run.wait_until(lambda: len(committed_shards(str(options["out"]))) > 0, "shard")
        assert actors_of(cluster)
        run.process.send_signal(signal.SIGTERM)
        _, err = run.process.communicate(timeout=60)
    assert run.process.returncode == 143
    assert err.splitlines()[-1].startswith("interrupted: ")
    end = time.monotonic() + ENDS_WITHIN_S
    while actors_of(cluster) and time.monotonic() < end:
        time.sleep(0.2)
    assert actors_of(cluster) == []
    assert cluster.remaining_processes_alive()
