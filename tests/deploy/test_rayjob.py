"""deploy/rayjob.yaml: a RayJob by KubeRay's schema, with the nodes of cluster.yaml."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "tests" / "deploy" / "rayjob_schema.json").read_text())


@pytest.fixture
def account_and_job() -> tuple[dict[str, Any], dict[str, Any]]:
    account, job = yaml.safe_load_all((ROOT / "deploy" / "rayjob.yaml").read_text())
    return account, job


@pytest.fixture
def job(account_and_job: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    return copy.deepcopy(account_and_job[1])


def _pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    workers = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], **workers}


def test_kuberay_accepts_the_job(job: dict[str, Any]) -> None:
    jsonschema.validate(job, SCHEMA)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.shutdownAfterJobFinished", True),
        ("spec.rayClusterSpec.autoscalerOptions.upscalingMode", "Fast"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", "8"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.tolerations.0.operators", "Exists"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.resource", {}),
    ],
)
def test_kuberay_refuses_what_a_slip_of_the_pen_makes_of_it(job: dict[str, Any], path: str, value: object) -> None:
    *way, last = path.split(".")
    at: Any = job
    for step in way:
        at = at[int(step) if step.isdigit() else step]
    at[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, SCHEMA)


def test_ray_counts_the_nodes_of_the_cluster_file(job: dict[str, Any]) -> None:
    # what Ray's autoscaler makes of the object that KubeRay gives it
    cluster = {"metadata": {"name": "tag2mask", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    groups = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    nodes = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]
    for group, name in (("headgroup", "head"), ("gpu-worker", "gpu_worker"), ("cpu-worker", "cpu_worker")):
        counted = {key: groups[group]["resources"].get(key, 0) for key in ("CPU", "GPU")}
        assert (counted, groups[group]["max_workers"]) == (nodes[name]["resources"], nodes[name].get("max_workers", 0))


def test_pods_fit_nodes_of_the_size_that_the_cluster_file_has(job: dict[str, Any]) -> None:
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        # the kubelet keeps a part of a node, so that a pod which asks for all of it waits forever
        assert int(container["resources"]["requests"]["cpu"]) < int(group["rayStartParams"]["num-cpus"])
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


def test_pods_find_the_store_shared_memory_and_spot_nodes(
    account_and_job: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    account, job = account_and_job
    for name, pod in _pods(job).items():
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "tag2mask-store", "optional": True}}]
        assert pod["serviceAccountName"] == account["metadata"]["name"]
        (volume,) = pod["volumes"]
        assert volume["emptyDir"]["medium"] == "Memory"
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/dev/shm"}]
        keys = {one["key"] for one in pod.get("tolerations", [])}
        assert ("cloud.google.com/gke-spot" in keys) == (name != "head")
        assert ("lifecycle" in container) == (name != "head")


def test_cluster_ends_with_the_job_and_runs_the_version_of_ray_that_is_pinned(job: dict[str, Any]) -> None:
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    assert job["spec"]["entrypoint"].startswith("tag2mask run ")
