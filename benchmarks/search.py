"""Cost of one configuration of the search against labeling the same images again, on one thread in the same run.

    python -m benchmarks search --data MANIFEST --truth FOLDER --cam FOLDER --affinity FOLDER [--num-images 12]
        [--preset small] [--json FILE]

Labeling is the chain of jobs.label without dCRF, from the encoded image to the encoded mask. The search starts from the
cached maps and counts tune.search's default grid (1,010 configurations). Neither includes Ray or storage. Times are
process CPU time, so other programs on the machine matter little.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from benchmarks.runner import device_name
from engine.chain import label_chain
from engine.config import Settings
from engine.networks import open_network
from engine.presets import preset
from engine.records import Batch
from engine.resources import Decoding
from engine.stages.count import CountMasks
from engine.stages.distances import ComputeDistances
from engine.storage.filesystem import read_bytes
from engine.storage.weights import weights_file
from tune.cache import read_true_masks
from tune.search import Search
from tune.space import grid_slices


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per image of both."""
    torch.set_num_threads(1)
    settings: Settings = preset(options.preset)
    settings = replace(settings, crf=replace(settings.crf, num_iterations=0))
    network, affinity = open_network(options.cam, "cam"), weights_file(options.affinity)
    class_names, passes = network.class_names, settings.resources.passes(Decoding(max_pixels=10**8))
    truth = read_true_masks(options.data, options.truth, class_names=class_names, rng_seed=0)
    rows = truth.rows[: options.num_images]
    chain = label_chain(settings, network, affinity, decoding=passes.decoding, keep_stages=False)
    stages = [step.build() for step in chain]
    store = ComputeDistances(affinity, settings.affinity.inference, settings.walk, passes)
    batch: Batch = {
        "image_id": [row[0] for row in rows],
        "encoded": [read_bytes(row[1]) for row in rows],
        "class_ids": [[class_names.index(tag) + 1 for tag in row[2]] for row in rows],
        "error": [None] * len(rows),
        "height": [None] * len(rows),
        "width": [None] * len(rows),
    }

    def label(some: Batch) -> None:
        for stage in stages:
            some = stage(some)

    label({name: values[:1] for name, values in batch.items()})  # warm
    start = time.process_time()
    label(batch)
    labeling_s = (time.process_time() - start) / len(rows)

    cached = store(stages[0](batch))
    cached["cams"] = [[cam] for cam in cached["cam"]]
    cached["truth"] = [truth.masks[image_id] for image_id in cached["image_id"]]
    defaults: dict[str, Any] = {item.name: item.default for item in fields(Search)}
    scales = settings.cam.inference.scales
    slices = grid_slices([scales], defaults["alphas"], defaults["betas"], defaults["steps"])
    count = CountMasks(slices, [scales], settings.walk, passes, num_classes=len(class_names))
    num_configurations = sum(part.num_configurations for part in slices)
    start = time.process_time()
    count(cached)
    sweep_s = (time.process_time() - start) / len(rows)
    return {
        "images": len(rows),
        "configurations": num_configurations,
        "labeling_ms_an_image": 1e3 * labeling_s,
        "configuration_ms_an_image": 1e3 * sweep_s / num_configurations,
        "ratio": labeling_s * num_configurations / sweep_s,
        "minutes_for_all_images_on_two_cores": sweep_s * len(truth.rows) / 2 / 60,
        "mean_tags": float(np.mean([len(row[2]) for row in rows])),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--truth", "--cam", "--affinity"):
        parser.add_argument(name, required=True)
    parser.add_argument("--num-images", type=int, default=12)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    result = measure(options)
    for name, value in result.items():
        print(f"{name.replace('_', ' '):40} {value:10.3f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"device": device_name(), "date": time.strftime("%Y-%m-%d"), **result}, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
