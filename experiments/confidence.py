"""How well ``confidence`` knows the true IoU of an image; fits its weights, cross-validated over folds by image id.

    python -m experiments.confidence --cam runs/demo/round-1/segmentation --affinity runs/demo/affinity
                                    [--data FILE --truth FOLDER] [--features FILE] [--num-images N]

It labels the images with preset ``small`` in this process (half a second each) and prints Spearman's correlation, the
table of the surest images, what the confidence costs, and the weights for ``engine/ops/confidence.py``.
``--features`` keeps what it saw of each image, and takes it from there the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.imaging.codecs import decode_map
from engine.networks import MAP_KINDS, map_settings, read_architecture
from engine.ops import confidence
from engine.ops.mask import pseudo_mask
from engine.ops.metrics import confusion_matrix, image_iou, mean_iou, rank_correlation
from engine.presets import preset
from engine.records import Batch
from engine.stages.cam import ComputeCam
from engine.stages.mask import MakeMask
from engine.stages.walk import RefineCam
from engine.storage.filesystem import parent, read_bytes, resolve
from engine.storage.manifest import iter_manifest
from engine.storage.truth import open_truth

DATA = Path(__file__).parents[2] / "shared" / "data" / "voc12_animals"
NUM_FOLDS = 5
MAX_PIXELS = 10**8


def seen_images(data: str, truth: str, cam: str, affinity: str, num_images: int | None) -> Iterator[dict[str, Any]]:
    """Label images that have tags and truth; what the fit needs of each."""
    settings, architecture = preset("small"), read_architecture(cam, MAP_KINDS)
    names = architecture.class_names
    inference, walk = map_settings(architecture.kind, settings)
    shared = dict(device="cpu", images_per_pass=1, max_pixels=MAX_PIXELS)
    stages = [
        ComputeCam(cam, inference, **shared),
        RefineCam(affinity, settings.affinity.inference, walk, **shared, keep_cam=False),
    ]
    make_mask = MakeMask(settings.crf, walk, num_classes=len(names), max_pixels=MAX_PIXELS, keep_stages=False)
    true_masks = open_truth(truth)
    rows = chain.from_iterable(
        zip(part["image_id"], part["image"], part["tags"], strict=True) for part in iter_manifest(data)
    )
    for image_id, image, tags in islice(rows, num_images):
        true_mask = true_masks.mask_of(image_id, image)
        if true_mask is None or not tags:
            continue
        ids = [names.index(tag) + 1 for tag in tags]
        start = time.process_time()
        batch: Batch = {"encoded": [read_bytes(resolve(image, parent(data)))], "class_ids": [ids]}
        batch |= {"height": [None], "width": [None], "error": [None]}
        for stage in stages:
            batch = stage(batch)
        size = batch["height"][0], batch["width"][0]
        walked = make_mask.probabilities(decode_map(batch["refined_cam"][0]), size)
        sharpened = make_mask.sharpened(walked, batch["encoded"][0])
        mask = pseudo_mask(sharpened, ids)
        labeled = time.process_time()
        features = confidence.quality_features(walked, sharpened)
        done = time.process_time()
        yield {
            "image_id": image_id,
            "features": features.tolist(),
            "confusion": confusion_matrix(true_mask, mask, len(names)).tolist(),
            "label_s": labeled - start,
            "confidence_s": done - labeled,
        }


def fold_of(image_id: str) -> int:
    """The fold of an image, by its id alone."""
    return int(hashlib.sha256(image_id.encode()).hexdigest(), 16) % NUM_FOLDS


def cross_validated(
    features: NDArray[np.float64], ious: NDArray[np.float64], folds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The expected IoU of each image by weights that were fitted without its fold."""
    expected = np.zeros(len(ious))
    for fold in range(NUM_FOLDS):
        held = folds == fold
        weights = confidence.fit_logistic(features[~held], ious[~held])
        expected[held] = 1 / (1 + np.exp(-(features[held] @ weights[:-1] + weights[-1])))
    return expected


def rank(first: NDArray[np.float64], second: NDArray[np.float64]) -> str:
    """Spearman's correlation, as it is printed."""
    value = rank_correlation(first.tolist(), second.tolist())
    return "-" if value is None else f"{value:.3f}"


def show(seen: list[dict[str, Any]]) -> None:
    """Print what was found."""
    features = np.array([one["features"] for one in seen])
    confusions = np.array([one["confusion"] for one in seen])
    ious = np.array([image_iou(confusion) for confusion in confusions])
    folds = np.array([fold_of(one["image_id"]) for one in seen])
    held = cross_validated(features, ious, folds)
    shipped = np.array([confidence.expected_iou(row) for row in features])
    print(f"{len(seen)} images, mean true IoU {ious.mean():.3f}")
    print("Spearman's correlation with the true IoU of an image:")
    by_fold = [rank(held[folds == fold], ious[folds == fold]) for fold in range(NUM_FOLDS)]
    print(f"  cross-validated {rank(held, ious)} (folds: {', '.join(by_fold)})")
    print(f"  shipped weights {rank(shipped, ious)}")
    for name, column in zip(confidence.FEATURE_NAMES, features.T, strict=True):
        print(f"  {name + ' alone':15s} {rank(column, ious)}")
    error, spread = np.abs(held - ious).mean(), np.abs(ious - ious.mean()).mean()
    print(f"mean error, cross-validated: {error:.3f}; of the same guess for all: {spread:.3f}")
    print("mIoU of the surest, cross-validated:")
    order = np.argsort(-held)
    for fraction in (0.5, 0.8, 1.0):
        best = order[: round(fraction * len(order))]
        print(f"  {100 * fraction:3.0f} %  {100 * mean_iou(confusions[best].sum(axis=0))[1]:.1f}")
    print("expected and true IoU by tenths, cross-validated:")
    print("  " + "  ".join(f"{held[part].mean():.2f}/{ious[part].mean():.2f}" for part in np.array_split(order, 10)))
    timed = [one for one in seen if one["label_s"] > 0]
    if timed:
        cost = sum(one["confidence_s"] for one in timed) / sum(one["label_s"] for one in timed)
        print(f"cost: {100 * cost:.2f} % of the CPU time of labeling")
    weights = confidence.fit_logistic(features, ious)
    print(f"WEIGHTS = ({', '.join(f'{weight:.4g}' for weight in weights[:-1])})\nINTERCEPT = {weights[-1]:.4g}")


def main() -> None:
    """Label, or read what was kept, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cam", help="folder of jobs.train_cam, or of jobs.train_segmentation for masks of a second round"
    )
    parser.add_argument("--affinity", help="folder of jobs.train_affinity")
    parser.add_argument("--data", default=str(DATA / "manifest.csv"), help="manifest")
    parser.add_argument("--truth", default=str(DATA / "truth"), help="true masks")
    parser.add_argument("--features", type=Path, help="read from this file, or written to it")
    parser.add_argument("--num-images", type=int, help="only the first")
    arguments = parser.parse_args()
    if arguments.features and arguments.features.exists():
        show(json.loads(arguments.features.read_text()))
        return
    if not (arguments.cam and arguments.affinity):
        parser.error("--cam and --affinity are missing; give the folders that jobs.run wrote")
    seen = list(seen_images(arguments.data, arguments.truth, arguments.cam, arguments.affinity, arguments.num_images))
    if arguments.features:
        arguments.features.write_text(json.dumps(seen))
    show(seen)


if __name__ == "__main__":
    main()
