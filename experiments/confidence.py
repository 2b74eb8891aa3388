"""How well ``confidence`` predicts the true IoU of an image; fits its weights, cross-validated over folds.

    python -m experiments confidence --data MANIFEST --truth FOLDER --cam runs/demo/round-1/segmentation
        --affinity runs/demo/affinity [--preset small] [--features FILE] [--num-images N]

It labels the images in this process (half a second each) and prints Spearman's correlation, the mIoU of the most
confident images, the cost of the confidence, and the weights for ``engine/ops/confidence.py``. ``--features`` keeps the
measurements of each image, and reads them the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.chain import label_chain
from engine.imaging.codecs import decode_map
from engine.networks import MAP_KINDS, open_network
from engine.ops import confidence
from engine.ops.mask import pseudo_mask
from engine.ops.metrics import confusion_matrix, image_iou, mean_iou, rank_correlation
from engine.presets import preset
from engine.resources import Decoding
from engine.stages.mask import MakeMask
from engine.storage.weights import weights_file
from experiments.finished_run import MAX_PIXELS, images_with_truth

NUM_FOLDS = 5
Floats = NDArray[np.float64]


def measured_images(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Label the images that have tags and truth; yields what the fit needs of each."""
    settings, cam = preset(options.preset), open_network(options.cam, MAP_KINDS)
    affinity = weights_file(options.affinity)
    *stages, make_mask = [
        step.build()
        for step in label_chain(settings, cam, affinity, decoding=Decoding(max_pixels=MAX_PIXELS), keep_stages=False)
    ]
    assert isinstance(make_mask, MakeMask)
    for image in islice(images_with_truth(options.data, options.truth), options.num_images):
        if not image.tags:
            continue
        batch = image.batch(cam.class_names)
        start = time.process_time()
        for stage in stages:
            batch = stage(batch)
        size = batch["height"][0], batch["width"][0]
        walked = make_mask.probabilities(decode_map(batch["refined_cam"][0]), size)
        sharpened = make_mask.sharpened(walked, batch["encoded"][0])
        mask = pseudo_mask(sharpened, batch["class_ids"][0])
        labeled = time.process_time()
        features = confidence.quality_features(walked, sharpened)
        yield {
            "image_id": image.image_id,
            "features": features.tolist(),
            "confusion": confusion_matrix(image.mask, mask, len(cam.class_names)).tolist(),
            "label_s": labeled - start,
            "confidence_s": time.process_time() - labeled,
        }


def fold_of(image_id: str) -> int:
    """The fold of an image, which depends on its id alone."""
    return int(hashlib.sha256(image_id.encode()).hexdigest(), 16) % NUM_FOLDS


def cross_validated(features: Floats, ious: Floats, folds: NDArray[np.int64]) -> Floats:
    """The expected IoU of each image, from weights fitted on the other folds."""
    expected = np.zeros(len(ious))
    for fold in range(NUM_FOLDS):
        held = folds == fold
        weights = confidence.fit_logistic(features[~held], ious[~held])
        expected[held] = 1 / (1 + np.exp(-(features[held] @ weights[:-1] + weights[-1])))
    return expected


def rank(first: Floats, second: Floats) -> str:
    """Spearman's correlation as text."""
    value = rank_correlation(first.tolist(), second.tolist())
    return "-" if value is None else f"{value:.3f}"


def show(measured: list[dict[str, Any]]) -> None:
    """Fit and print."""
    features = np.array([one["features"] for one in measured])
    confusions = np.array([one["confusion"] for one in measured])
    ious = np.array([image_iou(confusion) for confusion in confusions])
    folds = np.array([fold_of(one["image_id"]) for one in measured])
    expected = cross_validated(features, ious, folds)
    current = np.array([confidence.expected_iou(row) for row in features])
    print(f"{len(measured)} images, mean true IoU {ious.mean():.3f}")
    print("Spearman's correlation with the true IoU of an image:")
    by_fold = [rank(expected[folds == fold], ious[folds == fold]) for fold in range(NUM_FOLDS)]
    print(f"  cross-validated {rank(expected, ious)} (folds: {', '.join(by_fold)})")
    print(f"  current weights {rank(current, ious)}")
    for name, column in zip(confidence.FEATURE_NAMES, features.T, strict=True):
        print(f"  {name + ' alone':15s} {rank(column, ious)}")
    error, spread = np.abs(expected - ious).mean(), np.abs(ious - ious.mean()).mean()
    print(f"mean error, cross-validated: {error:.3f}; of the mean IoU as a constant guess: {spread:.3f}")
    print("mIoU of the most confident images, cross-validated:")
    order = np.argsort(-expected)
    for fraction in (0.5, 0.8, 1.0):
        best = order[: round(fraction * len(order))]
        print(f"  {100 * fraction:3.0f} %  {100 * mean_iou(confusions[best].sum(axis=0))[1]:.1f}")
    print("expected and true IoU by tenths, cross-validated:")
    tenths = [part for part in np.array_split(order, 10) if len(part)]
    print("  " + "  ".join(f"{expected[part].mean():.2f}/{ious[part].mean():.2f}" for part in tenths))
    cost = sum(one["confidence_s"] for one in measured) / sum(one["label_s"] for one in measured)
    print(f"cost: {100 * cost:.2f} % of the CPU time of labeling")
    weights = confidence.fit_logistic(features, ious)
    print(f"WEIGHTS = ({', '.join(f'{weight:.4g}' for weight in weights[:-1])})\nINTERCEPT = {weights[-1]:.4g}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, help="the manifest")
    options.add_argument("--truth", required=True, help="true masks")
    options.add_argument("--cam", required=True, help="output folder of jobs.train_cam or jobs.train_segmentation")
    options.add_argument("--affinity", required=True, help="output folder of jobs.train_affinity")
    options.add_argument("--preset", default="small")
    options.add_argument("--features", type=Path, help="read from this file, or written to it")
    options.add_argument("--num-images", type=int, help="use the first N images of the manifest that have truth")
    chosen = options.parse_args()
    if chosen.features and chosen.features.exists():
        measured = json.loads(chosen.features.read_text())
    else:
        measured = list(measured_images(chosen))
        if chosen.features:
            chosen.features.write_text(json.dumps(measured))
    show(measured)
