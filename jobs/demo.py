"""Run the whole chain on synthetic tagged scenes: ``python -m jobs.demo``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from engine.config import Settings
from engine.runs.options import JobOptions, PresetChoice, Uses
from engine.storage.filesystem import join
from jobs import make_scenes
from jobs import run as chain
from jobs.cli.closing import print_closing
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo(JobOptions):
    """Generate synthetic tagged scenes with true masks, run the whole chain on them, and report the scores."""

    out: str = "runs/demo"
    """Folder for scenes/ and the output of jobs.run; steps with changed settings are redone."""
    num_images: int = 150
    """Number of scenes."""
    preset: PresetChoice = "tiny"
    """Preset that supplies the default settings."""
    settings: Annotated[Settings, Uses.everything()]


def run(config: Demo) -> dict[str, Any]:
    """Write the scenes and run the chain; returns the summary of ``jobs.run``."""
    scenes = make_scenes.run(make_scenes.MakeScenes(out=join(config.out, "scenes"), num_images=config.num_images))
    options = chain.Run(
        data=scenes["manifest"],
        truth=scenes["truth"],
        out=config.out,
        preset=config.preset,
        config=config.config,
        overwrite=True,
        settings=config.settings,
    )
    summary = chain.run(options)
    print_closing("run", options, summary, summary["seconds"])
    print("Try real photographs: tag2mask import --format pets --source pets --out pets --download")
    return summary


if __name__ == "__main__":
    sys.exit(main(Demo, run))
