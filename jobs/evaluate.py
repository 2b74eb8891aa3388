"""Score masks against the truth: ``python -m jobs.evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engine.errors import ConfigError, StorageError
from engine.ops.metrics import confusion_matrix, mean_iou
from engine.progress import Meter
from engine.records import decode_mask, ignore_value
from engine.storage.filesystem import join
from engine.storage.run_record import RECORD_NAME, read_json, write_json
from engine.storage.shards import count_rows, read_shards
from engine.storage.truth import open_truth
from jobs.command import main

RESULT = "evaluation.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """Score masks: IoU of each class and mIoU, over all pixels of all images that have truth (VOC's way)."""

    masks: str
    """Folder of mask shards."""
    truth: str
    """True masks: a folder of PNGs named by image stem, or a folder of mask shards."""
    column: str = "mask"
    """Column of the shards to score: mask, or mask_cam and mask_walk of jobs.label --keep-stages."""
    out: str = ""
    """Folder or URI for evaluation.json; beside the masks by default."""


def run(config: Evaluate) -> dict[str, Any]:
    """Score the masks; writes ``evaluation.json``: ``miou``, ``iou`` by class, ``confusion``, ``images``."""
    result = score(config.masks, config.truth, config.column)
    write_json(join(config.out or config.masks, RESULT), result)
    _print_table(result)
    return result


def score(masks: str, truth: str, column: str = "mask") -> dict[str, Any]:
    """The evaluation of one column of mask shards.

    Raises:
        UserError: masks or truth cannot be read, do not fit each other, or have no image in common.
    """
    class_names = class_names_of(masks)
    total = np.zeros((len(class_names) + 1, len(class_names) + 1), dtype=np.int64)
    num_images = 0
    with Meter(f"evaluate {column}", count_rows(masks), unit="images") as meter:
        for num_images, (_, confusion) in enumerate(per_image_confusions(masks, truth, column, class_names), start=1):
            total += confusion
            meter.update(num_images)
    if not num_images:
        raise StorageError(f"--truth '{truth}' has no mask of an image in --masks '{masks}'")
    iou, miou = mean_iou(total)
    names = ["background", *class_names]
    return {
        "miou": miou,
        "iou": {name: float(value) for name, value in zip(names, iou, strict=True) if not np.isnan(value)},
        "confusion": total.tolist(),
        "images": num_images,
        "column": column,
    }


def per_image_confusions(
    masks: str, truth: str, column: str, class_names: tuple[str, ...]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The confusion matrix of each image that has a mask and truth.

    An image with truth whose row carries an error counts as all background.

    Yields:
        image_id and (C+1, C+1) int64, rows truth.

    Raises:
        StorageError: a mask and its truth differ in size, or a file cannot be read.
    """
    true_masks, num_classes = open_truth(truth), len(class_names)
    for table in read_shards(masks, ("image_id", "image", column)):
        for row in table.to_pylist():
            true_mask = true_masks.mask_of(row["image_id"], row["image"])
            if true_mask is None:
                continue
            picture = row[column]
            mask = np.zeros_like(true_mask) if picture is None else decode_mask(picture["bytes"])
            try:
                confusion = confusion_matrix(true_mask, mask, num_classes, ignore=ignore_value(num_classes))
            except ValueError as error:
                raise StorageError(f"image '{row['image_id']}' and its truth do not fit: {error}") from error
            yield row["image_id"], confusion


def class_names_of(masks: str) -> tuple[str, ...]:
    """The classes of a folder of mask shards.

    Raises:
        ConfigError: the folder is not the output of a job.
    """
    record = read_json(join(masks, RECORD_NAME))
    if record is None or "class_names" not in record:
        raise ConfigError(f"--masks is '{masks}', which has no {RECORD_NAME}; allowed: a folder of jobs.label")
    return tuple(record["class_names"])


def _print_table(result: dict[str, Any]) -> None:
    table = Table(title=f"IoU over {result['images']} images", title_justify="left")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in result["iou"].items():
        table.add_row(name, f"{100 * value:.1f}")
    table.add_section()
    table.add_row("mean", f"{100 * result['miou']:.1f}")
    Console(width=80).print(table)


if __name__ == "__main__":
    sys.exit(main(Evaluate, run))
