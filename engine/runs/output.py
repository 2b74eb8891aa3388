"""Claim a job's output folder, and open the output of earlier jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError, StorageError, UserError, about
from engine.networks import TrainedNetwork, open_network
from engine.plain_settings import parts_to_dict, rest_to_dict
from engine.runs.images import ImageSet
from engine.runs.options import DECODING, DataOptions
from engine.storage.filesystem import delete_file, delete_folder, join
from engine.storage.manifest import Manifest, has_manifest, open_manifest
from engine.storage.recorded_settings import recorded_synonyms
from engine.storage.run_record import (
    RECORD_NAME,
    SYNONYMS,
    VALUE_RANGE,
    WORK_FOLDER,
    amend_record,
    claim_output,
    commit,
    fingerprint,
    read_record,
    versions,
)
from engine.storage.shards import committed_shards

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """An output folder that belongs to one run."""

    record: dict[str, Any]
    manifest: Manifest

    @property
    def hash(self) -> str:
        """Hash of everything that affects the result."""
        return fingerprint({name: self.record[name] for name in ("job", "settings", "inputs")})

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata about the run for every shard."""
        record = self.record
        return {
            "tag2mask": json.dumps(
                {
                    "version": record["versions"]["tag2mask"],
                    "config_hash": self.hash,
                    "inputs": record["inputs"],
                    "class_names": record["class_names"],
                }
            )
        }


def run_record(
    job: str,
    options: DataOptions,
    *,
    uses: Sequence[str],
    inputs: Mapping[str, str],
    class_names: Sequence[str],
    writes: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the content of ``run.json``.

    ``other_settings`` do not affect this job's result; they are defaults for later jobs.

    Args:
        job: Name of the job.
        uses: Dotted paths of the settings that affect the result.
        inputs: Everything else that affects the result: hashes of what the job reads, and its own options.
        writes: Names of files and folders that the job writes besides shards and records.
    """
    decisive = list(dict.fromkeys([*uses, *DECODING]))
    return {
        "job": job,
        "settings": parts_to_dict(options.settings, decisive),
        "other_settings": rest_to_dict(options.settings, decisive),
        "inputs": dict(inputs),
        "class_names": list(class_names),
        "writes": list(writes),
        "options": {"data": options.data, "classes": options.classes, "preset": options.preset},
        "versions": versions(),
        "commit": commit(),
    }


def claim(
    job: str,
    options: DataOptions,
    images: ImageSet,
    *,
    uses: Sequence[str],
    inputs: Mapping[str, str],
    rows_per_shard: int,
    class_names: tuple[str, ...] | None = None,
    writes: Sequence[str] = (),
    needs_tags: bool = True,
    hidden: bool = False,
) -> Claimed:
    """Claim the output folder for this run, and freeze the manifest there.

    Args:
        class_names: The classes of a trained network; by default those of the manifest.
        needs_tags: Whether a manifest without tags is an error.
        hidden: Whether the job writes shards directly to the folder, as for :func:`claim_output`.
        job, uses, inputs, writes: As for :func:`run_record`.

    Raises:
        UserError: The manifest or the output folder cannot be used.
    """
    names = class_names or images.class_names
    read = {"data": images.hash, "classes": fingerprint({"names": list(names)})}
    outside = {"outside": "allowed"} if options.allow_outside else {}
    if images.synonyms:
        read[SYNONYMS] = fingerprint(images.synonyms)
    if options.unknown_tags != "error":
        read["unknown_tags"] = options.unknown_tags
    record = run_record(job, options, uses=uses, inputs={**inputs, **read, **outside}, class_names=names, writes=writes)
    record |= {SYNONYMS: images.synonyms} if images.synonyms else {}
    claim_output(options.out, record, overwrite=options.overwrite, hidden=hidden)
    folder = join(options.out, WORK_FOLDER)
    is_new = not has_manifest(folder)
    try:
        manifest = images.frozen_in(folder, rows_per_shard=rows_per_shard, class_names=names, needs_tags=needs_tags)
    except UserError:
        if is_new:
            # no work is lost, and a corrected manifest can use this folder
            delete_file(join(folder if hidden else options.out, RECORD_NAME))
        raise
    if manifest.value_range:  # a network must see other images as those that it was trained on
        amend_record(options.out, {VALUE_RANGE: list(manifest.value_range)}, hidden=hidden)
    return Claimed(record=record, manifest=manifest)


def release(out: str) -> None:
    """Give up a claim before any work is done, so that a corrected manifest can use the folder."""
    delete_file(join(out, RECORD_NAME))
    delete_folder(join(out, WORK_FOLDER))


def trained_network(location: str, kind: str | tuple[str, ...], images: ImageSet, *, thing: str) -> TrainedNetwork:
    """Open a network that an earlier job trained; if the user lists classes, they must be the network's.

    Without such a list the images take the other names of its classes too.

    Args:
        thing: The option that names the network.

    Raises:
        UserError: The network cannot be read.
        ConfigError: The user's classes differ.
    """
    with about(thing):
        network = open_network(location, kind)
        if images.vocabulary is None:
            images.take_synonyms(recorded_synonyms(location))
    named = None if images.vocabulary is None else images.vocabulary.class_names
    if named is not None and named != network.class_names:
        raise ConfigError(
            f"(or classes.txt in the manifest's folder) has {_abridged(named)}, but {location} was trained on "
            f"{_abridged(network.class_names)}; give the same names in the same order",
            thing="classes",
        )
    return network


def _abridged(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)} names)" if len(names) > 4 else "")


def earlier_output(folder: str, jobs: tuple[str, ...], *, thing: str, images: ImageSet) -> Claimed:
    """Check that an earlier job's output is complete and matches the images, and open its record and manifest.

    Args:
        folder: Output folder of the earlier job.
        jobs: Jobs whose output is accepted.
        thing: The option that names the folder.
        images: The images that the output must have been made from.

    Raises:
        StorageError: The folder is not a complete output of one of the jobs, or was made from other images.
    """
    record = read_record(folder)
    wanted = "give the output folder of " + " or ".join(f"jobs.{job}" for job in jobs)
    if record is None:
        raise StorageError(f"'{folder}' has no {RECORD_NAME}; {wanted}", thing=thing)
    if record["job"] not in jobs:
        raise StorageError(f"'{folder}' was written by jobs.{record['job']}; {wanted}", thing=thing)
    manifest = open_manifest(join(folder, WORK_FOLDER))
    missing = manifest.num_shards - len(committed_shards(folder))
    if missing:
        raise StorageError(
            f"'{folder}' is incomplete: {missing} of {manifest.num_shards} shards are missing; rerun "
            f"jobs.{record['job']}",
            thing=thing,
        )
    if manifest.data_hash != images.hash:
        raise StorageError(
            f"'{folder}' was made from a manifest other than data; give the output for these images", thing=thing
        )
    images.remember(manifest)
    return Claimed(record=record, manifest=manifest)
