"""Training that loses a worker and then its driver to SIGKILL ends with the very weights of an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from engine.networks import load_network
from jobs import train_cam
from jobs.cli.command import parse
from tests.jobs.small_runs import QUICK, Run, small_settings, started, write_settings, write_some_scenes

pytestmark = pytest.mark.slow
NUM_IMAGES, NUM_EPOCHS, NUM_STEPS = 12, 8, 24
GONE_AFTER_S = 90.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kill-training")
    write_some_scenes(root / "scenes", NUM_IMAGES)
    write_settings(root, small_settings(num_epochs=NUM_EPOCHS))
    return root


def _options(root: Path, out: str) -> list[str]:
    options = {"data": root / "scenes" / "repeated.csv", "config": root / "settings.json", "out": root / out}
    # batch norms learn here, and dropout draws: nothing that a checkpoint must hold is left out
    return [f"--{name}={value}" for name, value in options.items()] + [
        "--resources.checkpoint-every-steps=2",
        "--cam.training.no-freeze-batch-norm",
        "--cam.training.ema-decay=0.9",
    ]


def _saved_step(out: Path) -> int:
    """Step of the last checkpoint that Ray would go on from; 0 without one."""
    snapshots = list((out / ".tag2mask" / "training").glob("*/checkpoint_manager_snapshot.json"))
    try:
        results = json.loads(snapshots[0].read_text())["checkpoint_results"] if snapshots else []
    except ValueError:  # it is being written
        return 0
    return max((result["metrics"]["step"] for result in results), default=0)


def _wait_until_gone(run: Run) -> None:
    end = time.monotonic() + GONE_AFTER_S
    while (left := run.processes()) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == {}


def test_killed_training_ends_with_the_weights_of_an_undisturbed_one(folder: Path, ray_session: None) -> None:
    out = folder / "hurt"
    with started("train_cam", *_options(folder, "hurt")) as run:
        run.wait_until(lambda: _saved_step(out) >= 4, "checkpoint")
        (worker,) = [pid for pid, title in run.processes().items() if "ray::" in title and "TrainWorker" in title]
        os.kill(worker, signal.SIGKILL)
        at_loss = _saved_step(out)
        run.wait_until(lambda: _saved_step(out) > at_loss + 2, "checkpoint after the loss of a worker")
        run.kill()
        # while what it leaves behind goes: the undisturbed one
        train_cam.run(parse(train_cam.TrainCam, [*_options(folder, "calm"), *QUICK]))
        _wait_until_gone(run)
        said = run.process.stderr.read() if run.process.stderr else ""
    saved = _saved_step(out)
    assert at_loss < saved < NUM_STEPS
    assert not (out / "weights.safetensors").exists()
    assert re.search(rf"resuming at step \d+ of {NUM_STEPS}", said)  # after the loss of the worker

    with started("train_cam", *_options(folder, "hurt")) as run:
        status, said = run.finish()
    assert status == 0, said
    assert f"resuming at step {saved} of {NUM_STEPS}" in said
    assert not (out / ".tag2mask" / "training").exists()

    hurt, calm = (load_network(str(folder / name), "cam")[0].state_dict() for name in ("hurt", "calm"))
    assert all(torch.equal(value, calm[name]) for name, value in hurt.items())
    curve = json.loads((out / "summary.json").read_text())["curve"]
    steps = [point["step"] for point in curve]
    assert steps == sorted(set(steps))
    assert steps[-1] == NUM_STEPS
