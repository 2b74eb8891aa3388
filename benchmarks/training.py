"""Images a second that training learns from, by its number of workers, and the share of the time it waits for images.

    python -m benchmarks.training [--workers 1 2] [--repeats 1] [--num-images 96] [--num-epochs 4]
        [--preset tiny] [--gpus 0] [--loaders 2] [--json FILE]

Synthetic scenes on the local disk; random first weights, which cost the same as trained ones. Worker counts take turns.
The first report of a run is left out: it holds the start of the loaders. Wall time, so the machine must be idle for
figures; the ratio to the first worker count is what compares.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from engine.config import ResourceConfig
from engine.distributed.cluster import connected
from engine.distributed.training import fit
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource
from engine.presets import preset
from engine.scenes import CLASS_NAMES, write_scenes
from engine.storage.manifest import freeze_manifest

ROWS_PER_SHARD = 1024


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Speed and waiting for each number of workers."""
    settings = replace(preset(options.preset).cam, weights="random")
    training = replace(settings.training, num_epochs=options.num_epochs)
    points: dict[int, list[dict[str, float]]] = {count: [] for count in options.workers}
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(f"{folder}/scenes", options.num_images, rng_seed=0)
        manifest = freeze_manifest(
            f"{folder}/scenes/manifest.csv", f"{folder}/frozen", rows_per_shard=ROWS_PER_SHARD, class_names=CLASS_NAMES
        )
        source = SampleSource(
            manifest=f"{folder}/frozen",
            target="tags",
            rows_of_shards=manifest.rows_of_shards,
            num_classes=len(CLASS_NAMES),
            max_pixels=10**8,
        )
        for repeat in range(options.repeats):
            for count in options.workers:
                resources = ResourceConfig(num_workers=count, num_gpus=options.gpus, max_loader_actors=options.loaders)
                with connected(resources) as cluster:
                    trained = fit(
                        Objective.of(settings, CLASS_NAMES),
                        source,
                        training,
                        resources,
                        cluster,
                        folder=f"{folder}/training",
                        name=f"{count}-{repeat}",
                        on_event=lambda event: None,
                    )
                points[count] += _parts(trained.curve, training.batch_size)
    speeds = {count: _speed(parts) for count, parts in points.items()}
    first = speeds[options.workers[0]]["images_per_s"]
    return {str(count): {**speed, "ratio": speed["images_per_s"] / first} for count, speed in speeds.items()}


def _parts(curve: Sequence[dict[str, float]], batch_size: int) -> list[dict[str, float]]:
    """Images, seconds and seconds of waiting between a report and the next."""
    parts = []
    for before, point in pairwise(curve):
        images = (point["step"] - before["step"]) * batch_size
        seconds = images / point["images_per_s"]
        parts.append({"images": images, "seconds": seconds, "waited": point["waiting"] * seconds})
    if not parts:
        raise SystemExit("the runs are too short to measure; give more --num-epochs or --num-images")
    return parts


def _speed(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    images, seconds, waited = (sum(part[name] for part in parts) for name in ("images", "seconds", "waited"))
    return {"images_per_s": images / seconds, "waiting": waited / seconds}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--num-images", type=int, default=96)
    parser.add_argument("--num-epochs", type=int, default=4)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of a worker")
    parser.add_argument("--loaders", type=int, default=2, help="loader actors of a worker")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    result = measure(options)
    print(f"{'workers':>8} {'images/s':>10} {'ratio':>7} {'waiting':>8}")
    for count, values in result.items():
        print(f"{count:>8} {values['images_per_s']:10.2f} {values['ratio']:7.2f} {values['waiting']:8.1%}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
