"""Images per second of training by the number of workers, and the share of the time spent waiting for images.

    python -m benchmarks training [--workers 1 2] [--repeats 1] [--num-images 96] [--num-epochs 4] [--preset tiny]
        [--gpus 0] [--loaders 2] [--json FILE]

Synthetic scenes on the local disk; random initial weights, which cost the same as trained ones. Worker counts take
turns. The first report of a run is left out: it includes the start of the loaders. Wall time: run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from benchmarks.photographs import MAX_PIXELS
from benchmarks.runner import Line, parser, report
from engine.distributed.cluster import connected
from engine.distributed.training import TrainingRun, fit
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource
from engine.presets import preset
from engine.resources import ResourceConfig
from engine.scenes import CLASS_NAMES, write_scenes
from engine.storage.manifest import freeze_manifest

ROWS_PER_SHARD = 1024


def measure(options: argparse.Namespace) -> list[Line]:
    """A line for each number of workers."""
    network = replace(preset(options.preset).cam, weights="random")
    training = replace(network.training, num_epochs=options.num_epochs)
    objective = Objective.of(network, CLASS_NAMES)
    intervals: dict[int, list[Line]] = {count: [] for count in options.workers}
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
            max_pixels=MAX_PIXELS,
        )
        for repeat in range(options.repeats):
            for count in options.workers:
                resources = ResourceConfig(num_workers=count, num_gpus=options.gpus, max_loader_actors=options.loaders)
                with connected(resources) as cluster:
                    run = TrainingRun(
                        folder=f"{folder}/training", name=f"{count}-{repeat}", resources=resources, cluster=cluster
                    )
                    trained = fit(objective, source, training, run, on_event=lambda event: None)
                intervals[count] += intervals_of(trained.curve, training.batch_size)
    speeds = {count: speed_of(some) for count, some in intervals.items()}
    first = speeds[options.workers[0]]["images_per_s"]
    return [
        {"workers": count, **speed, "times_as_fast": speed["images_per_s"] / first} for count, speed in speeds.items()
    ]


def intervals_of(curve: Sequence[dict[str, float]], batch_size: int) -> list[Line]:
    """Images, seconds and seconds of waiting between one report and the next."""
    intervals = []
    for before, point in pairwise(curve):
        images = (point["step"] - before["step"]) * batch_size
        seconds = images / point["images_per_s"]
        intervals.append({"images": images, "seconds": seconds, "waited": point["waiting"] * seconds})
    if not intervals:
        raise SystemExit("the runs are too short to measure; use more --num-epochs or --num-images")
    return intervals


def speed_of(intervals: Sequence[Line]) -> Line:
    """The speed over all of them."""
    images, seconds, waited = (sum(one[name] for one in intervals) for name in ("images", "seconds", "waited"))
    return {"images_per_s": images / seconds, "waiting": waited / seconds}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--repeats", type=int, default=1)
    options.add_argument("--num-images", type=int, default=96)
    options.add_argument("--num-epochs", type=int, default=4)
    options.add_argument("--preset", default="tiny")
    options.add_argument("--gpus", type=float, default=0.0, help="GPUs per worker")
    options.add_argument("--loaders", type=int, default=2, help="loader actors per worker")
    chosen = options.parse_args()
    report("training", measure(chosen), chosen.json, preset=chosen.preset, num_images=chosen.num_images)
