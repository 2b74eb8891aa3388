"""Death at any moment: the same command goes on, and ends with what an undisturbed run ends with."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from engine.storage.shards import committed_shards, read_shards
from tests.jobs.small_runs import Run, small_settings, started, write_random_cam, write_settings, write_some_scenes

pytestmark = pytest.mark.slow
NUM_IMAGES, REPEAT, ROWS_PER_SHARD = 12, 3, 3
NUM_SHARDS = NUM_IMAGES * REPEAT // ROWS_PER_SHARD
GONE_AFTER_S = 90.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kill")
    write_some_scenes(root / "scenes", NUM_IMAGES, repeat=REPEAT)
    write_random_cam(root / "cam")
    write_settings(root, small_settings())
    return root


def _label(root: Path, out: str) -> list[str]:
    options = {"data": root / "scenes" / "repeated.csv", "cam": root / "cam", "out": root / out}
    walkless = ["--walk.num-steps=0", "--crf.num-iterations=2", "--resources.max-crf-actors=1"]
    return [f"--{name}={value}" for name, value in options.items()] + [
        f"--config={root / 'settings.json'}",
        f"--shards.rows-per-shard={ROWS_PER_SHARD}",
        *walkless,
    ]


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, bytes]:
    """The shards of a run that nobody disturbs."""
    with started("label", *_label(folder, "calm")) as run:
        status, err = run.finish()
    assert status == 0, err
    return _shards(folder / "calm")


def _shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))}


def _check_same(out: Path, undisturbed: dict[str, bytes]) -> None:
    ids = [image_id for table in read_shards(str(out), ["image_id"]) for image_id in table["image_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == NUM_IMAGES * REPEAT
    assert _shards(out) == undisturbed
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["labeled"], summary["errors"], summary["missing_shards"]) == (NUM_IMAGES * REPEAT, {}, [])


def _wait_until_gone(run: Run) -> None:
    end = time.monotonic() + GONE_AFTER_S
    while (left := run.processes()) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == {}


def test_labeling_goes_on_after_its_driver_is_killed(folder: Path, undisturbed: dict[str, bytes]) -> None:
    out = folder / "killed"
    with started("label", *_label(folder, "killed")) as run:
        run.wait_until(lambda: len(committed_shards(str(out))) >= 2, "commit")
        run.kill()
        _wait_until_gone(run)
    before = _shards(out)
    assert 2 <= len(before) < NUM_SHARDS
    times = {name: (out / name).stat().st_mtime_ns for name in before}
    with started("label", *_label(folder, "killed")) as run:
        status, err = run.finish()
    assert status == 0, err
    assert f"{len(before) * ROWS_PER_SHARD} of {NUM_IMAGES * REPEAT} images were done before" in err
    assert {name: (out / name).stat().st_mtime_ns for name in before} == times  # not done again
    _check_same(out, undisturbed)


def test_labeling_survives_the_death_of_an_actor(folder: Path, undisturbed: dict[str, bytes]) -> None:
    out = folder / "hurt"
    with started("label", *_label(folder, "hurt")) as run:
        run.wait_until(lambda: len(committed_shards(str(out))) >= 2, "commit")
        (actor,) = [pid for pid, title in run.processes().items() if "ray::" in title and "cam_walk" in title]
        os.kill(actor, signal.SIGKILL)
        assert len(committed_shards(str(out))) < NUM_SHARDS
        status, err = run.finish()
    assert status == 0, err
    _check_same(out, undisturbed)
