"""Inspect a job's images before anything is trained on them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from engine.display import duration
from engine.distributed.cluster import joins_cluster, num_cores
from engine.errors import ManifestError, StorageError, StoreUnavailableError, TooManyErrors
from engine.inspection.findings import Finding, describe_pictures, overview, picture_findings, tag_findings
from engine.inspection.forecast import NUM_IMAGES, forecast
from engine.inspection.pictures import picture_statistics, sample_rows
from engine.inspection.tags import TagStatistics, tag_statistics
from engine.progress import SKIPPED, doing, job
from engine.runs.images import ImageSet
from engine.runs.options import DataOptions, Uses
from engine.runs.output import claim, release
from engine.storage.filesystem import absolute, join
from engine.storage.manifest import Manifest
from engine.storage.run_record import WORK_FOLDER, read_json, write_json

INSPECTION = "inspection"
"""The step of jobs.run and its folder."""
RESULT = "inspection.json"
_LONG_RUN_S = 2 * 86400


def inspect_tags(manifest: Manifest, options: DataOptions) -> tuple[TagStatistics, list[Finding]]:
    """Gather statistics of the tags, and what is odd about them.

    Raises:
        ManifestError: No network can be trained with them; the output folder is free again.
    """
    with doing("inspecting tags"):
        tags = tag_statistics(manifest)
    findings = list(tag_findings(tags))
    _refuse(findings, options)
    return tags, findings


def inspect_images(options: DataOptions, images: ImageSet, *, predict: bool) -> dict[str, Any]:
    """Inspect tags and a sample of the images, and write ``inspection.json``; a complete one is kept.

    Args:
        predict: Also estimate time, memory and disk of a run, which takes up to a minute.

    Returns:
        Its content: ``images``, ``classes`` (images of each), ``tag_histogram``, ``overview`` (both, and the sample, in
        words), ``findings``, ``seconds``, and with ``predict`` the ``forecast`` and the proposed ``preset``.

    Raises:
        UserError: The manifest or the output folder cannot be used, or no run can work with the data.
    """
    claimed = claim(
        "inspect",
        options,
        images,
        uses=Uses.everything().result_paths if predict else (),
        inputs={"predict": str(predict)},
        rows_per_shard=options.settings.shards.rows_per_shard,
        writes=(RESULT,),
    )
    images.is_inspected = True
    result = read_json(join(options.out, RESULT))
    if result is not None:
        job("inspect").say(SKIPPED)
        return result
    manifest, start = claimed.manifest, time.monotonic()
    tags, findings = inspect_tags(manifest, options)
    with doing("inspecting images"):
        try:
            sample = picture_statistics(manifest, manifest.decoding(options.max_pixels))
        except StoreUnavailableError as error:
            release(options.out)
            raise StorageError(f"cannot be read: {error}", thing="data") from error
    findings += picture_findings(sample, bands=manifest.bands, value_range=manifest.value_range)
    if not joins_cluster():  # whose nodes may reach images that this machine does not
        _refuse(findings, options)
    result = {
        "images": tags.num_images,
        "classes": tags.counts,
        "tag_histogram": {str(number): count for number, count in tags.histogram.items()},
        "overview": [overview(tags), describe_pictures(sample)],
        "findings": [asdict(finding) for finding in findings],
    }
    if predict:
        unusable = {one.image_id for one in sample.pictures if one.error}
        result["forecast"] = _forecast(options, manifest, unusable)
        result["preset"] = "default" if torch.cuda.is_available() else "small"
    result["seconds"] = round(time.monotonic() - start, 2)
    write_json(join(options.out, RESULT), result)
    return result


def lines_of(result: dict[str, Any]) -> list[str]:
    """Describe the result of :func:`inspect_images`, a line for each finding."""
    lines = [*result["overview"], *(str(Finding(**finding)) for finding in result["findings"])]
    if "preset" not in result:
        return lines
    found = result["forecast"]
    if found is None:
        lines.append("a run cannot be estimated: no image can be used, or no GPU is here for resources.num_gpus")
    else:
        hours = f"{found['core_hours']:.3g} core hours"
        hours += f" and {found['gpu_hours']:.3g} GPU hours" if found["gpu_hours"] else ""
        steps = ", ".join(f"{name} {duration(seconds)}" for name, seconds in found["seconds"].items())
        lines.append(
            f"estimate for jobs.run on this machine: {duration(found['total_s'])} ({steps}), {hours}, "
            f"{found['memory_bytes'] / 1e9:.1f} GB of memory, {found['disk_bytes'] / 1e9:.2g} GB on the disk"
        )
        if found["total_s"] > _LONG_RUN_S:
            lines.append("use a cluster, or train on a part of the images (jobs.train_*) and label the rest")
    return [*lines, f"preset for this machine: {result['preset']}"]


def _forecast(options: DataOptions, manifest: Manifest, unusable: Collection[str]) -> dict[str, Any] | None:
    """Estimate a run; None where this machine lacks its GPU, or too few images can be used."""
    rows = sample_rows(manifest, NUM_IMAGES + len(unusable))
    chosen = [number for number, name in enumerate(rows["image_id"]) if name not in unusable][:NUM_IMAGES]
    if len(chosen) < 2 or (options.settings.resources.num_gpus and not torch.cuda.is_available()):
        return None
    measure = partial(
        forecast,
        options.settings,
        join(absolute(options.out), WORK_FOLDER),
        {name: [values[number] for number in chosen] for name, values in rows.items()},
        manifest,
        num_cores=num_cores(),
        max_pixels=options.max_pixels,
    )
    # in a process of its own, whose memory is that of a process of the run
    with doing("timing a few images"), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure).result().to_dict()
        except TooManyErrors:
            return None


def _refuse(findings: Sequence[Finding], options: DataOptions) -> None:
    for finding in findings:
        if finding.severity == "error":
            release(options.out)
            raise ManifestError(f"'{options.data}': {finding.seen}; {finding.advice}", thing="data")
