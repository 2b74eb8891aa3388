"""The whole evaluation of the masks: several seeds with their spread, and the authors' recipe beside them.

    python -m benchmarks evaluation --out runs/evaluation [--seeds 0 1 2] [--rounds N] [--extra MANIFEST] [--no-recipe]
        [--json FILE]

Runs ``jobs.run`` once a seed and ``experiments.recipe``, one after the other, each into its own folder of ``--out``,
then scores them (``experiments.quality``: which images, which figures). What is complete there is not done again, so
the same command goes on after a kill; two cores take 55 minutes a seed, and 90 for the recipe. ``--extra`` adds images
that have tags and no truth to what is learned from and labeled.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.runner import PHOTOGRAPHS, ROOT, Line, parser, report
from engine.storage.filesystem import absolute, parent, resolve
from engine.storage.manifest import iter_manifest
from engine.storage.run_record import read_json
from experiments import quality

NETWORKS = ("cam", "affinity", "segmentation")
RECIPE = "authors' recipe: "


def write_joined(manifests: Sequence[str], location: Path) -> None:
    """The images of several manifests, each under the id that it has in its own."""
    location.parent.mkdir(parents=True, exist_ok=True)
    with location.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image_id", "image", "tags"))
        for manifest in manifests:
            for batch in iter_manifest(manifest):
                for image_id, image, tags in zip(batch["image_id"], batch["image"], batch["tags"], strict=True):
                    rows.writerow((image_id, resolve(image, parent(manifest)), ";".join(tags)))


def run_options(data: str, truth: str, out: Path, rng_seed: int, *, joined: bool, rounds: int = 0) -> list[str]:
    """The command line of ``jobs.run`` for one seed."""
    options = ["--data", data, "--truth", truth, "--out", str(out), "--preset", "small", "--rounds", str(rounds)]
    if joined:
        options.append("--allow-outside")
    return options + [word for name in NETWORKS for word in (f"--{name}.training.rng-seed", str(rng_seed))]


def recipe_lines(found: dict[str, Any], part: str) -> list[Line]:
    """What ``experiments.recipe`` printed, as lines of ``experiments.quality``; it has no figures of single objects."""
    return [
        {"stage": f"{RECIPE}{line['stage']} (alpha {line['alpha']:g})", "mIoU": line[part]} for line in found["results"]
    ]


def filled(lines: Sequence[Line]) -> list[Line]:
    """Lines that all have the columns of the first; what one does not know is empty."""
    return [{name: line.get(name, "") for name in lines[0]} for line in lines]


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True)


def main() -> int:
    """Run, score and print."""
    options = parser(__doc__)
    options.add_argument("--out", required=True, help="where the runs are kept")
    options.add_argument("--data", default=str(PHOTOGRAPHS / "manifest.csv"), help="the manifest of what has truth")
    options.add_argument("--truth", default=str(PHOTOGRAPHS / "truth"), help="true masks")
    options.add_argument("--extra", default="", help="a manifest of images without truth, to learn from too")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--rounds", type=int, default=0, help="of labeling; 0 is the default of jobs.run")
    options.add_argument("--no-recipe", action="store_true", help="leave out the authors' recipe")
    options.add_argument("--part", default="held", choices=("held", "dev"), help="see experiments.quality")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    out, data, truth = Path(absolute(chosen.out)), absolute(chosen.data), absolute(chosen.truth)
    if chosen.extra:
        joined = out / "joined.csv"
        write_joined([data, absolute(chosen.extra)], joined)
        data = str(joined)
    runs = [str(out / f"seed-{rng_seed}") for rng_seed in chosen.seeds]
    for run, rng_seed in zip(runs, chosen.seeds, strict=True):
        _command(
            "jobs.run", *run_options(data, truth, Path(run), rng_seed, joined=bool(chosen.extra), rounds=chosen.rounds)
        )
    names = (read_json(str(Path(runs[0], "masks", "run.json"))) or {})["class_names"]
    lines = quality.lines_of([quality.measure(run, truth, chosen.part) for run in runs], names)
    if not chosen.no_recipe:
        recipe, figures = out / "recipe", out / "recipe.json"
        allowed = ["--data", absolute(chosen.data), "--truth", truth]
        _command("benchmarks", "recipe", "--out", str(recipe), "--json", str(figures), *allowed)
        lines += recipe_lines(json.loads(figures.read_text()), chosen.part)
    report("evaluation", filled(lines), chosen.json, part=chosen.part, seeds=chosen.seeds, extra=chosen.extra)
    return 0


if __name__ == "__main__":
    sys.exit(main())
