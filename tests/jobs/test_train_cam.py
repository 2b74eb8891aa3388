"""Training the classifier: what is refused before it begins. tests/jobs/test_chain.py trains one."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import train_cam
from jobs.cli.command import main


def test_data_without_a_single_tag_is_refused_and_leaves_the_output_folder_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.csv").write_text("image,tags\na.jpg,\nb.jpg,\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    options = ["--data", str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "cam")]
    assert main(train_cam.TrainCam, train_cam.run, options) == 2
    assert capsys.readouterr().err.endswith("manifest.csv': no image has a tag; training the classifier needs them\n")
    assert not list((tmp_path / "cam").iterdir())
