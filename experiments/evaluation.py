"""Evaluate the masks over several seeds, and compare with the authors' recipe.

    python -m experiments evaluation --data MANIFEST --truth FOLDER --out runs/evaluation [--seeds 0 1 2]
        [--extra MANIFEST] [--no-recipe] [--part held] [--json FILE] [any option of jobs.run]

Runs ``jobs.run`` for each seed and then ``experiments.recipe``, each in its own folder of ``--out``, and scores them
(``experiments.quality``). ``--extra`` adds images that have tags and no truth, to train on and to label. Rerun the
command to resume: what is complete is skipped. Takes 55 minutes per seed on two cores, and 90 for the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.photographs import write_manifest
from benchmarks.runner import Line, parser, report
from engine.config import Settings
from engine.presets import preset
from engine.storage.filesystem import join
from experiments import quality, recipe
from experiments.finished_run import read_run
from jobs import run
from jobs.cli.command import parse


def seeded(settings: Settings, rng_seed: int) -> Settings:
    """Set the random seed of all three trainings."""
    cam, affinity, segmentation = settings.cam, settings.affinity, settings.segmentation
    return replace(
        settings,
        cam=replace(cam, training=replace(cam.training, rng_seed=rng_seed)),
        affinity=replace(affinity, training=replace(affinity.training, rng_seed=rng_seed)),
        segmentation=replace(segmentation, training=replace(segmentation.training, rng_seed=rng_seed)),
    )


def run_of_seed(config: run.Run, rng_seed: int) -> run.Run:
    """Create the run of one seed, in its own folder."""
    return replace(config, out=join(config.out, f"seed-{rng_seed}"), settings=seeded(config.settings, rng_seed))


def recipe_lines(found: Sequence[Line], part: str) -> list[Line]:
    """Convert the recipe's lines to the format of ``experiments.quality``; they have no per-object figures."""
    return [
        {"stage": f"authors' recipe: {line['stage']} (alpha {line['alpha']:g})", "mIoU": line[part]} for line in found
    ]


def filled(lines: Sequence[Line]) -> list[Line]:
    """Fill in missing columns with empty values; the first line has all columns."""
    return [{name: line.get(name, "") for name in lines[0]} for line in lines]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--extra", default="", help="a manifest of images without truth, to train on too")
    options.add_argument("--no-recipe", action="store_true", help="leave out the authors' recipe")
    options.add_argument("--part", default="held", choices=("held", "dev"), help="see experiments.finished_run")
    chosen, of_run = options.parse_known_args()
    torch.set_num_threads(chosen.threads)
    config = parse(run.Run, of_run)
    data = config.data
    if chosen.extra:
        joined = write_manifest(Path(config.out, "joined.csv"), [data, chosen.extra])
        config = replace(config, data=joined, allow_outside=True)
    runs = [run_of_seed(config, rng_seed) for rng_seed in chosen.seeds]
    for one in runs:
        run.run(one)
    finished = [read_run(one.out) for one in runs]
    lines = quality.lines_of([quality.measure(one, chosen.part) for one in finished], finished[0].class_names)
    if not chosen.no_recipe:
        settings = recipe.settings_of(preset("paper"), preset("small"), rng_seed=0)
        out = join(config.out, "recipe")
        found = recipe.measure(settings, data=data, truth=config.truth, out=out, authors_pairs=True)
        lines += recipe_lines(found, chosen.part)
    report("evaluation", filled(lines), chosen.json, part=chosen.part, seeds=chosen.seeds, extra=chosen.extra)
