"""Signals at random moments of the chain, with a fixed seed; ``python -m benchmarks signals`` sends more of them."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from engine.storage.shards import committed_shards
from tests.jobs.chaos import actors_of, add_node
from tests.jobs.conftest import Chain
from tests.jobs.interruptions import ENDS_WITHIN_S, Interruptions
from tests.jobs.small_runs import small_settings, started, write_random_cam, write_settings, write_some_scenes

pytestmark = pytest.mark.slow
NUM_SIGNALS, SEED = 2, 0


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


@pytest.mark.timeout(1800)
def test_each_signal_ends_the_chain_which_then_resumes_to_the_same_masks(chain: Chain, tmp_path: Path) -> None:
    interruptions = Interruptions(
        scenes=Path(chain.config.data).parent,
        calm=Path(chain.config.out),
        folder=tmp_path,
        rng=random.Random(SEED),
        longest_s=40,
    )
    interruptions.run(NUM_SIGNALS)
    assert len(interruptions.told) == NUM_SIGNALS
    assert interruptions.num_chains >= 1
