"""What the three training jobs say before they train."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs import train_cam
from jobs.cli.command import main
from tests.jobs.small_runs import QUICK, small_settings, write_settings, write_some_scenes

pytestmark = pytest.mark.slow


def test_images_that_are_not_where_the_manifest_says_are_said_at_once(
    tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.distributed.cluster._started_here", True)  # on a cluster only its nodes may find them
    data = write_some_scenes(tmp_path / "scenes", 3)
    shutil.rmtree(tmp_path / "scenes" / "images")
    options = [f"--data={data}", f"--out={tmp_path / 'cam'}", f"--config={write_settings(tmp_path, small_settings())}"]
    assert main(train_cam.TrainCam, train_cam.run, [*options, *QUICK]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: --data '{data}': 20 images in a row cannot be used; the last: '{tmp_path}")
    assert said.endswith("does not exist")
