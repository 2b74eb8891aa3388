"""The inputs of the benchmark of long manifests."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from benchmarks import manifest
from engine.storage.user_manifest import iter_manifest
from jobs.cli.command import parse
from jobs.label import Label


def test_long_manifest_repeats_scenes_that_exist_under_new_ids(tmp_path: Path) -> None:
    options = manifest.write_inputs(tmp_path, num_rows=manifest.NUM_SCENES + 3)
    config = parse(Label, [*options, f"--out={tmp_path / 'out'}"])
    assert config.settings.walk.num_steps == config.settings.crf.num_iterations == 0
    (batch,) = iter_manifest(config.data)
    assert len(set(batch["image_id"])) == manifest.NUM_SCENES + 3
    assert batch["uri"][0] == batch["uri"][manifest.NUM_SCENES]
    assert all(Path(uri).is_file() for uri in batch["uri"])


def test_driver_is_the_first_child_of_the_command() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 100 & echo $!; wait"], stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        child = int(command.stdout.readline())
        assert manifest.driver_of(command.pid) == child
        os.kill(child, signal.SIGTERM)


def test_cpu_time_of_a_process_grows() -> None:
    before = manifest.cpu_seconds(os.getpid())
    sum(number * number for number in range(3_000_000))
    assert manifest.cpu_seconds(os.getpid()) > before
