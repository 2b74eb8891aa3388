"""deploy/slurm.sh with a `srun` and a `ray` that only say how they were called."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ray.scripts.scripts import start

from tests.conftest import ROOT

RAY = """#!/usr/bin/env bash
case $1 in
start)
  [ -z "$BROKEN" ] || exit 1
  echo "$*" >> "$PLACE/started"; echo $$ >> "$PLACE/pids"; trap 'exit 0' TERM
  while true; do sleep 0.05; done ;;
health-check) [ -s "$PLACE/started" ] ;;
status) sed 's/.*/ 1 node_0a/' "$PLACE/started" ;;
*) echo "$*" >> "$PLACE/unexpected" ;;
esac
"""
SRUN = """#!/usr/bin/env bash
echo "$*" > "$PLACE/step"
while [[ $1 == --* ]]; do case $1 in --overlap | *=*) shift ;; *) shift 2 ;; esac; done
started=()
for _ in $(seq "$SLURM_JOB_NUM_NODES"); do "$@" & started+=($!); done
trap 'kill "${started[@]}"; wait' TERM
wait
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, text in (("ray", RAY), ("srun", SRUN), ("hostname", "#!/bin/sh\necho 10.0.0.7 172.17.0.1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def _start(place: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    allocation = {"SLURM_JOB_ID": "4002", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "16", "BROKEN": ""}
    path = {"PATH": f"{place}:{os.environ['PATH']}", "PLACE": str(place)}
    return subprocess.Popen(
        [ROOT / "deploy" / "slurm.sh", *command],
        env=os.environ | path | allocation | variables,
        text=True,
        stderr=subprocess.PIPE,
    )


def _running(place: Path) -> list[int]:
    """The processes of Ray that were started and live."""
    return [pid for pid in map(int, (place / "pids").read_text().split()) if Path(f"/proc/{pid}").exists()]


def test_command_runs_when_every_node_has_joined_and_ray_ends_with_it(place: Path) -> None:
    command = 'echo "$RAY_ADDRESS $1 $(wc -l < $PLACE/started)" > "$PLACE/job"; exit 3'
    with _start(place, "bash", "-c", command, "job", "two words") as job:
        assert job.wait(timeout=30) == 3
    assert (place / "job").read_text() == "10.0.0.7:20010 two words 4\n"
    assert _running(place) == []
    assert not (place / "unexpected").exists()  # such as `ray stop`, which ends the Ray of other jobs too
    assert "--overlap --nodes 3 --ntasks 3 --ntasks-per-node 1 --cpus-per-task 16" in (place / "step").read_text()


def test_head_takes_no_tasks_and_no_port_is_used_twice_on_a_node(place: Path) -> None:
    with _start(place, "true") as job:
        assert job.wait(timeout=30) == 0
    lines = [line.split()[1:] for line in (place / "started").read_text().splitlines()]
    # refuses what this version of Ray does not know
    head, *workers = (start.make_context("start", line).params for line in lines)
    assert (head["head"], head["num_cpus"], head["num_gpus"], head["include_dashboard"]) == (True, 0, 0, False)
    assert [(worker["address"], worker["num_cpus"]) for worker in workers] == [("10.0.0.7:20010", 16)] * 3
    ports = [int(head["port"]), head["ray_client_server_port"]]
    ports += [node["dashboard_agent_listen_port"] for node in (head, workers[0])]
    assert sorted(ports) == [20010, 20011, 20012, 20013]
    assert {node["temp_dir"] for node in (head, *workers)} == {"/tmp/ray-4002"}


def test_cancelled_job_leaves_no_process(place: Path) -> None:
    with _start(place, "bash", "-c", 'touch "$PLACE/job"; exec sleep 60') as job:
        until = time.monotonic() + 20
        while not (place / "job").exists() and time.monotonic() < until:
            time.sleep(0.02)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=20) == 143
    assert _running(place) == []


def test_ray_that_does_not_start_fails_the_job(place: Path) -> None:
    with _start(place, "touch", str(place / "job"), BROKEN="1") as job:
        assert job.wait(timeout=20) == 1
        assert job.stderr is not None
        assert job.stderr.read() == "error: Ray did not start\n"
    assert not (place / "job").exists()


def test_head_that_dies_while_workers_start_fails_the_job_at_once(place: Path) -> None:
    srun = SRUN.replace("started=()", 'kill "$(head -n 1 "$PLACE/pids")"\nstarted=()')
    (place / "srun").write_text(srun)
    with _start(place, "touch", str(place / "job"), SLURM_JOB_NUM_NODES="3", BROKEN="") as job:
        (place / "ray").write_text(RAY.replace("status)", "status) exit 1 ;;\nunused)"))
        assert job.wait(timeout=20) == 1
    assert not (place / "job").exists()
    assert _running(place) == []


def test_mistakes_start_nothing(place: Path) -> None:
    for command, variables, words in (((), {}, "usage"), (("true",), {"SLURM_JOB_NUM_NODES": ""}, "use sbatch")):
        with _start(place, *command, **variables) as job:
            assert job.wait(timeout=10) != 0
            assert job.stderr is not None
            assert words in job.stderr.read()
    assert not (place / "started").exists()
