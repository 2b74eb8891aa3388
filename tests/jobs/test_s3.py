"""The jobs with everything on S3: manifest, images, weights, seeds, masks, checkpoints, truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from engine.scenes import CLASS_NAMES
from engine.storage.filesystem import list_names, read_bytes
from engine.storage.shards import committed_shards, read_shards
from jobs import evaluate, label, train_cam
from jobs.command import main
from tests.conftest import ROOT
from tests.jobs.small_runs import QUICK, small_settings, write_random_cam, write_settings, write_some_scenes
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.s3]
NUM_IMAGES = 12
BUCKET = "jobs"
REFUSED_WITHIN_S = 30.0

CHAIN = """
import importlib, json, sys
from engine.cluster import connected
from engine.config import ResourceConfig
from jobs.command import main

CLASSES = {"train_cam": "TrainCam", "make_seeds": "MakeSeeds", "train_affinity": "TrainAffinity", "label": "Label"}
with connected(ResourceConfig()):
    for job, options in json.loads(sys.argv[1]):
        module = importlib.import_module("jobs." + job)
        status = main(getattr(module, CLASSES[job]), module.run, options)
        if status:
            sys.exit(f"{job} ended with {status}")
"""


@pytest.fixture(scope="module")
def bucket(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bucket with scenes, their truth, a manifest with two bad rows, and a classifier that nobody trained."""
    uri = s3.make_bucket(BUCKET)
    local = tmp_path_factory.mktemp("scenes")
    write_some_scenes(local / "scenes", NUM_IMAGES)
    write_random_cam(local / "random")
    client = _client(s3)
    for path in local.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, str(path.relative_to(local)))
    lines = (local / "scenes" / "manifest.csv").read_text().splitlines()
    bad = [f"images/nowhere.jpg,{CLASS_NAMES[0]}", f"s3://nowhere-at-all/x.jpg,{CLASS_NAMES[0]}"]
    text = "\n".join([*lines, *bad]) + "\n"
    client.put_object(Bucket=BUCKET, Key="scenes/bad.csv", Body=text.encode())
    return uri


def _client(s3: S3Server) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )


@pytest.fixture(scope="module")
def chain(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every job up to the masks, one after the other in a process whose Ray has the variables of the server."""
    settings = write_settings(tmp_path_factory.mktemp("settings"), small_settings())
    shared = ["--config", settings, *QUICK]
    plain, bad = ["--data", f"{bucket}/scenes/manifest.csv"], ["--data", f"{bucket}/scenes/bad.csv"]
    cam, affinity = ["--cam", f"{bucket}/cam"], ["--affinity", f"{bucket}/affinity"]
    commands = [
        ("train_cam", [*plain, "--out", f"{bucket}/cam"]),
        ("make_seeds", [*plain, *cam, "--out", f"{bucket}/seeds"]),
        ("train_affinity", [*plain, "--seeds", f"{bucket}/seeds", "--out", f"{bucket}/affinity"]),
        ("label", [*bad, *cam, *affinity, "--out", f"{bucket}/masks", "--max-error-fraction", "0.2"]),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", CHAIN, json.dumps([(job, [*options, *shared]) for job, options in commands])],
        cwd=ROOT,
        env={**environment, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return bucket


def test_chain_runs_with_everything_on_s3(chain: str) -> None:
    assert committed_shards(f"{chain}/seeds") == {0, 1, 2, 3}
    assert committed_shards(f"{chain}/masks") == {0, 1, 2, 3, 4}
    for trained in ("cam", "affinity"):
        assert list_names(f"{chain}/{trained}") == ["curves.png", "run.json", "summary.json", "weights.safetensors"]
        assert len(list_names(f"{chain}/{trained}/tensorboard")) == 1
        assert list_names(f"{chain}/{trained}/.tag2mask") == ["manifest"]  # no checkpoints left
    summary = json.loads(read_bytes(f"{chain}/masks/summary.json"))
    assert (summary["images"], summary["labeled"], summary["errors"]) == (NUM_IMAGES + 2, NUM_IMAGES, {"fetch": 2})


def test_object_that_is_missing_is_an_error_row_and_costs_no_other(chain: str) -> None:
    rows = [row for table in read_shards(f"{chain}/masks") for row in table.to_pylist()]
    errors = {row["image_id"]: row["error"] for row in rows if row["error"] is not None}
    assert errors == {
        "images/nowhere.jpg": f"fetch: '{chain}/scenes/images/nowhere.jpg' does not exist",
        "s3://nowhere-at-all/x.jpg": "fetch: 's3://nowhere-at-all/x.jpg' does not exist",
    }
    assert all(row["mask"] is not None for row in rows if row["error"] is None)


def test_masks_are_scored_against_truth_on_s3(chain: str) -> None:
    result = evaluate.run(evaluate.Evaluate(masks=f"{chain}/masks", truth=f"{chain}/scenes/truth"))
    assert result["images"] == NUM_IMAGES
    assert json.loads(read_bytes(f"{chain}/masks/evaluation.json"))["miou"] == result["miou"]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a job that must end soon, with exit status 2 and one line."""

    def run(job: Any, config_class: Any, *options: str) -> str:
        start = time.monotonic()
        assert main(config_class, job.run, [*options, *QUICK]) == 2
        assert time.monotonic() - start < REFUSED_WITHIN_S
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.mark.parametrize("key", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_the_users_mistake(
    key: str, bucket: str, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, "wrong")
    data = f"{bucket}/scenes/manifest.csv"
    line = refused(train_cam, train_cam.TrainCam, "--data", data, "--out", str(tmp_path / "cam"))
    assert line == f"error: --data: '{bucket}/scenes/classes.txt' may not be accessed with these credentials"
    inputs = ["--data", data, "--cam", f"{bucket}/random", "--walk.num-steps=0"]
    line = refused(label, label.Label, *inputs, "--out", f"{bucket}/no")
    assert "may not be accessed with these credentials" in line
    local = write_some_scenes(tmp_path / "scenes", 2)
    options = ["--cam.weights=random", "--cam.backbone=mobilenetv3_small_050"]
    line = refused(train_cam, train_cam.TrainCam, "--data", local, "--out", f"{bucket}/no", *options)
    assert line.startswith(f"error: --out '{bucket}/no' cannot be used")
    assert "may not be accessed with these credentials" in line


def test_missing_bucket_is_the_users_mistake(bucket: str, refused: Any, tmp_path: Path) -> None:
    line = refused(train_cam, train_cam.TrainCam, "--data", "s3://nobody-here/m.csv", "--out", str(tmp_path / "cam"))
    assert line == "error: --data: 's3://nobody-here/m.csv' does not exist"
    options = ["--data", f"{bucket}/scenes/manifest.csv", "--walk.num-steps=0"]
    line = refused(label, label.Label, *options, "--cam", "s3://nobody-here/cam", "--out", str(tmp_path / "out"))
    assert "s3://nobody-here/cam" in line
    line = refused(label, label.Label, *options, "--cam", f"{bucket}/random", "--out", "s3://nobody-here/out")
    assert "there is no bucket 'nobody-here'" in line


def test_server_that_does_not_answer_is_told_in_one_line(
    bucket: str, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    data = f"{bucket}/scenes/manifest.csv"
    line = refused(train_cam, train_cam.TrainCam, "--data", data, "--out", str(tmp_path / "cam"))
    assert line == f"error: --data: '{bucket}/scenes/classes.txt' failed: NETWORK_CONNECTION"
