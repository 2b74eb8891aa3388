"""Process the missing shards of a job and summarize the result."""

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
from engine.runs.timings import bill, print_profile, profile, timing_summary
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
    """Process the missing shards, and write ``summary.json``.

    Args:
        claimed: The output folder.
        schema: Schema of the shards.
        steps: The chain.
        with_profile: Also print the time spent in each stage and add it to the summary.

    Returns:
        The summary: ``images`` and ``errors`` by stage; for the last run that processed any shard, ``seconds``,
        ``seconds_to_first_shard``, ``images_per_s`` and the result of :func:`engine.runs.timings.timing_summary`.

    Raises:
        TooManyErrors: As :func:`check_errors`.
    """
    summary = do_shards(options, claimed, folder=options.out, schema=schema, steps=steps)
    summary["labeled"] = summary["done"] - sum(summary["errors"].values())
    num_images = summary.pop("done") - summary.pop("done_before")
    if num_images:
        job(claimed.record["job"]).say(bill(summary))
    if with_profile:
        summary["profile"] = profile(summary, num_images)
        print_profile(summary["profile"])
    location = join(options.out, WORK_FOLDER, SUMMARY)
    before = None if num_images else read_json(location)
    same = ("images", "errors", "missing_shards")
    if before is not None and all(before.get(name) == summary[name] for name in same):
        summary = {**summary, **before}  # nothing was left to do: keep the times of the earlier run
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
    """Process the missing shards.

    Args:
        claimed: The output folder.
        folder: Folder of the shards.
        schema: Schema of the shards.
        steps: The chain.
        fetch: Whether to read the images.
        stale: Selects existing shards to redo.

    Returns:
        ``images``, ``errors`` by stage, ``seconds`` and ``images_per_s`` of this run, ``shards``, ``missing_shards``,
        ``config_hash``, and the number of images with a row, ``done``, and before this run, ``done_before``.
    """
    manifest = claimed.manifest
    if options.retry_errors:
        delete_folder(parts_folder(folder))  # left by a killed run; they may contain errors
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
    first_s, cores = 0.0, 1.0

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
            cores = float(cluster.num_cores) if cluster.started_here else cluster.num_cpus
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
        **timing_summary(
            stage_seconds,
            num_images=num_done - num_before,
            wall_s=seconds,
            num_cores=cores,
            price=options.price_per_core_hour,
        ),
        "shards": manifest.num_shards,
        "missing_shards": sorted(set(range(manifest.num_shards)) - committed_shards(folder)),
        "config_hash": claimed.hash,
        **({"ignored_tags": manifest.ignored_tags} if manifest.ignored_tags else {}),
        "done": num_done,
        "done_before": num_before,
    }


def check_errors(summary: dict[str, Any], options: ShardOptions) -> None:
    """Check that all shards were written, with few enough errors.

    Raises:
        TooManyErrors: More images than ``max_error_fraction`` ended in an error, or a shard could not be processed.
    """
    missing, errors = summary["missing_shards"], Counter(summary["errors"])
    if missing:
        raise TooManyErrors(
            f"{len(missing)} of {summary['shards']} shards could not be processed (the first: {missing[0]}); "
            "rerun the command to retry them"
        )
    if errors.total() > options.max_error_fraction * summary["images"]:
        raise TooManyErrors(
            f"{errors.total()} of {summary['images']} images ended in an error ({_by_stage(errors)}), more than "
            f"max_error_fraction {options.max_error_fraction:g}; see the column error in {options.out}"
        )


def _num_rows(manifest: Manifest, shard: int) -> int:
    return min(manifest.rows_per_shard, manifest.num_rows - shard * manifest.rows_per_shard)


def _by_stage(errors: Counter[str]) -> str:
    return ", ".join(f"{stage}: {count}" for stage, count in errors.most_common())
