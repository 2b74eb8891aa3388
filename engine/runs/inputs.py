"""Training samples from the shards that an earlier job wrote."""

from __future__ import annotations

from engine.errors import StorageError
from engine.fitting.samples import SampleSource, Target
from engine.storage.filesystem import absolute, join
from engine.storage.manifest import open_manifest
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER, read_json
from engine.storage.shards import committed_shards
from engine.storage.sources.find import source_hash
from engine.runs.options import DataOptions
from engine.runs.shards import Claimed


def made_with(folder: str, jobs: tuple[str, ...], option: str, *, data: str) -> Claimed:
    """What an earlier job's output was made from.

    Args:
        folder: what the job wrote, complete.
        jobs: the jobs whose output will do.
        option: the option that names the folder.
        data: the manifest that it must have been made from.

    Raises:
        StorageError: the folder is not a complete output of one of the jobs, or of other images.
    """
    record = read_json(join(folder, RECORD_NAME))
    allowed = " or ".join(f"jobs.{job}" for job in jobs)
    if record is None:
        raise StorageError(f"{option} is '{folder}', which has no {RECORD_NAME}; allowed: a folder of {allowed}")
    if record["job"] not in jobs:
        raise StorageError(f"{option} is '{folder}', which jobs.{record['job']} wrote; allowed: a folder of {allowed}")
    manifest = open_manifest(join(folder, WORK_FOLDER))
    missing = manifest.num_shards - len(committed_shards(folder))
    if missing:
        raise StorageError(
            f"{option} is '{folder}', where {missing} of {manifest.num_shards} shards are missing; "
            f"run jobs.{record['job']} again"
        )
    if manifest.data_hash != source_hash(data):
        raise StorageError(f"{option} was made from another manifest than --data; allowed: the shards of these images")
    return Claimed(record=record, manifest=manifest)


def shard_source(
    options: DataOptions,
    claimed: Claimed,
    folder: str,
    target: Target,
    *,
    grid_stride: int = 0,
    confidence_power: float = 0.0,
    min_confidence: float = 0.0,
) -> SampleSource:
    """The samples whose target is a column of an earlier job's shards."""
    return SampleSource(
        manifest=join(absolute(options.out), WORK_FOLDER),
        target=target,
        shards=absolute(folder),
        rows_of_shards=claimed.manifest.rows_of_shards,
        num_classes=len(claimed.manifest.class_names),
        grid_stride=grid_stride,
        confidence_power=confidence_power,
        min_confidence=min_confidence,
        max_pixels=options.max_pixels,
    )
