"""Gather the content of a report from mask shards, true masks and the folder of a run."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.chain import label_chain, run_chain, torch_threads
from engine.errors import ConfigError, ImageError, UserError
from engine.imaging.codecs import decode_map, decode_mask
from engine.imaging.decoding import decode_image, resize_long_side
from engine.networks import MAP_KINDS, open_network
from engine.ops.metrics import confusion_matrix, image_iou
from engine.plain_settings import merged
from engine.presets import preset
from engine.records import Batch, ignore_value
from engine.report import ReportData, ReportImage
from engine.report.sample import Row, Sample, is_background
from engine.resources import Decoding, ResourceConfig
from engine.runs.evaluation import Scores, class_names_of, score_images
from engine.runs.inspection import INSPECTION, lines_of
from engine.runs.inspection import RESULT as INSPECTION_RESULT
from engine.runs.options import ReportSource
from engine.runs.output import SUMMARY
from engine.runs.stage_scores import EARLIER_ROUND, MOST_ROUNDS, SEGMENTED, by_measure, score_stages, stages_of
from engine.storage.filesystem import exists, join, name_of, parent, resolve
from engine.storage.manifest import Manifest, open_manifest
from engine.storage.pictures import read_picture
from engine.storage.roots import lies_outside
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER, read_record
from engine.storage.shards import committed_shards, read_shard, read_shards
from engine.storage.sources.find import find_source
from engine.storage.truth import Truth, open_truth
from engine.storage.weights import weights_hash

SHOWN_LONG_SIDE_PX = 480
NUM_LISTED_ERRORS = 200
ROW_COLUMNS = ("image_id", "image", "tags", "areas", "confidence", "error")
"""Columns read from every row; the image columns are read only for the images shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Overview:
    """Statistics of all rows, gathered in one pass."""

    num_images: int
    confidences: list[float]
    """Confidences of the images with tags and a mask."""
    areas: list[float] | None
    """(C+1,) mean fraction of the pixels, background first."""
    missing: dict[str, tuple[int, int]]
    """For each class, the number of images tagged with it but without a pixel of it, and of all images tagged."""
    error_counts: dict[str, int]
    errors: list[tuple[str, str]]
    """(image_id, reason) of the first errors."""
    chosen: list[tuple[Row, str]]
    """The rows to show, each with its ``shard`` and ``row``, and the reason for showing it."""


def report_data(source: ReportSource, scores: Scores | None = None) -> ReportData:
    """Read the content of a report.

    Args:
        scores: The scores of the masks, if already computed.

    Raises:
        UserError: Masks or truth cannot be read, or do not match.
    """
    class_names = class_names_of(source.masks)
    record = read_record(source.masks) or {}
    summary = read_record(source.masks, SUMMARY) or {}
    whole_run = (read_record(source.run_folder, SUMMARY) or {}) if source.run_folder else {}
    inspected = read_record(join(source.run_folder, INSPECTION), INSPECTION_RESULT) if source.run_folder else None
    overview = _overview(source, class_names)
    if source.truth and scores is None:
        scores = score_images(source.masks, source.truth)
    judged = scores.confidences < 1 if scores else None  # an image without tags always has confidence 1
    stages = stages_of(whole_run) if whole_run.get("rounds") else _by_stage(source, scores, record)
    return ReportData(
        title=name_of(parent(source.data)) if "/" in source.data.rstrip("/") else source.data,
        class_names=class_names,
        num_images=overview.num_images,
        images=_pictures(source, overview.chosen, class_names, record),
        missing={} if record.get("job") == "segment" else overview.missing,
        miou=stages.get("miou"),
        iou=stages.get("iou"),
        confusion=scores.confusion if scores else None,
        # jobs.segment predicts any class, but its rows have the areas of tagged classes only
        areas=None if record.get("job") == "segment" else overview.areas,
        confidences=scores.confidences[judged].tolist() if scores else overview.confidences,
        ious=scores.ious[judged].tolist() if scores else None,
        best_miou=scores.best if scores else None,
        curves=_curves(source.run_folder),
        error_counts=overview.error_counts,
        errors=overview.errors,
        images_per_s=summary.get("images_per_s") or None,
        seconds=whole_run.get("steps", {}),
        inspection=lines_of(inspected) if inspected else (),
        settings=record.get("settings", {}),
        versions={**record.get("versions", {}), **record.get("inputs", {}), "commit": record.get("commit", "")},
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _overview(source: ReportSource, class_names: tuple[str, ...]) -> _Overview:
    """Read every row once, without its image columns, and keep only statistics and a sample."""
    ids = {name: index for index, name in enumerate(class_names, start=1)}
    sample = Sample(class_names, source.num_images)
    areas = np.zeros(len(class_names) + 1)
    tagged: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    num_masks = 0
    confidences: list[float] = []
    error_counts: Counter[str] = Counter()
    errors: list[tuple[str, str]] = []
    num_images = 0
    for shard, table in zip(
        sorted(committed_shards(source.masks)), read_shards(source.masks, ROW_COLUMNS), strict=True
    ):
        for index, row in enumerate(table.to_pylist()):
            num_images += 1
            sample.add({**row, "shard": shard, "row": index})
            if row["error"] is not None:
                error_counts[row["error"].split(":", 1)[0]] += 1
                if len(errors) < NUM_LISTED_ERRORS:
                    errors.append((row["image_id"], row["error"]))
                continue
            num_masks += 1
            if not is_background(row):
                confidences.append(float("nan") if row["confidence"] is None else row["confidence"])
            for name, area in zip(["", *row["tags"]], row["areas"], strict=True):
                areas[ids.get(name, 0)] += area
            tagged.update(row["tags"])
            missing.update(_missing_tags(row))
    return _Overview(
        num_images=num_images,
        confidences=confidences,
        areas=(areas / num_masks).tolist() if num_masks else None,
        missing={name: (missing[name], count) for name, count in tagged.items()},
        error_counts=dict(error_counts),
        errors=errors,
        chosen=sample.chosen(),
    )


def _missing_tags(row: Row) -> list[str]:
    """List the tags without a pixel in the row's mask."""
    areas = row["areas"] or ()
    return [tag for tag, area in zip(row["tags"], areas[1:], strict=False) if area == 0]


def _pictures(
    source: ReportSource, chosen: Sequence[tuple[Row, str]], class_names: tuple[str, ...], record: Mapping[str, Any]
) -> list[ReportImage]:
    """Read the images of the gallery, one shard at a time."""
    truth = open_truth(source.truth, class_names) if source.truth else None
    frozen, rows = _frozen(source), [row for row, _ in chosen]
    decoding = Decoding(max_pixels=source.max_pixels) if frozen is None else frozen.decoding(source.max_pixels)
    encoded = _all_encoded(source, rows, frozen)
    maps = _maps(source, rows, encoded, decoding, class_names, record)
    columns = {name: name for name in ("mask", "mask_cam", "mask_walk")}
    stored = _stored(source.masks, chosen, columns)
    network = join(source.run_folder, SEGMENTED) if source.run_folder else ""
    if network and list(class_names) == (read_record(network) or {}).get("class_names"):
        for number, row in _stored(network, chosen, {"mask": "mask_network"}).items():
            stored[number] |= row
    return [
        _picture(
            source, row, group, stored[number], encoded[number], truth, len(class_names), decoding, maps.get(number)
        )
        for number, (row, group) in enumerate(chosen)
    ]


def _stored(masks: str, chosen: Sequence[tuple[Row, str]], columns: Mapping[str, str]) -> dict[int, dict[str, Any]]:
    """Read image columns of the chosen rows, renamed, by index into ``chosen``; missing images are left out."""
    found: dict[int, dict[str, Any]] = {}
    shards = {row["shard"] for row, _ in chosen} & set(committed_shards(masks))
    for shard in sorted(shards):
        table = read_shard(masks, shard)
        kept = [name for name in columns if name in table.column_names]
        for number, (row, _) in enumerate(chosen):
            if row["shard"] == shard and row["row"] < table.num_rows:
                (values,) = table.select([*kept, "image_id"]).slice(row["row"], 1).to_pylist()
                if values["image_id"] == row["image_id"]:
                    found[number] = {columns[name]: values[name] for name in kept}
    return found


def _picture(
    source: ReportSource,
    row: Row,
    group: str,
    stored: Row,
    encoded: bytes | None,
    truth: Truth | None,
    num_classes: int,
    decoding: Decoding,
    maps: tuple[NDArray[np.float32], NDArray[np.float32] | None] | None,
) -> ReportImage:
    masks = {name: decode_mask(picture["bytes"]) for name, picture in stored.items() if picture is not None}
    photograph: NDArray[np.uint8] | None = None
    if encoded is not None:
        try:
            photograph = resize_long_side(decode_image(encoded, decoding), SHOWN_LONG_SIDE_PX)
        except ImageError:
            photograph = None
    true_mask = truth.mask_of(row["image_id"], row["image"]) if truth is not None else None
    iou: float | None = None
    if true_mask is not None and "mask" in masks and true_mask.shape == masks["mask"].shape:
        iou = image_iou(confusion_matrix(true_mask, masks["mask"], num_classes, ignore=ignore_value(num_classes)))
    return ReportImage(
        image_id=row["image_id"],
        tags=row["tags"] or [],
        group=group,
        photograph=photograph,
        mask=masks.get("mask"),
        mask_cam=masks.get("mask_cam"),
        mask_walk=masks.get("mask_walk"),
        mask_network=masks.get("mask_network"),
        truth=true_mask,
        cam=maps[0] if maps else None,
        walked=maps[1] if maps else None,
        cam_classes=row["tags"] if maps else (),
        confidence=row["confidence"],
        iou=iou,
        error=row["error"],
        missing_tags=_missing_tags(row),
        object_fraction=1 - row["areas"][0] if row["areas"] else None,
    )


def _all_encoded(source: ReportSource, rows: Sequence[Row], frozen: Manifest | None) -> list[bytes | None]:
    """Read the images' files; None for one that cannot be read, which the report shows as such."""
    try:
        folder = find_source(source.data).folder
    except (OSError, UserError):
        return [None] * len(rows)
    embedded = frozen if frozen is not None and frozen.embeds_pictures else None
    return [_encoded(source, row, folder, embedded) for row in rows]


def _frozen(source: ReportSource) -> Manifest | None:
    """The manifest of the masks; None where they were moved without it."""
    try:
        return open_manifest(join(source.masks, WORK_FOLDER))
    except (OSError, UserError):
        return None


def _encoded(source: ReportSource, row: Row, folder: str, frozen: Manifest | None) -> bytes | None:
    """Read one image's file, or None.

    Args:
        folder: Folder of the manifest, to which the image's path is relative.
        frozen: The frozen manifest of the masks, if the source contains the images.
    """
    try:
        if frozen is not None:
            return read_picture(frozen.read_shard(row["shard"])["uri"][row["row"]])
        if not source.allow_outside and lies_outside(row["image"], folder):
            return None
        return read_picture(resolve(row["image"], folder))
    except (OSError, UserError):
        return None


def _maps(
    source: ReportSource,
    rows: Sequence[Row],
    encoded: Sequence[bytes | None],
    decoding: Decoding,
    class_names: tuple[str, ...],
    record: Mapping[str, Any],
) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
    """Recompute the CAM and walked maps, by index of the row, with the networks that made the masks."""
    cam, affinity = _weights(source, record, "cam"), _weights(source, record, "affinity")
    usable = [number for number, row in enumerate(rows) if encoded[number] is not None and row["error"] is None]
    if not cam or not usable:
        return {}
    settings = merged(preset("small"), dict(record.get("settings", {})), where=f"{RECORD_NAME} of {source.masks}")
    settings = replace(settings, resources=ResourceConfig())
    ids = {name: index for index, name in enumerate(class_names, start=1)}
    empty: list[Any] = [None] * len(usable)
    batch: Batch = {
        "encoded": [encoded[number] for number in usable],
        "class_ids": [[ids[name] for name in rows[number]["tags"]] for number in usable],
        **{name: list(empty) for name in ("error", "height", "width")},
    }
    network = open_network(cam, MAP_KINDS)
    chain = label_chain(settings, network, affinity, decoding=decoding, keep_stages=True)
    walks = bool(affinity) and settings.maps_of(network.map_kind).walk.num_steps > 0
    with torch_threads(settings.resources.threads_per_actor):
        batch = run_chain(chain[: 2 if walks else 1], batch)
    batch.setdefault("refined_cam", empty)
    made = zip(usable, batch["cam"], batch["refined_cam"], strict=True)
    return {
        number: (decode_map(cam_map), None if walked is None else decode_map(walked)[1:])
        for number, cam_map, walked in made
        if cam_map is not None
    }


def _weights(source: ReportSource, record: Mapping[str, Any], kind: str) -> str:
    """Find the folder of the network that made the masks; empty if there is none.

    Raises:
        ConfigError: The user named a folder with another network.
    """
    named = source.cam if kind == "cam" else source.affinity
    for location in [named] if named else _of_run(source.run_folder, kind):
        if weights_hash(location) == record.get("inputs", {}).get(kind):
            return location
    if named:
        raise ConfigError(f"'{named}' did not make the masks; give the folder that jobs.label used", thing=kind)
    return ""


def _of_run(run_folder: str, kind: str) -> Iterator[str]:
    """List where jobs.run keeps networks of a kind; later rounds take maps from the previous segmentation network."""
    if not run_folder:
        return
    names = [kind]
    if kind == "cam":
        names += [f"{EARLIER_ROUND.format(number)}/segmentation" for number in range(1, MOST_ROUNDS)]
    for location in (join(run_folder, name) for name in names):
        if exists(join(location, RECORD_NAME)):
            yield location


def _by_stage(source: ReportSource, scores: Scores | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """Compute ``miou`` and ``iou`` of every stage whose masks the shards keep; empty without truth.

    Args:
        scores: The scores of the final masks.
        record: The record of the job that made them.
    """
    if scores is None:
        return {}
    found = score_stages(source.masks, source.truth, ("cam", "walk"))
    return by_measure({**found, "segmentation" if record.get("job") == "segment" else "crf": scores})


def _curves(run_folder: str) -> dict[str, list[dict[str, float]]]:
    curves: dict[str, list[dict[str, float]]] = {}
    for name in ("cam", "affinity", "segmentation"):
        summary = read_record(join(run_folder, name), SUMMARY) if run_folder else None
        if summary and summary.get("curve"):
            curves[name] = [{key: point[key] for key in ("step", "loss", "images_per_s")} for point in summary["curve"]]
            curves[name] += [
                {key if key == "step" else f"held-out {key}": value for key, value in point.items()}
                for point in summary.get("validation", [])
            ]
    return curves
