"""Images and networks for benchmarks, and the stages of jobs.label in this process."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path

from engine.chain import label_chain
from engine.config import Settings
from engine.networks import TrainedNetwork
from engine.records import Batch
from engine.resources import Decoding
from engine.storage.manifest import Manifest, freeze_manifest
from engine.storage.user_manifest import iter_manifest
from engine.storage.weights import weights_file

Stage = Callable[[Batch], Batch]
MAX_PIXELS = 100_000_000


def add_options(parser: argparse.ArgumentParser, num_images: int) -> None:
    """Options that name images and networks."""
    parser.add_argument("--data", required=True, help="the manifest")
    parser.add_argument("--cam", required=True, help="output folder of jobs.train_cam")
    parser.add_argument("--affinity", required=True, help="output folder of jobs.train_affinity")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--num-images", type=int, default=num_images, help="use the first N images of the manifest")


def write_manifest(path: Path, manifests: list[str], num_images: int | None = None) -> str:
    """The first images of some manifests as one, with the ids that they have there and absolute locations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = chain.from_iterable(
        zip(batch["image_id"], batch["uri"], map(";".join, batch["tags"]), strict=True)
        for manifest in manifests
        for batch in iter_manifest(manifest)
    )
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image_id", "image", "tags"))
        writer.writerows(islice(rows, num_images))
    return str(path)


def shortened_manifest(data: str, num_images: int, folder: Path) -> str:
    """The first images of a manifest as a manifest in ``folder``."""
    return write_manifest(folder / "manifest.csv", [data], num_images)


def frozen(data: str, num_images: int, folder: Path, class_names: tuple[str, ...], rows_per_shard: int) -> Manifest:
    """The first images of a manifest, frozen."""
    short = shortened_manifest(data, num_images, folder)
    return freeze_manifest(
        short, str(folder / "frozen"), class_names=class_names, rows_per_shard=rows_per_shard, allow_outside=True
    )


def label_stages(settings: Settings, cam: TrainedNetwork, affinity: str) -> list[tuple[str, Stage]]:
    """The stages of jobs.label between fetching an image and committing its mask, by name."""
    steps = label_chain(
        settings, cam, weights_file(affinity), decoding=Decoding(max_pixels=MAX_PIXELS), keep_stages=False
    )
    return [(step.name, step.build()) for step in steps]
