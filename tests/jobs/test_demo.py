"""The demo: scenes, then the chain on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.plain_settings import with_part
from engine.presets import preset
from jobs import demo
from jobs import run as chain
from jobs.cli.command import main


def test_demo_runs_the_chain_on_scenes_that_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[chain.Run] = []

    def run(config: chain.Run) -> dict[str, Any]:
        given.append(config)
        return {"images": 2, "seconds": 3.0}

    monkeypatch.setattr(chain, "run", run)
    assert main(demo.Demo, demo.run, [f"--out={tmp_path}", "--num-images=2", "--rounds.num-rounds=1"]) == 0
    (config,) = given
    assert len(Path(config.data).read_text().splitlines()) == 3
    assert len(list(Path(config.truth).iterdir())) == 2
    assert (config.out, config.overwrite) == (str(tmp_path), True)
    assert config.settings == with_part(preset("tiny"), "rounds.num_rounds", 1)
    said = capsys.readouterr().out.splitlines()
    assert f"report: {tmp_path}/report.html" in said
    assert said[-1].startswith("Try real photographs: tag2mask import --format pets ")
