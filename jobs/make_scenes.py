"""Generate synthetic tagged scenes with true masks, to try the other jobs on: ``python -m jobs.make_scenes``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from engine.scenes import write_scenes
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeScenes:
    """Generate synthetic tagged scenes with true masks; scenes that already exist are kept."""

    out: str
    """Folder for images/, truth/, classes.txt and manifest.csv."""
    num_images: int = 150
    """Number of scenes."""
    rng_seed: int = 0
    """Random seed; different seeds give different scenes."""
    width: int = 240
    """Width of a scene, pixels."""
    height: int = 180
    """Height of a scene, pixels."""


def run(config: MakeScenes) -> dict[str, Any]:
    """Write the scenes and print one line of summary."""
    summary = write_scenes(
        config.out, config.num_images, rng_seed=config.rng_seed, width=config.width, height=config.height
    )
    done = "wrote" if summary["written"] else "found"
    print(f"{done} {summary['images']} scenes: {summary['manifest']}, true masks in {summary['truth']}")
    return summary


if __name__ == "__main__":
    sys.exit(main(MakeScenes, run))
