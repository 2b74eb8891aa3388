"""Show what a run made: one self-contained HTML file: ``python -m jobs.report``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ImageError
from engine.ops.metrics import mean_iou
from engine.records import decode_mask, error_counts
from engine.report import ReportData, ReportImage, best_by_confidence, render_report
from engine.storage.filesystem import join, parent, read_bytes, resolve, write_bytes
from engine.storage.images import decode_image, resize_long_side
from engine.storage.roots import lies_outside, outside_reason
from engine.storage.run_record import RECORD_NAME, read_json
from engine.storage.shards import committed_shards, read_shard, read_shards
from engine.storage.truth import Truth, open_truth
from jobs.command import main
from jobs.evaluate import class_names_of, per_image_confusions

REPORT = "report.html"
SHOWN_LONG_SIDE_PX = 480
NUM_LISTED_ERRORS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Write one HTML file with pictures, scores and settings of a folder of masks; it opens without a network."""

    data: str
    """The manifest that the masks were made from."""
    masks: str
    """Folder of mask shards."""
    truth: str = ""
    """True masks: a folder of PNGs named by image stem, or a folder of mask shards."""
    run_folder: str = ""
    """Folder of jobs.run, for the training curves and the mIoU of each stage."""
    out: str = ""
    """Folder or URI for report.html; beside the masks by default."""
    num_images: int = 48
    """Images to show: the surest, the least sure, some of each class, some at random."""
    max_pixels: int = 100_000_000
    """Images with more pixels are not shown."""
    allow_outside: bool = False
    """Also show local images that are not below the manifest's folder."""


def run(config: Report) -> dict[str, Any]:
    """Write ``report.html``; returns its location."""
    rows = _rows(config.masks)
    class_names = class_names_of(config.masks)
    confusions: dict[str, NDArray[np.int64]] = {}
    if config.truth:
        confusions = dict(per_image_confusions(config.masks, config.truth, "mask", class_names))
    record = read_json(join(config.masks, RECORD_NAME)) or {}
    summary = read_json(join(config.masks, "summary.json")) or {}
    whole_run = (read_json(join(config.run_folder, "summary.json")) or {}) if config.run_folder else {}
    ious = {image_id: _present_iou(confusion) for image_id, confusion in confusions.items()}
    labeled = [row for row in rows if row["error"] is None]
    scored = [row for row in labeled if row["image_id"] in confusions]
    truth = open_truth(config.truth) if config.truth else None
    total = np.sum(list(confusions.values()), axis=0) if confusions else None
    data = ReportData(
        title="tag2mask",
        class_names=class_names,
        num_images=len(rows),
        images=[
            _picture(row, group, config, truth, ious.get(row["image_id"]))
            for row, group in _sample(labeled, class_names, config.num_images)
        ],
        miou=whole_run.get("miou") or ({"crf": mean_iou(total)[1]} if total is not None else None),
        iou=whole_run.get("iou") or ({"crf": _by_name(total, class_names)} if total is not None else None),
        confusion=total,
        areas=_areas(labeled, class_names),
        confidences=[row["confidence"] for row in (scored or labeled)],
        ious=[ious[row["image_id"]] for row in scored] if scored else None,
        best_miou=best_by_confidence(
            [row["confidence"] for row in scored], [confusions[row["image_id"]] for row in scored]
        )
        if scored
        else None,
        curves=_curves(config.run_folder),
        error_counts=error_counts(row["error"] for row in rows),
        errors=[(row["image_id"], row["error"]) for row in rows if row["error"] is not None][:NUM_LISTED_ERRORS],
        images_per_s=summary.get("images_per_s") or None,
        seconds=whole_run.get("steps", {}),
        settings=record.get("settings", {}),
        versions=record.get("versions", {}),
    )
    location = join(config.out or config.masks, REPORT)
    write_bytes(location, render_report(data).encode())
    print(f"report: {location}")
    return {"report": location}


def _rows(masks: str) -> list[dict[str, Any]]:
    """Every row without its pictures, with where it stands."""
    rows: list[dict[str, Any]] = []
    columns = ("image_id", "image", "tags", "areas", "confidence", "error")
    for shard, table in zip(sorted(committed_shards(masks)), read_shards(masks, columns), strict=True):
        rows += [{**row, "shard": shard, "row": index} for index, row in enumerate(table.to_pylist())]
    return rows


def _sample(rows: list[dict[str, Any]], class_names: tuple[str, ...], most: int) -> list[tuple[dict[str, Any], str]]:
    """The rows to show, each once, with the reason: surest, least sure, of each class, at random."""
    rng = np.random.default_rng(0)
    by_confidence = sorted(rows, key=lambda row: row["confidence"], reverse=True)
    share = max(1, most // 4)
    wanted = [(row, "surest") for row in by_confidence[:share]]
    wanted += [(row, "least sure") for row in by_confidence[::-1][:share]]
    for name in class_names:
        members = [row for row in rows if name in row["tags"]]
        picked = rng.permutation(len(members))[: max(1, share // len(class_names))]
        wanted += [(members[index], f"class {name}") for index in picked]
    wanted += [(rows[index], "random") for index in rng.permutation(len(rows))]
    chosen: dict[str, tuple[dict[str, Any], str]] = {}
    for row, group in wanted:
        if len(chosen) < most:
            chosen.setdefault(row["image_id"], (row, group))
    return list(chosen.values())


def _picture(row: dict[str, Any], group: str, config: Report, truth: Truth | None, iou: float | None) -> ReportImage:
    shard = read_shard(config.masks, row["shard"])
    masks = {
        name: decode_mask(shard.column(name)[row["row"]].as_py()["bytes"])
        for name in ("mask", "mask_cam", "mask_walk")
        if name in shard.column_names
    }
    photograph: NDArray[np.uint8] | None = None
    try:
        if not config.allow_outside and lies_outside(row["image"], parent(config.data)):
            raise PermissionError(outside_reason(row["image"]))
        encoded = read_bytes(resolve(row["image"], parent(config.data)))
        photograph = resize_long_side(decode_image(encoded, max_pixels=config.max_pixels), SHOWN_LONG_SIDE_PX)
    except (OSError, ImageError):
        photograph = None  # the report says so in its place
    return ReportImage(
        image_id=row["image_id"],
        tags=row["tags"],
        group=group,
        photograph=photograph,
        mask=masks["mask"],
        mask_cam=masks.get("mask_cam"),
        mask_walk=masks.get("mask_walk"),
        truth=truth.mask_of(row["image_id"], row["image"]) if truth is not None else None,
        confidence=row["confidence"],
        iou=iou,
    )


def _present_iou(confusion: NDArray[np.int64]) -> float:
    """Mean IoU of one image over the classes that its truth or its mask holds."""
    return mean_iou(confusion)[1]


def _by_name(confusion: Any, class_names: tuple[str, ...]) -> dict[str, float]:
    values = mean_iou(confusion)[0]
    return {name: float(value) for name, value in zip(["background", *class_names], values, strict=True)}


def _areas(rows: list[dict[str, Any]], class_names: tuple[str, ...]) -> list[float] | None:
    """Mean fraction of the pixels: background, then each class."""
    if not rows:
        return None
    ids = {name: index for index, name in enumerate(class_names, start=1)}
    total = np.zeros(len(class_names) + 1)
    for row in rows:
        for name, area in zip(["", *row["tags"]], row["areas"], strict=True):
            total[ids.get(name, 0)] += area
    mean: list[float] = (total / len(rows)).tolist()
    return mean


def _curves(run_folder: str) -> dict[str, list[dict[str, float]]]:
    curves: dict[str, list[dict[str, float]]] = {}
    for name in ("cam", "affinity", "segmentation"):
        summary = read_json(join(run_folder, name, "summary.json")) if run_folder else None
        if summary and summary.get("curve"):
            curves[name] = [{key: point[key] for key in ("step", "loss", "images_per_s")} for point in summary["curve"]]
    return curves


if __name__ == "__main__":
    sys.exit(main(Report, run))
