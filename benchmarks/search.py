"""What a configuration of the search costs against labeling the same images again: one thread, both in the same run.

    python -m benchmarks search --data MANIFEST --truth FOLDER --cam FOLDER --affinity FOLDER [--num-images 12]
        [--preset small] [--json FILE]

Labeling is the stages of jobs.label without dCRF, from the encoded image to the encoded mask. The search begins at the
cached maps, as a trial does, and takes tune.search's own grid (1,010 configurations). Neither includes Ray or
storage. Process CPU time, so that other programs on the machine disturb little.
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
from engine.imaging.codecs import decode_mask
from engine.networks import read_architecture
from engine.presets import preset
from engine.records import Batch, ignore_value
from engine.stages.cam import ComputeCam
from engine.stages.mask import MakeMask
from engine.stages.walk import RefineCam
from engine.storage.filesystem import read_bytes
from tune.cache import StoreDistances, read_true_masks
from tune.search import Search
from tune.space import grid_slices
from tune.sweep import slice_counts
from tune.trial import maps_of


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of both, an image."""
    torch.set_num_threads(1)
    settings = preset(options.preset)
    class_names = read_architecture(options.cam, "cam").class_names
    true_masks = read_true_masks(options.data, options.truth, class_names=tuple(class_names), rng_seed=0)
    rows = true_masks.rows[: options.num_images]
    shared: dict[str, Any] = {"device": "cpu", "images_per_pass": 1, "max_pixels": 10**8}
    walk, crf = settings.walk, replace(settings.crf, num_iterations=0)
    affinity = settings.affinity.inference
    cam = ComputeCam(options.cam, settings.cam.inference, **shared)
    refine = RefineCam(options.affinity, affinity, walk, **shared, keep_cam=False)
    store = StoreDistances(options.affinity, affinity, walk, **shared, keep_cam=False)
    make_mask = MakeMask(crf, walk, num_classes=len(class_names), max_pixels=10**8, keep_stages=False)
    batch: Batch = {
        "image_id": [row[0] for row in rows],
        "encoded": [read_bytes(row[1]) for row in rows],
        "class_ids": [[class_names.index(tag) + 1 for tag in row[2]] for row in rows],
        "error": [None] * len(rows),
        "height": [None] * len(rows),
        "width": [None] * len(rows),
    }
    make_mask(refine(cam({name: values[:1] for name, values in batch.items()})))  # warm

    start = time.process_time()
    make_mask(refine(cam(batch)))
    labeling_s = (time.process_time() - start) / len(rows)

    cached = store(cam(batch))
    defaults = {item.name: item.default for item in fields(Search)}
    slices = grid_slices([settings.cam.inference.scales], defaults["alphas"], defaults["betas"], defaults["steps"])
    num_configurations = sum(part.num_configurations for part in slices)
    start = time.process_time()
    for part in slices:
        for row, image_id in enumerate(batch["image_id"]):
            slice_counts(
                *maps_of({name: cached[name][row] for name in ("cam", "distances")}),
                decode_mask(true_masks.masks[image_id]),
                batch["class_ids"][row],
                part,
                num_classes=len(class_names),
                ignore=ignore_value(len(class_names)),
                radius=walk.radius,
                tolerance=walk.tolerance,
            )
    sweep_s = (time.process_time() - start) / len(rows)
    return {
        "images": len(rows),
        "configurations": num_configurations,
        "labeling_ms_an_image": 1e3 * labeling_s,
        "configuration_ms_an_image": 1e3 * sweep_s / num_configurations,
        "ratio": labeling_s * num_configurations / sweep_s,
        "minutes_for_all_images_on_two_cores": sweep_s * len(true_masks.rows) / 2 / 60,
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
