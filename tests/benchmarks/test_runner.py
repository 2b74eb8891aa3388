"""Tables and JSON of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import runner


def test_report_prints_a_table_and_writes_it_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"way": "plain", "images_per_s": 12.34567}, {"way": "ours", "images_per_s": 1.0}]
    runner.report("pipeline", lines, tmp_path / "found.json", num_images=4)
    assert capsys.readouterr().out.splitlines() == ["  way  images per s", "plain         12.35", " ours             1"]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["results"] == lines
    assert (found["benchmark"], found["num_images"]) == ("pipeline", 4)


def test_memory_in_use_is_at_most_its_peak() -> None:
    assert 0 < runner.memory_mb("VmRSS") <= runner.memory_mb("VmHWM")
