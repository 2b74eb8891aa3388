"""The cluster file: Ray accepts it, and its nodes can hold what the pipeline asks for."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from engine.distributed.cluster import Cluster
from engine.distributed.pools import Pool, crf_pool, network_pool
from engine.presets import PRESETS, preset
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return values


def _joined(config: dict[str, Any]) -> Cluster:
    """The cluster as a job sees it that starts on the head, before any worker is there."""
    head = config["available_node_types"][config["head_node_type"]]["resources"]
    return Cluster(num_cpus=head["CPU"], num_gpus=head["GPU"], num_cores=head["CPU"], started_here=False)


def _fitting(config: dict[str, Any], pool: Pool) -> dict[str, int]:
    """Actors of a pool that all nodes of a type hold together, by type."""
    counts = {}
    for name, node in config["available_node_types"].items():
        cpus, gpus = node["resources"]["CPU"], node["resources"]["GPU"]
        each = min(cpus // pool.num_cpus, gpus // pool.num_gpus if pool.num_gpus else cpus)
        counts[name] = int(each) * node.get("max_workers", 1)
    return counts


def test_ray_accepts_the_cluster_file(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_ray_refuses_what_a_slip_of_the_pen_makes_of_it(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config({**config, "max_worker": 3}))


def test_workers_cost_nothing_while_there_is_no_work(config: dict[str, Any]) -> None:
    workers = {name: node for name, node in config["available_node_types"].items() if name != config["head_node_type"]}
    assert all(node["min_workers"] == 0 for node in workers.values())
    assert sum(node["max_workers"] for node in workers.values()) <= config["max_workers"]
    assert all(node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for node in workers.values())


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).resources.num_gpus > 0])
def test_nodes_hold_the_actors_that_the_pipeline_asks_for(config: dict[str, Any], name: str) -> None:
    resources = preset(name).resources
    network = network_pool([], resources, _joined(config))
    fitting = _fitting(config, network)
    assert fitting["gpu_worker"] >= 8  # as many as there are GPUs
    assert (fitting["head"], fitting["cpu_worker"]) == (0, 0)
    crf = crf_pool([], resources, _joined(config))
    assert crf.num_gpus == 0
    assert _fitting(config, crf)["cpu_worker"] >= 64
    # the CPUs that decode and load beside a training worker, which holds one GPU and one CPU
    assert config["available_node_types"]["gpu_worker"]["resources"]["CPU"] >= 1 + 0.5 * resources.max_loader_actors


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).resources.num_gpus > 0])
def test_pools_may_grow_to_what_the_cluster_can_become(config: dict[str, Any], name: str) -> None:
    resources, joined = preset(name).resources, _joined(config)
    network, crf = network_pool([], resources, joined), crf_pool([], resources, joined)
    assert network.max_actors >= _fitting(config, network)["gpu_worker"]
    assert crf.max_actors >= _fitting(config, crf)["cpu_worker"]
