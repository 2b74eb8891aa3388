"""Small runs of the real command lines: scenes, settings, networks that nobody trained, and their processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.config import RoundsConfig, Settings, ShardConfig, TrainingConfig
from engine.fitting.objectives import Objective
from engine.networks import save_network
from engine.plain_settings import to_dict
from engine.presets import preset
from engine.resources import ResourceConfig
from engine.scenes import CLASS_NAMES, write_scenes
from tests.conftest import ROOT

NETWORK: dict[str, Any] = {"backbone": "mobilenetv3_small_050", "weights": "random"}
RESOURCES = ResourceConfig(training_threads=1, max_loader_actors=1, max_network_actors=1, max_crf_actors=1)
QUICK = [f"--resources.{name}=1" for name in ("training-threads", "max-loader-actors", "max-network-actors")]
"""Options for which a run on two cores starts the fewest processes."""
_MARK = "TAG2MASK_TEST_RUN"


def small_settings(*, num_epochs: int = 1, batch_size: int = 4) -> Settings:
    """Settings of seconds: a small backbone without weights, pictures of 96 pixels."""
    tiny = preset("tiny")

    def short(training: TrainingConfig) -> TrainingConfig:
        return replace(training, num_epochs=num_epochs, batch_size=batch_size, crop_px=64, long_side_px=(64, 96))

    sight = replace(tiny.cam.inference, long_side_px=96, scales=(1.0,))
    return replace(
        tiny,
        cam=replace(tiny.cam, training=short(tiny.cam.training), inference=sight, **NETWORK),
        seed=replace(tiny.seed, long_side_px=96, crf=replace(tiny.seed.crf, num_iterations=1)),
        affinity=replace(
            tiny.affinity,
            training=short(tiny.affinity.training),
            inference=replace(tiny.affinity.inference, long_side_px=96),
            **NETWORK,
        ),
        walk=replace(tiny.walk, num_steps=8),
        later_maps=replace(tiny.later_maps, long_side_px=80, scales=(1.0,)),
        crf=replace(tiny.crf, num_iterations=1),
        segmentation=replace(
            tiny.segmentation,
            training=replace(short(tiny.segmentation.training), ema_decay=0.5),
            inference=replace(tiny.segmentation.inference, long_side_px=96),
            head_channels=16,
            confidence_power=1.0,
            **NETWORK,
        ),
        shards=replace(tiny.shards, rows_per_shard=3),
    )


CHAIN_SETTINGS = replace(
    small_settings(batch_size=6),
    rounds=RoundsConfig(num_rounds=2, last_epoch_factor=1.0),
    val_fraction=0.3,
    shards=ShardConfig(rows_per_shard=5),  # the last shard is smaller
    resources=RESOURCES,
)
"""Settings of the one run of the whole chain."""
NUM_SCENES, NUM_HELD_OUT = 12, 2
"""Images of that run, and how many of them its ``val_fraction`` keeps from the training."""


def write_settings(folder: Path, settings: Settings) -> str:
    """A file for ``--config``."""
    path = folder / "settings.json"
    parts = {name: value for name, value in to_dict(settings).items() if name != "resources"}
    path.write_text(json.dumps({"settings": parts}))
    return str(path)


def write_some_scenes(folder: Path, num_images: int, *, repeat: int = 1) -> str:
    """Scenes of 96 pixels; each of them ``repeat`` times in the manifest, under different ids."""
    write_scenes(str(folder), num_images, rng_seed=0, width=96, height=96)
    lines = (folder / "manifest.csv").read_text().splitlines()[1:]
    rows = [f"{time}-{line.split(',')[0]},{line}" for time in range(repeat) for line in lines]
    path = folder / "repeated.csv"
    path.write_text("image_id,image,tags\n" + "\n".join(rows) + "\n")
    return str(path)


def write_random_cam(folder: Path) -> str:
    """A classifier that nobody trained, as jobs.train_cam leaves it."""
    torch.manual_seed(0)
    objective = Objective.of(small_settings().cam, CLASS_NAMES)
    save_network(str(folder / "weights.safetensors"), objective.architecture, objective.build().state_dict())
    return str(folder)


@dataclass(frozen=True)
class Run:
    """A job in a process of its own, with all the processes that it starts."""

    process: subprocess.Popen[str]
    mark: str

    def processes(self) -> dict[int, str]:
        """What of it is alive: process ids and titles, the job's own among them."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                if f"{_MARK}={self.mark}".encode() not in (entry / "environ").read_bytes():
                    continue
                if ") Z " in (entry / "stat").read_text():
                    continue
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # gone, or another user's
                continue
        return found

    def kill(self) -> None:
        """SIGKILL for the driver alone."""
        self.process.kill()
        self.process.wait(30)

    def finish(self, limit_s: float = 280) -> tuple[int, str]:
        """Wait for the end: exit status and standard error."""
        _, err = self.process.communicate(timeout=limit_s)
        return self.process.returncode, err

    def wait_until(self, condition: Callable[[], bool], what: str, limit_s: float = 280) -> None:
        """Wait while the job runs; fails when it ends before."""
        end = time.monotonic() + limit_s
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"ended before {what}: {self.process.communicate()}")
            assert time.monotonic() < end, f"no {what} after {limit_s} s"
            time.sleep(0.02)


@contextmanager
def started(job: str, *options: str, address: str = "") -> Iterator[Run]:
    """``python -m jobs.NAME`` with a local Ray of its own, or on a cluster; nothing of it outlives the block."""
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {_MARK: mark, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "PYTHONPATH": str(ROOT)}
    environment |= {"RAY_ADDRESS": address} if address else {}
    run = Run(
        subprocess.Popen(
            [sys.executable, "-m", f"jobs.{job}", *options, *QUICK],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ),
        mark,
    )
    try:
        yield run
    finally:
        for pid in run.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        run.process.wait(30)
