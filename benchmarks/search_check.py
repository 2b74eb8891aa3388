"""Check that the search's mIoU equals that of the jobs: random configurations, each labeled and evaluated.

    python -m benchmarks search_check --data MANIFEST --truth FOLDER --cam FOLDER --affinity FOLDER [--num-images 24]
        [--num-configurations 20] [--preset small] [--out FOLDER] [--json FILE]

tune.search counts random configurations on the first images of the manifest; of those that it ranked some are drawn,
and jobs.label without dCRF and jobs.evaluate are run with the same settings on the same images. The exit status is 1
when one of the mIoUs differs by more than 1e-3. With --out an interrupted check goes on from where it was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.photographs import add_options, shortened_manifest
from benchmarks.runner import Line, report
from engine.distributed.cluster import connected
from engine.networks import read_architecture
from engine.resources import ResourceConfig
from engine.runs.evaluation import score
from jobs import label
from jobs.cli.command import parse
from tune import search
from tune.outcome import RESULTS

TOLERANCE = 1e-3
NUM_BETAS = 8
"""Slices of random configurations that the search counts."""


def check(options: argparse.Namespace, folder: Path) -> list[Line]:
    """Both figures of each configuration."""
    classes = folder / "classes.txt"
    classes.write_text("\n".join(read_architecture(options.cam, "cam").class_names) + "\n")
    shared = ["--preset", options.preset, "--data", shortened_manifest(options.data, options.num_images, folder)]
    shared += ["--classes", str(classes), "--cam", options.cam, "--affinity", options.affinity, "--allow-outside"]
    choice = ["--search", "random", "--num-betas", str(NUM_BETAS), "--rng-seed", str(options.rng_seed)]
    choice += ["--truth", options.truth, "--out", str(folder / "search"), "--folds", "0", "--bootstrap", "0"]
    lines: list[Line] = []
    with connected(ResourceConfig()):
        search.run(parse(search.Search, [*shared, *choice]))
        rows = pq.read_table(folder / "search" / RESULTS).to_pylist()
        drawn = np.random.default_rng(options.rng_seed).permutation(len(rows))[: options.num_configurations]
        for index, row in enumerate(rows[chosen] for chosen in drawn.tolist()):
            miou = labeled_miou(row, [*shared, "--out", str(folder / f"masks-{index}")], options.truth)
            lines.append(
                {
                    "alpha": row["alpha"],
                    "beta": row["beta"],
                    "num_steps": row["num_steps"],
                    "sweep_miou": row["miou"],
                    "label_miou": miou,
                    "difference": abs(row["miou"] - miou),
                }
            )
    return lines


def labeled_miou(row: dict[str, Any], arguments: Sequence[str], truth: str) -> float:
    """What jobs.label without dCRF and jobs.evaluate give for a row of results.parquet."""
    settings = {"crf.num-iterations": 0, "walk.alpha": row["alpha"], "walk.beta": row["beta"]}
    settings["walk.num-steps"] = row["num_steps"]
    plain = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    config = parse(label.Label, [*arguments, *plain])
    label.run(config)
    return float(score(config.out, truth)["miou"])


def main() -> int:
    """Check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, 24)
    parser.add_argument("--truth", required=True, help="the true masks")
    parser.add_argument("--num-configurations", type=int, default=20)
    parser.add_argument("--rng-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep what it made here")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        lines = check(options, folder)
    worst = max(line["difference"] for line in lines)
    report("search_check", lines, options.json, images=options.num_images, worst=worst, tolerance=TOLERANCE)
    print(f"{len(lines)} configurations on {options.num_images} images: the mIoUs differ by at most {worst:.2e}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
