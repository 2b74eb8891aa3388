"""The command that inspects a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.scenes import write_scenes
from jobs import inspect
from jobs.cli.command import main


def test_findings_are_printed_and_the_exit_status_is_2_only_for_what_cannot_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(str(tmp_path), 4, rng_seed=0, width=96, height=96)
    options = ["--data", str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "out"), "--no-predict"]
    assert main(inspect.Inspect, inspect.run, options) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 images, ")
    assert "warning: classes with fewer than 50 images: " in out
    assert f"inspection: {tmp_path}/out/inspection.json" in out
    (tmp_path / "manifest.csv").write_text("image,tags\na.jpg,\n")
    assert main(inspect.Inspect, inspect.run, [*options, "--overwrite"]) == 2
    assert capsys.readouterr().err.endswith("no image has a tag; training the classifier needs them\n")
