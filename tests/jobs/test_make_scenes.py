"""What jobs.make_scenes says."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.make_scenes import MakeScenes, run


def test_the_job_says_in_one_line_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = MakeScenes(out=str(tmp_path / "scenes"), num_images=2, width=96, height=96)
    assert run(config)["written"]
    assert not run(config)["written"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("wrote 2 scenes: ")
    assert lines[1].startswith("found 2 scenes: ")
