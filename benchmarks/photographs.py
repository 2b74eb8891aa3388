"""The stages of jobs.label in this process, and the images they are timed on."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.runner import PHOTOGRAPHS
from engine.config import Settings
from engine.records import Batch
from engine.stages.cam import ComputeCam
from engine.stages.mask import MakeMask
from engine.stages.walk import RefineCam
from engine.storage.filesystem import absolute, join, parent
from engine.storage.manifest import Manifest, freeze_manifest, iter_manifest

Stage = Callable[[Batch], Batch]
MAX_PIXELS = 100_000_000


def add_options(parser: argparse.ArgumentParser, num_images: int) -> None:
    """What says which images and which weights."""
    parser.add_argument("--data", default=str(PHOTOGRAPHS / "manifest.csv"), help="the manifest")
    parser.add_argument("--cam", required=True, help="folder of jobs.train_cam")
    parser.add_argument("--affinity", required=True, help="folder of jobs.train_affinity")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--num-images", type=int, default=num_images)


def shortened_manifest(data: str, num_images: int, folder: Path) -> str:
    """A manifest of the first images of another, written into a folder."""
    path, left, home = folder / "manifest.csv", num_images, parent(absolute(data))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "image", "tags"])
        for batch in iter_manifest(data):
            rows = list(zip(batch["image_id"], batch["image"], batch["tags"], strict=True))[:left]
            for image_id, image, tags in rows:
                place = image if "://" in image or image.startswith("/") else join(home, image)
                writer.writerow([image_id, place, ";".join(tags)])
            left -= len(rows)
    return str(path)


def frozen(data: str, num_images: int, folder: Path, class_names: tuple[str, ...], rows_per_shard: int) -> Manifest:
    """The same, frozen."""
    short = shortened_manifest(data, num_images, folder)
    return freeze_manifest(
        short, str(folder / "frozen"), class_names=class_names, rows_per_shard=rows_per_shard, allow_outside=True
    )


def label_stages(settings: Settings, *, cam: str, affinity: str, num_classes: int) -> list[tuple[str, Stage]]:
    """What jobs.label does between the fetching of an image and its commit, by name."""
    shared: dict[str, Any] = {
        "device": settings.resources.device,
        "images_per_pass": settings.resources.images_per_pass,
    }
    shared["max_pixels"] = 10**8
    refine = RefineCam(affinity, settings.affinity.inference, settings.walk, **shared, keep_cam=False)
    mask = MakeMask(settings.crf, settings.walk, num_classes=num_classes, max_pixels=MAX_PIXELS, keep_stages=False)
    return [("cam", ComputeCam(cam, settings.cam.inference, **shared)), ("walk", refine), ("crf", mask)]
