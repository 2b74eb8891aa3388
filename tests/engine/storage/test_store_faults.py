"""What a run sees of a store with faults: most pass, some are one image's, some are the whole run's."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.distributed.actor import PoolActor
from engine.distributed.pools import Pool
from engine.errors import StoreUnavailableError
from engine.fitting.samples import LoadSamples, SampleSource
from engine.presets import preset
from engine.records import Batch
from engine.stages.fetch import FetchImages
from engine.step import Step
from engine.storage import filesystem, probes, retries
from engine.storage import s3 as s3_client
from engine.storage.manifest import freeze_manifest
from tests.engine.stages.examples import png
from tests.s3_faults import Rule, faulty
from tests.s3_server import S3Server

pytestmark = pytest.mark.s3
Through = Callable[[Rule], None]


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """With three small objects."""
    uri = s3.make_bucket(f"faults-{uuid.uuid4().hex[:12]}")
    for name in "abc":
        filesystem.write_bytes(f"{uri}/{name}", name.encode() * 1000)
    return uri


@pytest.fixture
def through(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Through]:
    """From here on every request goes through a proxy with these faults."""
    with ExitStack() as stack:

        def start(rule: Rule) -> None:
            monkeypatch.setenv("AWS_ENDPOINT_URL", stack.enter_context(faulty(s3.endpoint, rule)))

        yield start


def _first(count: int, fault: str, method: str) -> Rule:
    """The first requests of one method fail."""
    seen: Counter[str] = Counter()

    def rule(this: str, path: str) -> str:
        seen[this] += 1
        return fault if this == method and seen[this] <= count else ""

    return rule


@pytest.mark.parametrize("fault", ["busy", "broken", "reset", "cut"])
def test_read_goes_on_after_a_fault_that_passes(fault: str, bucket: str, through: Through) -> None:
    through(_first(2, fault, "GET"))
    assert filesystem.read_bytes(f"{bucket}/a") == b"a" * 1000


@pytest.mark.parametrize("fault", ["busy", "reset"])
def test_write_goes_on_after_a_fault_that_passes(fault: str, bucket: str, through: Through) -> None:
    through(_first(2, fault, "PUT"))
    filesystem.write_bytes(f"{bucket}/new", b"new")
    assert filesystem.read_bytes(f"{bucket}/new") == b"new"


def test_server_that_never_answers_a_request_is_asked_again(
    bucket: str, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "_REQUEST_TIMEOUT_S", 0.5)
    through(_first(1, "hang", "GET"))
    assert filesystem.read_bytes(f"{bucket}/a") == b"a" * 1000


def _fetched(bucket: str) -> list[str]:
    """Of each object: its first letter, or the error."""
    batch: Batch = {"uri": [f"{bucket}/{name}" for name in "abc"], "error": [None] * 3}
    fetched = FetchImages(threads=2)(batch)
    return [error or data[:1].decode() for data, error in zip(fetched["encoded"], fetched["error"], strict=True)]


@pytest.mark.parametrize(
    ("fault", "reason"), [("forbidden", "may not be accessed with these credentials"), ("busy", "failed: ")]
)
def test_object_that_alone_fails_for_good_is_an_error_row_and_costs_no_other(
    fault: str, reason: str, bucket: str, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PATIENCE_S", 0.0)
    monkeypatch.setattr(retries, "PATIENCE_S", 0.0)
    through(lambda method, path: fault if path.endswith("/b") else "")
    first, second, third = _fetched(bucket)
    assert (first, third) == ("a", "c")
    assert second.startswith(f"fetch: '{bucket}/b' {reason}")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("expired", "credentials: they have expired"), ("busy", "failed: SLOW_DOWN"), ("reset", "failed: NETWORK")],
)
def test_store_that_serves_nobody_any_more_is_no_images_fault_and_ends_the_run(
    fault: str, reason: str, bucket: str, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_PATIENCE_S", "PATIENCE_S"):
        monkeypatch.setattr(retries, name, 0.0)
    monkeypatch.setattr(probes, "_PROBE_S", 0.0)
    through(lambda method, path: fault)
    with pytest.raises(StoreUnavailableError, match=reason):
        _fetched(bucket)
    fetch = Step(name="fetch", build=partial(FetchImages, threads=1), on="crf")
    actor = PoolActor(Pool(steps=(fetch,), max_actors=1))
    columns = {"shard": [7], "uri": [f"{bucket}/a"], "error": pa.array([None], pa.string())}
    (row,) = actor(pa.table(columns)).to_pylist()
    assert row["shard"] == 7
    assert reason in row["failure"]


def test_bucket_that_is_gone_ends_the_run_where_it_gave_images_before(s3: S3Server, bucket: str) -> None:
    name = bucket.removeprefix("s3://")
    batch: Batch = {"uri": [f"{bucket}/a", f"{bucket}/nowhere", f"s3://no-such-{name}/a"], "error": [None] * 3}
    stage = FetchImages(threads=2)
    errors = stage(batch)["error"]
    assert (errors[0], errors[1]) == (None, f"fetch: '{bucket}/nowhere' does not exist")
    assert errors[2].startswith("fetch: ")
    s3.filesystem().delete_dir(name)
    with pytest.raises(StoreUnavailableError, match=f"bucket '{bucket}' no longer exists"):
        stage(batch)


def test_training_waits_for_a_store_and_ends_with_it_in_place_of_drawing_other_images(
    bucket: str, through: Through, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("FIRST_PATIENCE_S", "PATIENCE_S"):
        monkeypatch.setattr(retries, name, 0.0)
    monkeypatch.setattr(probes, "_PROBE_S", 0.0)
    filesystem.write_bytes(f"{bucket}/picture.png", png(np.zeros((40, 50, 3), np.uint8)))
    data = tmp_path / "m.csv"
    data.write_text(f"image,tags\n{bucket}/picture.png,cat\n{bucket}/a,cat\n{bucket}/nowhere,cat\n")
    manifest = freeze_manifest(str(data), str(tmp_path), rows_per_shard=3, class_names=("cat",))
    source = SampleSource(
        manifest=str(tmp_path),
        target="tags",
        rows_of_shards=manifest.rows_of_shards,
        num_classes=1,
        grid_stride=8,
        max_pixels=10**6,
    )
    loader = LoadSamples(source, preset("tiny").cam.training, rank=0, num_workers=1)
    for row in range(3):  # what is no picture or missing gives its place to another
        assert loader.sample(0, 0, row)[2] == 1.0
    through(lambda method, path: "expired")
    with pytest.raises(StoreUnavailableError, match="they have expired"):
        loader.sample(0, 0, 0)
    with pytest.raises(StoreUnavailableError, match="they have expired"):
        loader.held_out((0, 0))
