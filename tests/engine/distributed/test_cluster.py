"""Joining or starting Ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import ray

from engine.distributed import cluster
from engine.distributed.cluster import connected
from engine.errors import ConfigError
from engine.resources import ResourceConfig


@pytest.mark.slow
def test_existing_connection_is_used_and_kept(ray_session: None) -> None:
    with connected(ResourceConfig()) as found:
        assert (found.num_cpus, found.num_gpus, found.started_here) == (8, 0, False)
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "http://127.0.0.1:8265",
            "a dashboard, which only takes submissions: use `ray job submit`",
        ),
        ("ray://127.0.0.1:10001", "a Ray Client server, .*: use `ray job submit`"),
        ("127.0.0.1:{port}", r"but no Ray answered there within 0.5 s; .* or unset it"),
    ],
)
def test_address_that_no_driver_can_use_is_the_users_mistake(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 0.5)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever ran before this test
    with socket.socket() as silent:  # as a service of another kind
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("RAY_ADDRESS", address.format(port=silent.getsockname()[1]))
        with pytest.raises(ConfigError, match=f"^RAY_ADDRESS is '.*', {said}"), connected(ResourceConfig()):
            pass


ALONE = """
import ray
from engine.distributed.cluster import connected
from engine.resources import ResourceConfig
from engine.errors import ConfigError

try:
    with connected(ResourceConfig(num_gpus=1)):
        print("went on without a GPU")
except ConfigError as error:
    print(error)
print(ray.is_initialized())
with connected(ResourceConfig()) as outer, connected(ResourceConfig()) as inner:
    print(outer.started_here, inner.started_here)
"""


@pytest.mark.slow
def test_without_a_cluster_ray_starts_quietly_and_ends_and_missing_gpus_are_refused() -> None:
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
        "resources.num_gpus must be at most 0, the GPUs of this machine, got 1; use 0 for CPUs or run on a cluster",
        "False",
        "True True",
    ]
    assert done.stderr == ""


def test_ray_that_a_busy_machine_starts_too_slowly_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []
    ends: list[int] = []

    def init(**options: object) -> None:
        tries.append(options["num_cpus"])
        if len(tries) < 3:
            raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: ends.append(len(tries)))
    cluster._start_ray(6)
    assert (tries, ends) == ([6, 6, 6], [1, 2])
    tries.clear()
    monkeypatch.setattr(cluster, "STARTS", 2)
    with pytest.raises(Exception, match="timed out during startup"):
        cluster._start_ray(6)
    assert tries == [6, 6]


def test_other_errors_of_ray_are_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ValueError("no such address")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="no such address"):
        cluster._start_ray(6)
