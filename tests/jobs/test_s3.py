"""The jobs with everything on S3: manifest, images, weights, seeds, masks, checkpoints, truth."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from engine.config import WalkConfig
from engine.fitting.samples import LoadSamples, SampleSource
from engine.scenes import CLASS_NAMES
from engine.storage.filesystem import list_names, read_bytes
from engine.storage.manifest import open_manifest
from engine.storage.shards import committed_shards, read_shards
from jobs import evaluate, label, make_seeds, train_cam
from jobs.cli.command import main
from tests.jobs.small_runs import QUICK, RESOURCES, small_settings, write_random_cam, write_some_scenes
from tests.s3_faults import faulty
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.s3]
NUM_IMAGES = 12
SETTINGS = replace(small_settings(), walk=WalkConfig(num_steps=0), resources=RESOURCES)
BUCKET = "jobs"
REFUSED_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def bucket(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bucket with scenes, their truth, a manifest with three bad rows, and a classifier that nobody trained."""
    uri = s3.make_bucket(BUCKET)
    local = tmp_path_factory.mktemp("scenes")
    write_some_scenes(local / "scenes", NUM_IMAGES)
    write_random_cam(local / "random")
    client = _client(s3)
    for path in local.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, str(path.relative_to(local)))
    lines = (local / "scenes" / "manifest.csv").read_text().splitlines()
    bad = [f"{image},{CLASS_NAMES[0]}" for image in ("images/nowhere.jpg", "s3://nowhere-at-all/x.jpg", "secret.jpg")]
    text = "\n".join([*lines, *bad]) + "\n"
    client.put_object(Bucket=BUCKET, Key="scenes/bad.csv", Body=text.encode())
    client.put_object(Bucket=BUCKET, Key="scenes/secret.jpg", Body=b"nobody reads this")
    denied = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject"}
    policy = {"Statement": [{**denied, "Resource": f"arn:aws:s3:::{BUCKET}/scenes/secret.jpg"}]}
    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", **policy}))
    return uri


def _client(s3: S3Server) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )


def _shared(bucket: str, data: str, out: str) -> dict[str, Any]:
    return {"data": f"{bucket}/scenes/{data}", "out": f"{bucket}/{out}", "settings": SETTINGS}


@pytest.fixture(scope="module")
def cam(bucket: str, ray_session: None, quick_reports: None) -> str:
    odd = "cam é#1 %20"  # a key is taken literally, by Ray's checkpoints too
    train_cam.run(train_cam.TrainCam(**_shared(bucket, "manifest.csv", odd)))
    return f"{bucket}/{odd}"


@pytest.fixture(scope="module")
def masks(bucket: str, cam: str, without_ray: None) -> str:
    config = label.Label(**_shared(bucket, "bad.csv", "masks"), max_error_fraction=0.25, cam=cam)
    label.run(config)
    return config.out


def test_classifier_is_trained_with_everything_on_s3(cam: str) -> None:
    assert list_names(cam) == ["curves.png", "run.json", "summary.json", "weights.safetensors"]
    assert len(list_names(f"{cam}/tensorboard")) == 1
    assert list_names(f"{cam}/.tag2mask") == ["manifest", "manifest.json"]  # no checkpoints left


def test_networks_learn_from_seeds_on_s3(bucket: str, cam: str, without_ray: None) -> None:
    config = make_seeds.MakeSeeds(**_shared(bucket, "manifest.csv", "seeds"), cam=cam)
    make_seeds.run(config)
    assert committed_shards(config.out) == {0, 1, 2, 3}
    frozen = f"{config.out}/.tag2mask"
    source = SampleSource(
        manifest=frozen,
        target="seed",
        shards=config.out,
        rows_of_shards=open_manifest(frozen).rows_of_shards,
        num_classes=len(CLASS_NAMES),
        grid_stride=8,
        max_pixels=10**6,
    )
    samples = LoadSamples(source, SETTINGS.affinity.training, rank=0, num_workers=1)({"step": [0], "held_out": [False]})
    assert samples["image"].shape == (4, 64, 64, 3)
    assert samples["target"].shape == (4, 8, 8)


def test_object_that_is_missing_or_forbidden_is_an_error_row_and_costs_no_other(bucket: str, masks: str) -> None:
    summary = json.loads(read_bytes(f"{masks}/.tag2mask/summary.json"))
    assert (summary["images"], summary["labeled"], summary["errors"]) == (NUM_IMAGES + 3, NUM_IMAGES, {"fetch": 3})
    rows = [row for table in read_shards(masks) for row in table.to_pylist()]
    assert len({row["image_id"] for row in rows}) == len(rows) == NUM_IMAGES + 3
    errors = {row["image_id"]: row["error"] for row in rows if row["error"] is not None}
    assert errors == {
        "images/nowhere.jpg": f"fetch: '{bucket}/scenes/images/nowhere.jpg' does not exist",
        "s3://nowhere-at-all/x.jpg": "fetch: 's3://nowhere-at-all/x.jpg' does not exist",
        "secret.jpg": f"fetch: '{bucket}/scenes/secret.jpg' may not be accessed with these credentials",
    }
    assert all(row["mask"] is not None for row in rows if row["error"] is None)


def test_masks_are_scored_against_truth_on_s3(bucket: str, masks: str) -> None:
    result = evaluate.run(evaluate.Evaluate(masks=masks, truth=f"{bucket}/scenes/truth"))
    assert result["images"] == NUM_IMAGES
    assert json.loads(read_bytes(f"{masks}/.tag2mask/evaluation.json"))["miou"] == result["miou"]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a job that must end soon, with exit status 2 and one line."""

    def run(job: Any, config_class: Any, *options: str) -> str:
        start = time.monotonic()
        assert main(config_class, job.run, [*options, *QUICK]) == 2
        assert time.monotonic() - start < REFUSED_WITHIN_S
        *progress, line = capsys.readouterr().err.splitlines()
        assert all(said.startswith("[") for said in progress)  # of what lasts
        assert line.startswith("error: ")
        return line

    return run


@pytest.mark.parametrize("key", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", ""])
def test_wrong_or_missing_credentials_are_the_users_mistake(
    key: str, bucket: str, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv(key, "wrong")
    else:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said = "may not be accessed" + (" with these credentials" if key else ": no AWS credentials were found")
    data = f"{bucket}/scenes/manifest.csv"
    line = refused(train_cam, train_cam.TrainCam, "--data", data, "--out", str(tmp_path / "cam"))
    assert line == f"error: --data '{bucket}/scenes/classes.txt' {said}"
    inputs = ["--data", data, "--cam", f"{bucket}/random", "--walk.num-steps=0"]
    line = refused(label, label.Label, *inputs, "--out", f"{bucket}/no")
    assert said in line
    local = write_some_scenes(tmp_path / "scenes", 2)
    options = ["--cam.weights=random", "--cam.backbone=mobilenetv3_small_050"]
    line = refused(train_cam, train_cam.TrainCam, "--data", local, "--out", f"{bucket}/no", *options)
    assert line == f"error: --out '{bucket}/no' {said}"


def test_missing_bucket_is_the_users_mistake(bucket: str, refused: Any, tmp_path: Path) -> None:
    line = refused(train_cam, train_cam.TrainCam, "--data", "s3://nobody-here/m.csv", "--out", str(tmp_path / "cam"))
    assert line == "error: --data 's3://nobody-here/m.csv' does not exist"
    options = ["--data", f"{bucket}/scenes/manifest.csv", "--walk.num-steps=0"]
    line = refused(label, label.Label, *options, "--cam", "s3://nobody-here/cam", "--out", str(tmp_path / "out"))
    assert "s3://nobody-here/cam" in line
    line = refused(label, label.Label, *options, "--cam", f"{bucket}/random", "--out", "s3://nobody-here/out")
    assert "bucket 'nobody-here' does not exist" in line


def test_server_that_does_not_answer_is_told_in_one_line(
    bucket: str, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    data = f"{bucket}/scenes/manifest.csv"
    line = refused(train_cam, train_cam.TrainCam, "--data", data, "--out", str(tmp_path / "cam"))
    assert (
        line == f"error: --data '{bucket}/scenes/classes.txt' failed: NETWORK_CONNECTION (Could not connect to server)"
    )


def test_expired_credentials_are_told_in_one_line(
    s3: S3Server, bucket: str, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(s3.endpoint, lambda method, path: "expired" if method == "PUT" or "list-type" in path else "") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        inputs = ["--data", f"{bucket}/scenes/manifest.csv", "--cam", f"{bucket}/random", "--walk.num-steps=0"]
        line = refused(label, label.Label, *inputs, "--out", f"{bucket}/late")
    assert line == f"error: --out '{bucket}/late' may not be accessed with these credentials: they have expired"
