"""jobs.label against a plain loop over the same stages in one process, on the same cores: images a second.

    python -m benchmarks pipeline --data MANIFEST --cam FOLDER --affinity FOLDER [--num-images 400] [--threads 2]
        [--preset small] [--json FILE]

jobs.label runs twice, on a quarter of the images and on all: the difference gives the rate, and the rest of the first
run is its start-up (interpreter, Ray, networks, first shards). The loops start with their stages built. ``plain loop``
does one shard after the other with torch on all cores; ``loop in threads`` as many shards at a time as there are cores,
one core each. Wall time: run it on an idle machine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.photographs import add_options, frozen, label_stages, shortened_manifest
from benchmarks.runner import Line, parser, report, timed
from engine.guard import guarded
from engine.networks import open_network
from engine.presets import preset
from engine.records import Batch, mask_schema
from engine.stages.commit import CommitShard
from engine.stages.fetch import FetchImages
from engine.stages.load_shard import LoadShard


def job_seconds(options: Any, num_images: int, folder: Path) -> float:
    """Wall seconds of jobs.label from the command to its end."""
    folder.mkdir()
    command = [sys.executable, "-m", "jobs.label", "--data", shortened_manifest(options.data, num_images, folder)]
    command += ["--out", str(folder / "out"), "--cam", options.cam, "--affinity", options.affinity]
    start = time.perf_counter()
    subprocess.run([*command, "--preset", options.preset, "--allow-outside"], check=True)
    return time.perf_counter() - start


def loops(options: Any, folder: Path) -> dict[str, Callable[[], None]]:
    """The loops, with their stages built."""
    folder.mkdir()
    settings = preset(options.preset)
    cam = open_network(options.cam, "cam")
    manifest = frozen(options.data, options.num_images, folder, cam.class_names, settings.shards.rows_per_shard)
    load, fetch = LoadShard(manifest), FetchImages(threads=settings.resources.fetch_threads)
    stages = label_stages(settings, cam, options.affinity)
    commit = CommitShard(str(folder / "out"), mask_schema(keep_stages=False, metadata={}))

    def do(shard: int) -> None:
        batch: Batch = fetch(load({"shard": [shard]}))
        for name, stage in stages:
            batch = guarded(name, stage, batch)
        commit(batch)

    def in_threads() -> None:
        with ThreadPoolExecutor(options.threads) as threads:
            list(threads.map(do, range(manifest.num_shards)))

    def one_by_one() -> None:
        for shard in range(manifest.num_shards):
            do(shard)

    first = {name: values[:1] for name, values in fetch(load({"shard": [0]})).items()}
    for _, stage in stages:
        first = stage(first)  # compile
    return {"plain loop": one_by_one, "loop in threads": in_threads}


def measure(options: Any, folder: Path) -> list[Line]:
    """One line for each way."""
    num_images, few = options.num_images, options.num_images // 4
    few_seconds = job_seconds(options, few, folder / "few")
    found = {}
    for name, loop in loops(options, folder / "loops").items():
        torch.set_num_threads(options.threads if name == "plain loop" else 1)
        found[name] = (num_images / timed(loop)[1], 0.0)
    all_seconds = job_seconds(options, num_images, folder / "all")
    rate = (num_images - few) / (all_seconds - few_seconds)
    found["jobs.label"] = (rate, few_seconds - few / rate)
    plain = found["plain loop"][0]
    return [
        {"way": name, "images_per_s": one, "of_the_plain_loop": one / plain, "start_up_s": start_up}
        for name, (one, start_up) in found.items()
    ]


def main() -> None:
    options = parser(__doc__)
    add_options(options, num_images=400)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(chosen, Path(folder))
    report("pipeline", lines, chosen.json, num_images=chosen.num_images, preset=chosen.preset)
