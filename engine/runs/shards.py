"""What the jobs have in common that write a row for every image: frozen manifest, shards, resume, summary."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from engine.distributed.cluster import Cluster, connected
from engine.config import CrfConfig, ResourceConfig
from engine.errors import ConfigError, OtherRunError, TooManyErrors, UserError
from engine.distributed.pipeline import Committed, Pool, Step, crf_pool, network_pool, parts_folder, run_shards
from engine.runs.progress import Meter
from engine.stages.mask import MakeMask
from engine.networks import read_architecture
from engine.storage.class_names import named_classes, read_class_names
from engine.storage.filesystem import delete_file, delete_folder, exists, is_uri, join
from engine.storage.manifest import (
    MANIFEST_NAME,
    Manifest,
    freeze_manifest,
    open_manifest,
)
from engine.storage.pictures import file_of
from engine.storage.run_record import (
    RECORD_NAME,
    WORK_FOLDER,
    claim_output,
    commit,
    fingerprint,
    read_json,
    versions,
    write_json,
)
from engine.storage.shards import committed_shards
from engine.storage.sources.find import find_source, source_hash
from engine.storage.tally import Tally
from engine.runs.options import DataOptions, ShardOptions
from engine.runs.timings import print_profile, profile, timing_summary

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """An output folder that belongs to this run."""

    record: dict[str, Any]
    manifest: Manifest

    @property
    def hash(self) -> str:
        """Of all that decides the result."""
        return fingerprint({name: self.record[name] for name in ("job", "settings", "inputs")})


def mask_pools(
    networks: Sequence[Step], crf: CrfConfig, arguments: dict[str, Any], resources: ResourceConfig, cluster: Cluster
) -> list[Pool]:
    """The stages of the networks, then the masks.

    Args:
        arguments: of :class:`engine.stages.mask.MakeMask`, but for ``crf`` and ``device``.
    """
    masking = Step(name="crf", stage=MakeMask, arguments={**arguments, "crf": crf})
    return behind_networks(networks, masking, crf, resources, cluster)


def behind_networks(
    networks: Sequence[Step], last: Step, crf: CrfConfig, resources: ResourceConfig, cluster: Cluster
) -> list[Pool]:
    """The stages of the networks, then one with a dCRF: in actors of its own, or with the networks on their device."""
    if crf.backend == "torch":
        on_device = replace(last, arguments={**last.arguments, "device": resources.device})
        return [network_pool([*networks, on_device], resources, cluster)]
    return [network_pool(networks, resources, cluster), crf_pool([last], resources, cluster)]


def claim(
    job: str,
    options: DataOptions,
    settings: dict[str, Any],
    inputs: dict[str, str],
    *,
    rows_per_shard: int,
    class_names: tuple[str, ...] | None = None,
    writes: Sequence[str] = (),
    needs_tags: bool = True,
) -> Claimed:
    """Freeze the manifest and make ``--out`` this run's.

    Args:
        job: its name.
        settings: what decides the result.
        inputs: hashes of what it reads beside the images.
        class_names: the classes of a trained network; without it the manifest's.
        writes: names that the job writes under ``--out`` beside shards and records.
        needs_tags: whether a manifest without tags is a mistake.

    Raises:
        UserError: the manifest or the output folder cannot be used.
    """
    names = class_names or read_class_names(options.data, options.classes)
    record = {
        "job": job,
        "settings": settings,
        "inputs": {**inputs, "data": source_hash(options.data), "classes": fingerprint({"names": list(names)})}
        | ({"outside": "allowed"} if options.allow_outside else {}),
        "class_names": list(names),
        "writes": list(writes),
        "options": {"data": options.data, "classes": options.classes, "preset": options.preset},
        "versions": versions(),
        "commit": commit(),
    }
    claim_output(options.out, record, overwrite=options.overwrite)
    folder = join(options.out, WORK_FOLDER)
    is_new = not exists(join(folder, MANIFEST_NAME))
    if not is_new:
        manifest = open_manifest(folder)
        if not _has_moved(options, manifest):
            return Claimed(record=record, manifest=manifest)
    try:
        manifest = freeze_manifest(
            options.data,
            folder,
            class_names=names,
            rows_per_shard=rows_per_shard,
            allow_outside=options.allow_outside,
            needs_tags=needs_tags,
        )
    except UserError:
        if is_new:
            delete_file(join(options.out, RECORD_NAME))  # nothing was done yet: the mended manifest may come here
        raise
    return Claimed(record=record, manifest=manifest)


def _has_moved(options: DataOptions, manifest: Manifest) -> bool:
    """Whether the images lie in another folder than when the manifest was frozen.

    Raises:
        OtherRunError: the old folder is still there, so these may be other images under the same names.
    """
    before, now = manifest.source_folder, find_source(options.data).folder
    below = f"{before.rstrip('/')}/"
    if before in ("", now) or not any(file_of(uri).startswith(below) for uri in manifest.read_shard(0)["uri"]):
        return False
    try:
        if not exists(before):
            return True
    except OSError:  # another machine's bucket or credentials
        return True
    if not (is_uri(before) or is_uri(now)) and os.path.samefile(before, now):
        return False
    raise OtherRunError(
        f"--out '{options.out}' holds the output of images below '{before}', and --data names the same ones below "
        f"'{now}'; give the same folder, another --out, or --overwrite to start afresh"
    )


def network_classes(location: str, kind: str | tuple[str, ...], options: DataOptions) -> tuple[str, ...]:
    """The classes of a trained network, which decide; classes that the user names must be the same.

    Raises:
        WeightsError: the network cannot be read.
        ConfigError: the user's classes are others.
    """
    architecture = read_architecture(location, kind)
    named = named_classes(options.data, options.classes)
    if named is not None and named != architecture.class_names:
        raise ConfigError(
            f"--classes (or classes.txt beside --data) has {_some(named)}, but {location} was trained on "
            f"{_some(architecture.class_names)}; allowed: the same names in the same order"
        )
    return architecture.class_names


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)} names)" if len(names) > 4 else "")


def label_shards(
    options: ShardOptions,
    claimed: Claimed,
    *,
    schema: pa.Schema,
    pools: Callable[[Cluster], Sequence[Pool]],
    with_profile: bool = False,
) -> dict[str, Any]:
    """Do the shards that are not there yet, and write ``summary.json``.

    Args:
        claimed: the output folder.
        schema: of a shard.
        pools: the stages, for the cluster at hand.
        with_profile: also print where the time went, and put it into the summary.

    Returns:
        The summary: ``images``, ``errors`` by stage; of the last run that did any ``seconds``
        (``seconds_to_first_shard`` among them), ``images_per_s``, and what :func:`engine.runs.timings.timing_summary` says.

    Raises:
        TooManyErrors: more images than ``--max-error-fraction`` ended in an error, or shards could not be done.
    """
    summary = do_shards(options, claimed, folder=options.out, schema=schema, pools=pools)
    summary["labeled"] = summary["done"] - sum(summary["errors"].values())
    num_images = summary.pop("done") - summary.pop("done_before")
    if with_profile:
        summary["profile"] = profile(summary, num_images)
        print_profile(summary["profile"])
    before = None if num_images else read_json(join(options.out, SUMMARY))
    same = ("images", "errors", "missing_shards")
    if before is not None and all(before.get(name) == summary[name] for name in same):
        summary = {**summary, **before}  # nothing was left to do: the times are those of the run that did it
    else:
        write_json(join(options.out, SUMMARY), summary)
    check_errors(summary, options)
    return summary


def do_shards(
    options: ShardOptions,
    claimed: Claimed,
    *,
    folder: str,
    schema: pa.Schema,
    pools: Callable[[Cluster], Sequence[Pool]],
    fetch: bool = True,
    stale: Callable[[Tally], Collection[int]] | None = None,
) -> dict[str, Any]:
    """Do the shards that are not there yet.

    Args:
        claimed: the output folder.
        folder: where the shards go.
        schema: of a shard.
        pools: the stages, for the cluster at hand.
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

    with Meter(claimed.record["job"], manifest.num_rows, unit="images", done=num_done) as meter:
        if todo:
            with connected(options.resources) as cluster:
                run_shards(
                    manifest,
                    todo,
                    pools(cluster),
                    folder=folder,
                    schema=schema,
                    resources=options.resources,
                    cluster=cluster,
                    on_commit=on_commit,
                    fetch=fetch,
                )
    seconds = time.monotonic() - start
    if todo:
        tally.save()
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
        TooManyErrors: more images than ``--max-error-fraction`` ended in an error, or shards could not be done.
    """
    missing, errors = summary["missing_shards"], Counter(summary["errors"])
    if missing:
        raise TooManyErrors(
            f"{len(missing)} of {summary['shards']} shards could not be done (the first: {missing[0]}); "
            "the same command tries them again"
        )
    if errors.total() > options.max_error_fraction * summary["images"]:
        raise TooManyErrors(
            f"{errors.total()} of {summary['images']} images ended in an error ({_by_stage(errors)}), more than "
            f"--max-error-fraction {options.max_error_fraction:g}; the rows in {options.out} say why"
        )


def _num_rows(manifest: Manifest, shard: int) -> int:
    return min(manifest.rows_per_shard, manifest.num_rows - shard * manifest.rows_per_shard)


def _by_stage(errors: Counter[str]) -> str:
    return ", ".join(f"{stage}: {count}" for stage, count in errors.most_common())


def shard_metadata(claimed: Claimed) -> dict[str, str]:
    """What the metadata of every shard says about the run."""
    record = claimed.record
    return {
        "tag2mask": json.dumps(
            {
                "version": record["versions"]["tag2mask"],
                "config_hash": claimed.hash,
                "inputs": record["inputs"],
                "class_names": record["class_names"],
            }
        )
    }
