"""Do the shards of a job that are not there yet, count them, and sum up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa

from engine.distributed.cluster import connected
from engine.distributed.pipeline import Committed, ShardRun, run_shards
from engine.distributed.single_images import parts_folder
from engine.errors import TooManyErrors
from engine.progress import SKIPPED, Meter, job
from engine.runs.options import ShardOptions
from engine.runs.output import SUMMARY, Claimed
from engine.runs.timings import print_profile, profile, timing_summary
from engine.step import Step
from engine.storage.filesystem import delete_folder, join
from engine.storage.manifest import Manifest
from engine.storage.run_record import WORK_FOLDER, read_json, write_json
from engine.storage.shards import committed_shards
from engine.storage.tally import Tally


def label_shards(
    options: ShardOptions,
    claimed: Claimed,
    *,
    schema: pa.Schema,
    steps: Sequence[Step],
    with_profile: bool = False,
) -> dict[str, Any]:
    """Do the shards that are not there yet, and write ``summary.json``.

    Args:
        claimed: the output folder.
        schema: of a shard.
        steps: the chain.
        with_profile: also print where the time went, and put it into the summary.

    Returns:
        The summary: ``images``, ``errors`` by stage; of the last run that did any ``seconds``
        (with ``seconds_to_first_shard``), ``images_per_s``, and what :func:`engine.runs.timings.timing_summary` adds.

    Raises:
        TooManyErrors: as :func:`check_errors`.
    """
    summary = do_shards(options, claimed, folder=options.out, schema=schema, steps=steps)
    summary["labeled"] = summary["done"] - sum(summary["errors"].values())
    num_images = summary.pop("done") - summary.pop("done_before")
    if with_profile:
        summary["profile"] = profile(summary, num_images)
        print_profile(summary["profile"])
    location = join(options.out, WORK_FOLDER, SUMMARY)
    before = None if num_images else read_json(location)
    same = ("images", "errors", "missing_shards")
    if before is not None and all(before.get(name) == summary[name] for name in same):
        summary = {**summary, **before}  # nothing was left to do: the times are those of the run that did it
    else:
        write_json(location, summary)
    check_errors(summary, options)
    return summary


def do_shards(
    options: ShardOptions,
    claimed: Claimed,
    *,
    folder: str,
    schema: pa.Schema,
    steps: Sequence[Step],
    fetch: bool = True,
    stale: Callable[[Tally], Collection[int]] | None = None,
) -> dict[str, Any]:
    """Do the shards that are not there yet.

    Args:
        claimed: the output folder.
        folder: where the shards go.
        schema: of a shard.
        steps: the chain.
        fetch: whether the images are read.
        stale: which of the shards that are there to do again.

    Returns:
        ``images``, ``errors`` by stage, ``seconds`` and ``images_per_s`` of this run, ``shards``, ``missing_shards``,
        ``config_hash``; ``done``, the images that have a row, and ``done_before``.
    """
    manifest = claimed.manifest
    if options.retry_errors:
        delete_folder(parts_folder(folder))  # of a run that was killed; they may hold errors
    tally = Tally(folder)
    if options.retry_errors:
        tally.forget_errors()
    if stale is not None:
        tally.forget(stale(tally))
    earlier = tally.shards
    todo = [shard for shard in range(manifest.num_shards) if shard not in earlier]
    errors = tally.errors
    num_done = sum(_num_rows(manifest, shard) for shard in earlier)
    num_before, start = num_done, time.monotonic()
    stage_seconds: Counter[str] = Counter()
    first_s = 0.0

    def on_commit(committed: Committed) -> None:
        nonlocal num_done, first_s
        first_s = first_s or time.monotonic() - start
        num_done += committed.num_rows
        errors.update(committed.errors)
        stage_seconds.update(committed.seconds)
        tally.add(committed.shard, committed.errors)
        rate = f"{(num_done - num_before) / (time.monotonic() - start):.1f} images/s"
        meter.update(num_done, f"{rate}, {errors.total()} errors" if errors else rate)

    if todo:
        resources = options.settings.resources
        with (
            connected(resources) as cluster,
            Meter(claimed.record["job"], manifest.num_rows, unit="images", done=num_done) as meter,
        ):
            run = ShardRun(
                manifest=manifest, folder=folder, schema=schema, resources=resources, cluster=cluster, fetch=fetch
            )
            run_shards(run, steps, todo, on_commit=on_commit)
        tally.save()
    else:
        job(claimed.record["job"]).say(SKIPPED)
    seconds = time.monotonic() - start
    return {
        "images": manifest.num_rows,
        "errors": dict(errors),
        "seconds": round(seconds, 2),
        "seconds_to_first_shard": round(first_s, 2),
        "images_per_s": round((num_done - num_before) / seconds, 3) if num_done > num_before else 0.0,
        **timing_summary(stage_seconds, num_images=num_done - num_before, wall_s=seconds),
        "shards": manifest.num_shards,
        "missing_shards": sorted(set(range(manifest.num_shards)) - committed_shards(folder)),
        "config_hash": claimed.hash,
        "done": num_done,
        "done_before": num_before,
    }


def check_errors(summary: dict[str, Any], options: ShardOptions) -> None:
    """Whether a job may call itself done.

    Raises:
        TooManyErrors: more images than ``max_error_fraction`` ended in an error, or shards could not be done.
    """
    missing, errors = summary["missing_shards"], Counter(summary["errors"])
    if missing:
        raise TooManyErrors(
            f"{len(missing)} of {summary['shards']} shards could not be done (the first: {missing[0]}); "
            "rerun the command to try them again"
        )
    if errors.total() > options.max_error_fraction * summary["images"]:
        raise TooManyErrors(
            f"{errors.total()} of {summary['images']} images ended in an error ({_by_stage(errors)}), more than "
            f"max_error_fraction {options.max_error_fraction:g}; the rows in {options.out} say why"
        )


def _num_rows(manifest: Manifest, shard: int) -> int:
    return min(manifest.rows_per_shard, manifest.num_rows - shard * manifest.rows_per_shard)


def _by_stage(errors: Counter[str]) -> str:
    return ", ".join(f"{stage}: {count}" for stage, count in errors.most_common())
