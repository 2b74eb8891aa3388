"""A job handed to a running cluster with ``ray job submit``, the code included, its data on S3."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from engine.storage.filesystem import write_bytes
from engine.storage.shards import committed_shards, read_shards
from tests.conftest import ROOT
from tests.jobs.chaos import cluster_of_nodes
from tests.jobs.small_runs import QUICK, small_settings, write_random_cam, write_settings, write_some_scenes
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.s3]
RAY = str(Path(sys.executable).parent / "ray")
START_S, JOB_S = 180.0, 400.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def taking_submissions(num_nodes: int, **head: Any) -> Iterator[str]:
    """The address of a head with its dashboard, and nodes for the work."""
    port = _free_port()
    head |= {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port}
    head["dashboard_agent_listen_port"] = _free_port()  # its usual one may be another cluster's on this machine
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)  # a job gets what it needs with its submission
        patch.setenv("RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT", "120")  # 30 s are short on a busy machine
        with cluster_of_nodes(num_nodes, **head):
            address = f"http://127.0.0.1:{port}"
            _wait_until_ready(address)
            patch.undo()
            yield address


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with taking_submissions(1) as found:
        yield found


def _wait_until_ready(address: str) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            JobSubmissionClient(address).list_jobs()
        except Exception:  # noqa: BLE001, whatever it says while it starts
            assert time.monotonic() < end, "the dashboard is not ready"
            time.sleep(0.5)
        else:
            return


def test_submitted_job_labels_from_s3_to_s3(address: str, s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.make_bucket(f"submit-{uuid.uuid4().hex[:12]}")
    write_some_scenes(tmp_path / "scenes", 6)
    write_random_cam(tmp_path / "cam")
    for path in [*(tmp_path / "scenes").rglob("*"), *(tmp_path / "cam").iterdir()]:
        if path.is_file():
            write_bytes(f"{bucket}/{path.relative_to(tmp_path)}", path.read_bytes())
    job = [sys.executable, "-m", "jobs.label", f"--data={bucket}/scenes/manifest.csv", f"--cam={bucket}/cam"]
    job += [f"--out={bucket}/masks", "--walk.num-steps=0", *QUICK]
    job += [f"--config={write_settings(tmp_path, small_settings())}"]
    submit = [RAY, "job", "submit", "--address", address, "--working-dir", "."]
    profile = tmp_path / "aws-config"
    profile.write_text(
        f"[profile lab]\nendpoint_url = {s3.endpoint}\nregion = us-east-1\n"
        f"aws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
    )
    account = {"AWS_CONFIG_FILE": str(profile), "AWS_PROFILE": "lab"}  # the keys stay in the file
    submit += ["--runtime-env-json", json.dumps({"env_vars": account})]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    end = time.monotonic() + START_S
    while True:
        with (tmp_path / "said").open("w") as log:
            done = subprocess.run(
                [*submit, "--", *job], cwd=ROOT, env=environment, stdout=log, stderr=log, timeout=JOB_S, check=False
            )
        said = (tmp_path / "said").read_text()
        # the head's agent comes up after its dashboard
        if "No available agent" not in said or time.monotonic() > end:
            break
    assert done.returncode == 0, said
    info = next(info for info in JobSubmissionClient(address).list_jobs() if "--cam=s3" in info.entrypoint)
    assert (info.status, info.driver_exit_code) == (JobStatus.SUCCEEDED, 0)
    assert committed_shards(f"{bucket}/masks") == {0, 1}
    rows = [row for table in read_shards(f"{bucket}/masks") for row in table.to_pylist()]
    assert len(rows) == 6
    assert all(row["mask"] is not None and row["error"] is None for row in rows)


def test_submitted_job_with_relative_paths_is_refused(address: str, tmp_path: Path) -> None:
    client = JobSubmissionClient(address)
    commands = {
        "import --source /nowhere --format folders --out runs/x": "error: --out 'runs/x' lies in Ray's copy of the",
        f"label --data m.csv --cam c --out {tmp_path}/x": "does not exist in Ray's copy of the working directory; give",
    }
    working_dir = {"working_dir": str(ROOT)}
    jobs = {
        client.submit_job(entrypoint=f"{sys.executable} -m jobs.{command}", runtime_env=working_dir): said
        for command, said in commands.items()
    }
    end = time.monotonic() + JOB_S
    while any(not client.get_job_status(job).is_terminal() for job in jobs):
        assert time.monotonic() < end
        time.sleep(0.5)
    for job, said in jobs.items():
        logs = client.get_job_logs(job)
        assert said in logs
        assert client.get_job_info(job).driver_exit_code == 2, logs
