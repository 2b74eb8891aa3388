"""The cluster files: Ray accepts them, and their nodes can hold what the pipeline asks for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from engine.distributed.cluster import Cluster
from engine.distributed.pools import Pool, crf_pool, network_pool
from engine.presets import PRESETS, preset
from tests.conftest import ROOT

FILES = {"aws": "cluster.yaml", "gcp": "deploy/cluster-gcp.yaml"}
GPU_IMAGES_PER_S, CRF_S = 50, 0.08
"""What an L4 is expected to do with the networks, and the CPU time of a dCRF at its longest."""


@pytest.fixture(scope="module", params=list(FILES))
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return _read(request.param)


def _read(cloud: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / FILES[cloud]).read_text())
    return values


def _joined(config: dict[str, Any]) -> Cluster:
    """The cluster as a job sees it that starts on the head, before any worker is there."""
    head = config["available_node_types"][config["head_node_type"]]["resources"]
    return Cluster(num_cpus=head["CPU"], num_gpus=head["GPU"], num_cores=4, started_here=False)


def _fitting(config: dict[str, Any], pool: Pool) -> dict[str, int]:
    """Actors of a pool that one node of each type holds."""
    counts = {}
    for name, node in config["available_node_types"].items():
        cpus, gpus = node["resources"]["CPU"], node["resources"]["GPU"]
        counts[name] = int(min(cpus // pool.num_cpus, gpus // pool.num_gpus if pool.num_gpus else cpus))
    return counts


def test_ray_accepts_the_cluster_file(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_ray_accepts_it_with_the_docker_image_that_a_comment_offers() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    block = re.search(r"^# docker:\n(#   .+\n)+", text, flags=re.MULTILINE)
    assert block
    config = yaml.safe_load(text) | yaml.safe_load(re.sub(r"^# ", "", block[0], flags=re.MULTILINE))
    validate_config(prepare_config(config))
    assert "install" not in " ".join(config["head_setup_commands"])
    # the set-up does nothing where the image has installed it already, at the same place
    assert config["setup_commands"][0].startswith("test -x /opt/tag2mask/bin/tag2mask || {")
    assert "/opt/tag2mask /opt/tag2mask" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_ray_refuses_what_a_slip_of_the_pen_makes_of_it(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config({**config, "max_worker": 3}))


def test_both_clouds_are_set_up_alike() -> None:
    aws, gcp = _read("aws"), _read("gcp")
    for name in ("setup_commands", "file_mounts", "rsync_exclude", "max_workers", "idle_timeout_minutes"):
        assert aws[name] == gcp[name]
    types = {
        name: [(node["resources"], node.get("max_workers"), node.get("priority")) for node in nodes.values()]
        for name, nodes in (("aws", aws["available_node_types"]), ("gcp", gcp["available_node_types"]))
    }
    assert types["aws"] == types["gcp"]


def test_workers_are_spot_instances_and_on_demand_only_where_there_are_none(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}}
    if "machineType" in nodes["gpu_worker"]["node_config"]:
        spot = {"scheduling": nodes["gpu_worker"]["node_config"]["scheduling"]}
        assert spot["scheduling"]["provisioningModel"] == "SPOT"
    for name in ("gpu_worker", "cpu_worker"):
        assert nodes[name]["node_config"].items() >= spot.items()
    on_demand, same = (nodes[name]["node_config"] for name in ("gpu_worker_on_demand", "gpu_worker"))
    assert all(on_demand.get(key) != value for key, value in spot.items())
    assert {**on_demand, **spot} == same
    assert nodes["gpu_worker_on_demand"]["priority"] < nodes["gpu_worker"]["priority"]
    assert all(node.get("min_workers", 0) == 0 for node in nodes.values())  # nothing is paid for without work


def test_head_takes_no_tasks(config: dict[str, Any]) -> None:
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).resources.num_gpus > 0])
def test_nodes_hold_the_actors_that_the_pipeline_asks_for(config: dict[str, Any], name: str) -> None:
    resources = preset(name).resources
    network, crf = (pool([], resources, _joined(config)) for pool in (network_pool, crf_pool))
    assert _fitting(config, network) == {"head": 0, "gpu_worker": 1, "gpu_worker_on_demand": 1, "cpu_worker": 0}
    node = config["available_node_types"]["gpu_worker"]["resources"]
    # beside its network actor a GPU worker runs the dCRF of as many images as it makes
    spare = (node["CPU"] - network.num_cpus) // crf.num_cpus
    assert spare / CRF_S >= GPU_IMAGES_PER_S
    # the CPUs that decode and load beside a training worker, which holds one GPU and one CPU
    assert node["CPU"] >= 1 + 0.5 * resources.max_loader_actors


def test_quotas_are_those_of_the_nodes() -> None:
    text, nodes = (ROOT / "cluster.yaml").read_text(), _read("aws")["available_node_types"]
    vcpus = {"g6.2xlarge": 8, "c7i.4xlarge": 16, "m6i.xlarge": 4}
    assert all(vcpus[node["node_config"]["InstanceType"]] >= node["resources"]["CPU"] for node in nodes.values())
    for name, quota in (
        ("gpu_worker", "L-3819A6DF"),
        ("gpu_worker_on_demand", "L-DB2E81BA"),
        ("cpu_worker", "L-34B43A08"),
        ("head", "L-1216C47A"),
    ):
        asked = re.search(rf"\({quota}\) +(\d+)", text)
        count = nodes[name].get("max_workers", 1)
        assert asked
        assert int(asked[1]) == count * vcpus[nodes[name]["node_config"]["InstanceType"]]


def test_policy_of_the_head_lets_it_start_workers() -> None:
    statements = json.loads((ROOT / "deploy" / "aws-policy.json").read_text())["Statement"]
    allowed = {
        action
        for one in statements
        for action in [one["Action"]]
        for action in ([action] if isinstance(action, str) else action)
    }
    # what AWSNodeProvider of Ray 2.58 calls, and what `resolve:ssm:` and instance profiles need
    assert allowed >= {
        *(f"ec2:{name}" for name in ("RunInstances", "TerminateInstances", "DescribeInstances", "CreateTags")),
        "ssm:GetParameters",
        "iam:PassRole",
    }
    worker = _read("aws")["available_node_types"]["gpu_worker"]["node_config"]["IamInstanceProfile"]["Arn"]
    assert worker.replace("instance-profile", "role") in [one["Resource"] for one in statements]


def test_workers_drain_at_a_spot_notice(config: dict[str, Any]) -> None:
    (command,) = [line for line in config["worker_start_ray_commands"] if "drain.sh" in line]
    assert command.endswith("&")
    (script,) = re.findall(r"~/tag2mask/(\S+\.sh)", command)
    assert (ROOT / script).is_file()
