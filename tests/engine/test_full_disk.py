"""An output that takes no more: the run ends, keeps what it has, and goes on where there is room again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.distributed.cluster import connected
from engine.distributed.pipeline import ShardRun, run_shards
from engine.errors import StorageError
from engine.records import mask_schema
from engine.resources import ResourceConfig
from engine.step import Step
from engine.storage.manifest import Manifest
from engine.storage.shards import committed_shards
from tests.engine.distributed.examples import Measure, Paint, numbered_images

pytestmark = pytest.mark.slow
FULL, ROOMY = "size=12k", "size=1m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for two shards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or _mount("-t", "tmpfs", "-o", FULL, "tmpfs", str(folder)):
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(*options: str) -> int:
    return subprocess.run(["mount", *options], capture_output=True, check=False).returncode


def _run(manifest: Manifest, out: Path) -> None:
    resources = ResourceConfig(max_crf_actors=1)
    steps = [Step(name="measure", build=Measure, on="crf"), Step(name="paint", build=partial(Paint, 4), on="crf")]
    schema = mask_schema(keep_stages=False, metadata={})
    left = sorted(set(range(manifest.num_shards)) - committed_shards(str(out)))
    with connected(resources) as cluster:
        run = ShardRun(manifest=manifest, folder=str(out), schema=schema, resources=resources, cluster=cluster)
        run_shards(run, steps, left, on_commit=lambda _: None)


def test_full_disk_ends_the_run_with_one_sentence_and_the_same_run_goes_on(
    tmp_path: Path, small_disk: Path, ray_session: None
) -> None:
    manifest = numbered_images(tmp_path / "images", 8, rows_per_shard=2)
    with pytest.raises(StorageError, match=r"No space left on device.*rerun the command to resume$"):
        _run(manifest, small_disk)
    kept = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    assert kept.keys() < {f"shard-{shard:06d}.parquet" for shard in range(4)}  # no half of one beside them
    assert _mount("-o", f"remount,{ROOMY}", str(small_disk)) == 0
    _run(manifest, small_disk)
    assert committed_shards(str(small_disk)) == {0, 1, 2, 3}
    assert all((small_disk / name).read_bytes() == data for name, data in kept.items())
