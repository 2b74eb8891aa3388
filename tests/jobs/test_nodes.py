"""Several nodes, GPUs on some of them only, and one of those dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.cluster_utils import Cluster

from engine.distributed.cluster import connected
from engine.distributed.pipeline import ShardRun, run_shards
from engine.records import Batch, mask_schema
from engine.resources import ResourceConfig
from engine.step import Actor, Step
from engine.storage.manifest import open_manifest
from engine.storage.shards import committed_shards, read_shards
from tests.conftest import ROOT
from tests.engine.distributed.examples import Measure, Paint, numbered_images
from tests.jobs.chaos import add_node
from tests.jobs.simulated_cloud import simulated_cloud

pytestmark = pytest.mark.slow
NUM_IMAGES, ROWS_PER_SHARD = 60, 2
LIMIT_S = 240.0


class Tell:
    """A stage: leaves a file that says on which node it works."""

    def __init__(self, folder: str, pause_s: float) -> None:
        Path(folder, ray.get_runtime_context().get_node_id()).touch()
        self._pause_s = pause_s

    def __call__(self, batch: Batch) -> Batch:
        time.sleep(self._pause_s)
        return batch


def drive(root: Path) -> None:
    """What the driver does, in a process of its own that joins the cluster."""
    manifest = open_manifest(str(root / "images" / "frozen"))
    resources = ResourceConfig(num_gpus=1, max_network_actors=1, max_crf_actors=1)

    def tell(name: str, pause_s: float, on: Actor) -> Step:
        return Step(name="tell", build=partial(Tell, str(root / name), pause_s), on=on)

    measure = Step(name="measure", build=Measure, on="network")
    paint = Step(name="paint", build=partial(Paint, 4), on="crf")
    schema = mask_schema(keep_stages=False, metadata={})
    with connected(resources) as joined:
        assert (joined.num_gpus, joined.started_here) == (2, False)
        os.chdir(root)  # away from the working directory of the nodes
        run = ShardRun(manifest=manifest, folder="out", schema=schema, resources=resources, cluster=joined)
        steps = [tell("networks", 0.1, "network"), measure, tell("masks", 0.0, "crf"), paint]
        run_shards(run, steps, range(manifest.num_shards), on_commit=lambda _: None)


def drive_on_gpus(root: Path) -> None:
    """Run on as many GPUs as the cluster offers, in a process of its own."""
    manifest = open_manifest(str(root / "images" / "frozen"))
    resources = ResourceConfig(num_gpus=1)
    measure = Step(name="measure", build=Measure, on="network")
    slow = Step(name="tell", build=partial(Tell, str(root), 1.0), on="network")
    paint = Step(name="paint", build=partial(Paint, 4), on="crf")
    schema = mask_schema(keep_stages=False, metadata={})
    with connected(resources) as joined:
        run = ShardRun(manifest=manifest, folder=str(root / "out"), schema=schema, resources=resources, cluster=joined)
        run_shards(run, [measure, slow, paint], range(manifest.num_shards), on_commit=lambda _: None)


def test_all_gpu_nodes_are_asked_for_at_once(tmp_path: Path) -> None:
    numbered_images(tmp_path / "images", NUM_IMAGES, rows_per_shard=1)
    code = f"import pathlib; from tests.jobs.test_nodes import drive_on_gpus as go; go(pathlib.Path({str(tmp_path)!r}))"
    num_gpus = 3  # with one pending actor at a time there is one node until the driver ends
    with simulated_cloud({"gpu": ({"CPU": 4, "GPU": 1}, num_gpus)}) as address:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
        driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
        try:
            end, nodes = time.monotonic() + LIMIT_S, 0
            while nodes < num_gpus:
                assert driver.poll() is None, "the driver ended with fewer nodes"
                assert time.monotonic() < end, nodes
                status = get_cluster_status(address)
                nodes = len([node for node in status.active_nodes if node.ray_node_type_name == "gpu"])
                time.sleep(0.2)
        finally:
            driver.kill()
            driver.wait(30)


def test_node_with_a_gpu_dies_and_another_takes_over_its_work(cluster: Cluster, tmp_path: Path) -> None:
    networks, out = tmp_path / "networks", str(tmp_path / "out")
    networks.mkdir()
    (tmp_path / "masks").mkdir()
    manifest = numbered_images(tmp_path / "images", NUM_IMAGES, rows_per_shard=ROWS_PER_SHARD)
    code = f"import pathlib; from tests.jobs.test_nodes import drive; drive(pathlib.Path({str(tmp_path)!r}))"
    add_node(cluster)
    nodes = {node.node_id: node for node in (add_node(cluster, num_gpus=1), add_node(cluster, num_gpus=1))}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    try:
        end = time.monotonic() + LIMIT_S
        while len(committed_shards(out)) < 3:
            assert driver.poll() is None, "the driver ended early"
            assert time.monotonic() < end, "no shard is committed"
            time.sleep(0.05)
        (at_work,) = [path.name for path in networks.iterdir()]
        cluster.remove_node(nodes[at_work], allow_graceful=False)
        assert len(committed_shards(out)) < manifest.num_shards
        assert driver.wait(LIMIT_S) == 0
    finally:
        driver.kill()
        driver.wait(30)
    ids = [image_id for table in read_shards(out) for image_id in table["image_id"].to_pylist()]
    assert ids == [f"{number}.png" for number in range(1, NUM_IMAGES + 1)]
    # on the one, then on the other, and never on a node without a GPU
    assert {path.name for path in networks.iterdir()} == nodes.keys()
