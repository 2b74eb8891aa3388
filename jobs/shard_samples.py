"""Training samples from the shards that an earlier job wrote."""

from __future__ import annotations

from engine.errors import OutputError, StorageError
from engine.stages.samples import SampleSource, Target
from engine.storage.filesystem import join
from engine.storage.manifest import open_manifest
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER, read_json
from engine.storage.shards import committed_shards
from jobs.options import DataOptions
from jobs.shard_job import Claimed


def made_with(folder: str, job: str, option: str) -> Claimed:
    """What an earlier job's output was made from.

    Args:
        folder: what the job wrote, complete.
        job: the job's name, for the error's sentence.
        option: the option that names the folder.

    Raises:
        StorageError: the folder is not a complete output of a job.
    """
    record = read_json(join(folder, RECORD_NAME))
    if record is None:
        raise StorageError(f"{option} is '{folder}', which has no {RECORD_NAME}; allowed: a folder of jobs.{job}")
    manifest = open_manifest(join(folder, WORK_FOLDER))
    missing = manifest.num_shards - len(committed_shards(folder))
    if missing:
        raise StorageError(
            f"{option} is '{folder}', where {missing} of {manifest.num_shards} shards are missing; run jobs.{job} again"
        )
    return Claimed(record=record, manifest=manifest)


def check_same_images(claimed: Claimed, made: Claimed, option: str) -> None:
    """Raises OutputError where the shards were not made from ``--data``."""
    if made.manifest.data_hash != claimed.manifest.data_hash:
        raise OutputError(f"{option} was made from another manifest than --data; allowed: the shards of these images")


def shard_source(
    options: DataOptions, claimed: Claimed, folder: str, target: Target, *, grid_stride: int = 0
) -> SampleSource:
    """The samples whose target is a column of an earlier job's shards."""
    return SampleSource(
        manifest=join(options.out, WORK_FOLDER),
        target=target,
        shards=folder,
        rows_of_shards=claimed.manifest.rows_of_shards,
        num_classes=len(claimed.manifest.class_names),
        grid_stride=grid_stride,
        max_pixels=options.max_pixels,
    )
