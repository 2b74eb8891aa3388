"""Score masks against true masks: IoU by class, mIoU, and how well the confidence predicts IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config import ConfidenceConfig
from engine.errors import ConfigError
from engine.imaging.codecs import decode_mask
from engine.ops.confidence import recalibrated
from engine.ops.metrics import image_iou, mean_iou, rank_correlation
from engine.plain_settings import merged, to_dict
from engine.progress import Meter
from engine.runs.truth_check import check_classes, check_scored, confusion_of, holds_ignored, other_size
from engine.storage.run_record import RECORD_NAME, read_record
from engine.storage.shards import count_rows, read_schema, read_shards
from engine.storage.truth import Truth, open_truth

MASK = "mask"
"""The column that ``confidence`` refers to."""
BEST_FRACTIONS = (0.5, 0.8, 1.0)
"""Fractions of the images, most confident first, that are scored separately."""
LEAST_CALIBRATED = 20
"""Minimum number of images to fit the two parameters of the calibration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores of masks: n images with true masks, in the order of the shards, and C classes."""

    column: str
    """The scored column."""
    class_names: tuple[str, ...]
    """The C names without background."""
    confusion: NDArray[np.int64]
    """(C+1, C+1) over all pixels, rows truth."""
    ious: NDArray[np.float64]
    """(n,) :func:`engine.ops.metrics.image_iou`; NaN if the truth ignores the whole image."""
    confidences: NDArray[np.float64]
    """(n,) in [0, 1]; NaN if the image ended in an error or has no confidence."""
    left_out: Mapping[str, str]
    """Why a true mask was not used, by image id."""
    remark: str
    """A note about how the truth was read; may be empty."""
    best: tuple[tuple[float, float, float], ...]
    """(fraction of the images, lowest confidence, mIoU), most confident first; empty without confidences."""

    @property
    def result(self) -> dict[str, Any]:
        """The scores as plain values, the content of ``evaluation.json``."""
        iou, miou = mean_iou(self.confusion)
        names = ["background", *self.class_names]
        result = {
            "miou": miou,
            "iou": {name: float(value) for name, value in zip(names, iou, strict=True) if not np.isnan(value)},
            "confusion": self.confusion.tolist(),
            "images": len(self.ious),
            "column": self.column,
            "left_out": dict(self.left_out),
        }
        if self.best:
            result["confidence"] = {
                "rank_correlation": rank_correlation(self.confidences.tolist(), self.ious.tolist()),
                "mean": float(np.nanmean(self.confidences)),
                "mean_image_iou": float(np.nanmean(self.ious)),
                "best": [
                    {"fraction": fraction, "least_confidence": least, "miou": value}
                    for fraction, least, value in self.best
                ],
            }
        return result


def score(masks: str, truth: str, column: str = MASK) -> dict[str, Any]:
    """Score masks; returns :attr:`Scores.result` of :func:`score_images`."""
    return score_images(masks, truth, column).result


def score_images(masks: str, truth: str, column: str = MASK, *, meter: Meter | None = None) -> Scores:
    """Score every image that has a true mask, keeping only sparse counts of each image in memory.

    Args:
        meter: Counts the images, as one of several passes; by default a meter of this pass alone.

    Raises:
        UserError: Masks or truth cannot be read, do not match, or have no image in common.
    """
    class_names = class_names_of(masks)
    size = len(class_names) + 1
    true_masks = open_truth(truth, class_names)
    left_out: dict[str, str] = {}
    ignores = False
    places: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = []
    ious: list[float] = []
    confidences: list[float] = []
    own = Meter(f"evaluate {column}", count_rows(masks), unit="images") if meter is None else nullcontext(meter)
    with own as counted:
        for row, true_mask in _rows_with_truth(masks, true_masks, column):
            counted.advance()
            picture = row[column]
            mask = np.zeros_like(true_mask) if picture is None else decode_mask(picture["bytes"])
            if mask.shape != true_mask.shape:
                left_out[row["image_id"]] = other_size(true_mask.shape, mask.shape)
                continue
            ignores = ignores or holds_ignored(true_mask, size - 1)
            confusion = confusion_of(row["image_id"], true_mask, mask, size - 1)
            places.append(np.flatnonzero(confusion))
            counts.append(confusion.ravel()[places[-1]])
            ious.append(image_iou(confusion))
            confidences.append(float("nan") if row["confidence"] is None else row["confidence"])
    check_scored(truth, f"'{masks}'", len(ious), left_out)
    image_of = np.repeat(np.arange(len(ious)), [len(one) for one in places])
    place_of, count_of = np.concatenate(places), np.concatenate(counts)

    def pixels_of(images: NDArray[np.bool_]) -> NDArray[np.int64]:
        total = np.zeros(size * size, np.int64)
        chosen = images[image_of]
        np.add.at(total, place_of[chosen], count_of[chosen])
        return total.reshape(size, size)

    total = pixels_of(np.ones(len(ious), np.bool_))
    check_classes(truth, total, len(ious), class_names, ignores=ignores)
    known = np.array(confidences)
    best = _best(known, pixels_of) if column == MASK and np.isfinite(known).any() else ()
    return Scores(
        column=column,
        class_names=class_names,
        confusion=total,
        ious=np.array(ious),
        confidences=known,
        left_out=left_out,
        remark=true_masks.remark,
        best=best,
    )


def _best(
    confidences: NDArray[np.float64], pixels_of: Callable[[NDArray[np.bool_]], NDArray[np.int64]]
) -> tuple[tuple[float, float, float], ...]:
    """Score the most confident images; an image without a confidence ended in an error and ranks last."""
    values = np.nan_to_num(confidences, nan=0.0)
    ranks = np.empty(len(values), np.int64)
    ranks[np.lexsort((-values, np.isnan(confidences)))] = np.arange(len(values))
    rows = []
    for fraction in BEST_FRACTIONS:
        chosen = ranks < max(1, round(fraction * len(values)))
        rows.append((fraction, float(values[chosen].min()), mean_iou(pixels_of(chosen))[1]))
    return tuple(rows)


def _rows_with_truth(
    masks: str, truth: Truth, column: str
) -> Iterator[tuple[dict[str, Any], NDArray[np.integer[Any]]]]:
    """Read the rows with a true mask, each with its mask.

    Raises:
        ConfigError: The column does not contain masks.
        StorageError: A file cannot be read.
    """
    schema = read_schema(masks)
    if column not in schema.names or not pa.types.is_struct(schema.field(column).type):
        allowed = ", ".join(name for name in schema.names if name.startswith(MASK))
        raise ConfigError(f"must be one of {allowed} for '{masks}', got '{column}'", thing="column")
    for table in read_shards(masks, ("image_id", "image", "confidence", column)):
        for row in table.to_pylist():
            true_mask = truth.mask_of(row["image_id"], row["image"])
            if true_mask is not None:
                yield row, true_mask


def calibration(masks: str, scores: Scores) -> dict[str, Any]:
    """Fit the confidence settings so that the confidence of these masks matches the IoU of their images."""
    judged = scores.confidences < 1  # leaves out NaN, and images without tags, whose confidence is always 1
    known = judged & np.isfinite(scores.ious)
    if known.sum() < LEAST_CALIBRATED:
        raise ConfigError(
            f"needs at least {LEAST_CALIBRATED} images with a mask and truth, got {known.sum()}", thing="calibrate"
        )
    settings = (read_record(masks) or {}).get("settings", {})
    before = merged(ConfidenceConfig(), settings.get("confidence", {}), where=f"{RECORD_NAME} of {masks}")
    scale, offset = recalibrated(
        scores.confidences[known], scores.ious[known], scale=before.scale, offset=before.offset
    )
    return {
        "settings": {"confidence": to_dict(replace(before, scale=scale, offset=offset))},
        "images": int(known.sum()),
    }


def class_names_of(masks: str) -> tuple[str, ...]:
    """Return the class names of a folder of mask shards.

    Raises:
        ConfigError: The folder is not the output of a job.
    """
    record = read_record(masks)
    if record is None or "class_names" not in record:
        raise ConfigError(f"'{masks}' has no {RECORD_NAME}; give the output folder of jobs.label", thing="masks")
    return tuple(record["class_names"])
