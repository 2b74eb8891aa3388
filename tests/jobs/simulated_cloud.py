"""A cluster that grows: Ray's simulated autoscaler starts nodes of this machine as a cloud would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from engine.distributed.ray_internals import ENVIRONMENT, answers

_LIMIT_S = 60.0
_COMMON = {"node_config": {}, "min_workers": 0}
# Ray's wheel lacks the file that the simulated provider reads its defaults from
_SITECUSTOMIZE = """
import builtins
plain_open = builtins.open
def open_or_defaults(file, *args, **kwargs):
    if str(file).endswith("fake_multi_node/example.yaml"):
        file = {defaults!r}
    return plain_open(file, *args, **kwargs)
builtins.open = open_or_defaults
"""


@contextmanager
def simulated_cloud(node_types: dict[str, tuple[dict[str, float], int]]) -> Iterator[str]:
    """A head without CPUs, and an autoscaler.

    Args:
        node_types: resources, and the most nodes, by name.

    Yields:
        The cluster's address.
    """
    with tempfile.TemporaryDirectory(prefix="t2m-") as folder:  # a short path: sockets lie in it
        address = f"{ray.util.get_node_ip_address()}:{_free_port()}"
        config, defaults = Path(folder, "cluster.json"), Path(folder, "defaults.json")
        defaults.write_text(json.dumps(_config({}, address)))
        config.write_text(json.dumps(_config(node_types, address)))
        Path(folder, "sitecustomize.py").write_text(_SITECUSTOMIZE.format(defaults=str(defaults)))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            **ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join([folder, str(Path(__file__).resolve().parents[2])]),
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "RAY_prestart_worker_first_driver": "0",
        }
        options = [f"--port={address.rpartition(':')[2]}", f"--autoscaling-config={config}", f"--temp-dir={folder}/ray"]
        options += ["--num-cpus=0", "--num-gpus=0", "--object-store-memory=90000000", "--include-dashboard=false"]
        with Path(folder, "log").open("wb") as log:
            head = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *options, "--block"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            assert answers(address, _LIMIT_S), Path(folder, "log").read_text()
            yield address
        finally:
            head.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                head.wait(10)
            _end(folder)


def _config(node_types: dict[str, tuple[dict[str, float], int]], address: str) -> dict[str, Any]:
    types: dict[str, Any] = {
        name: {"resources": {**resources, "object_store_memory": 90_000_000}, "max_workers": most, **_COMMON}
        for name, (resources, most) in node_types.items()
    }
    # the name that the simulated head gives itself
    types["ray.head.default"] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    provider = {"type": "fake_multinode", "launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID}
    empty = (
        *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
        *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
        *("rsync_exclude", "rsync_filter"),
    )
    return {
        "cluster_name": "simulated",
        "max_workers": sum(most for _, most in node_types.values()),
        "provider": {**provider, "gcs_address": address},
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 10,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in empty},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(folder: str) -> None:
    """End the processes of the nodes, which are no children of the head."""
    end = time.monotonic() + _LIMIT_S
    while left := _processes_in(folder):
        assert time.monotonic() < end, left
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.2)


def _processes_in(folder: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if state != "Z" and folder.encode() in words:
                found.append(int(entry.name))
    return found
