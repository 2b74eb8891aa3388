"""The command itself: killed and typed again, and submitted to a cluster with everything on S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.storage.filesystem import list_entries, list_names, read_bytes, write_bytes
from jobs.cli.command import parse
from tests.conftest import ROOT
from tests.jobs.test_submit import JOB_S, RAY, START_S, taking_submissions
from tests.s3_server import S3Server
from tests.tune.conftest import NUM_TRUE, SPACE, arguments
from tests.without_ray import shards_in_this_process
from tune import search

pytestmark = pytest.mark.slow
LIMIT_S = 400.0
NUM_BETAS = 8
LONG = ("--alphas", "0.7", "1.3", "4", "--betas", *map(str, range(1, NUM_BETAS + 1)), "--steps", "5", "90")


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "tune.search", *options]


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return environment | {"PYTHONPATH": str(ROOT)}


def test_killed_search_ends_as_an_undisturbed_one(folder: Path) -> None:
    counts = folder / "killed" / ".tag2mask" / "counts"
    with (folder / "said").open("w") as log:
        command = _command(*arguments(folder, "killed", *LONG))
        process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=log, stderr=log)
        try:
            end = time.monotonic() + LIMIT_S
            while len(list(counts.glob("walk-*/*.parquet"))) < 2:
                assert process.poll() is None, (folder / "said").read_text()
                assert time.monotonic() < end, (folder / "said").read_text()
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait(30)
    kept = {shard: shard.stat().st_mtime_ns for shard in counts.glob("walk-*/*.parquet")}
    assert len(kept) < NUM_TRUE  # a shard holds one image
    assert not (folder / "killed" / "results.parquet").exists()
    time.sleep(1)  # an actor that was counting may outlive its driver by a moment
    with shards_in_this_process():
        search.run(parse(search.Search, arguments(folder, "killed", *LONG)))
        assert sum(shard.stat().st_mtime_ns == written for shard, written in kept.items()) >= len(kept) - 2
        search.run(parse(search.Search, arguments(folder, "calm", *LONG)))
    for name in ("results.parquet", "best.json"):
        assert (folder / "killed" / name).read_bytes() == (folder / "calm" / name).read_bytes()


@pytest.fixture
def address() -> Iterator[str]:
    # One node: two on one machine share the folder of a job's files, and the one that is done first deletes it.
    with taking_submissions(0, num_cpus=4) as found:
        yield found


@pytest.mark.s3
def test_submitted_search_reads_and_writes_s3(folder: Path, address: str, s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.make_bucket(f"search-{uuid.uuid4().hex[:12]}")
    for name in ("scenes", "truth", "cam", "affinity"):
        for path in (folder / name).rglob("*"):
            if path.is_file():
                write_bytes(f"{bucket}/{path.relative_to(folder)}", path.read_bytes())
    local = arguments(folder, "submitted", *SPACE)
    options = [option.replace(str(folder), bucket) for option in local]
    submit = [RAY, "job", "submit", "--address", address, "--working-dir", "."]
    submit += ["--runtime-env-json", json.dumps({"env_vars": s3.variables()})]
    end = time.monotonic() + START_S
    while True:
        with (tmp_path / "said").open("w") as log:
            done = subprocess.run(
                [*submit, "--", *_command(*options)],
                cwd=ROOT,
                env=_environment(),
                stdout=log,
                stderr=log,
                timeout=JOB_S,
                check=False,
            )
        said = (tmp_path / "said").read_text()
        # the head's agent comes up after its dashboard
        if "No available agent" not in said or time.monotonic() > end:
            break
    assert done.returncode == 0, said
    (tmp_path / "results.parquet").write_bytes(read_bytes(f"{bucket}/submitted/results.parquet"))
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(rows) == 3 * (1 + 2 * 2) + 1
    assert all(row["images"] == NUM_TRUE for row in rows)
    assert json.loads(read_bytes(f"{bucket}/submitted/best.json"))["miou"] == rows[0]["miou"]
    for network in ("cam", "affinity"):
        (place,) = (name for name in list_entries(f"{bucket}/cache") if name.startswith(network))
        assert list_names(f"{bucket}/cache/{place}", suffix=".parquet")
