"""A job's output folder: whose it is, what decides its content, and what an earlier job wrote into its own."""

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
from engine.storage.filesystem import delete_file, join
from engine.storage.manifest import Manifest, has_manifest, open_manifest
from engine.storage.run_record import (
    RECORD_NAME,
    WORK_FOLDER,
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
    """An output folder that belongs to a run."""

    record: dict[str, Any]
    manifest: Manifest

    @property
    def hash(self) -> str:
        """Of all that decides the result."""
        return fingerprint({name: self.record[name] for name in ("job", "settings", "inputs")})

    @property
    def metadata(self) -> dict[str, str]:
        """What the metadata of every shard says about the run."""
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
    """What ``run.json`` holds; ``other_settings``, which do not decide this result, are where later jobs start from.

    Args:
        job: its name.
        uses: dotted paths of the settings that decide the result.
        inputs: what else decides it: hashes of what the job reads, and its own options.
        writes: names that the job writes into its folder beside shards and records.
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
    """Make the output folder this run's, and freeze the manifest there.

    Args:
        class_names: the classes of a trained network; the manifest's by default.
        needs_tags: whether a manifest without tags is a mistake.
        hidden: whether the job writes shards directly in the folder, as for :func:`claim_output`.
        job, uses, inputs, writes: as for :func:`run_record`.

    Raises:
        UserError: the manifest or the output folder cannot be used.
    """
    names = class_names or images.class_names
    read = {"data": images.hash, "classes": fingerprint({"names": list(names)})}
    outside = {"outside": "allowed"} if options.allow_outside else {}
    record = run_record(job, options, uses=uses, inputs={**inputs, **read, **outside}, class_names=names, writes=writes)
    claim_output(options.out, record, overwrite=options.overwrite, hidden=hidden)
    folder = join(options.out, WORK_FOLDER)
    is_new = not has_manifest(folder)
    try:
        manifest = images.frozen_in(folder, rows_per_shard=rows_per_shard, class_names=names, needs_tags=needs_tags)
    except UserError:
        if is_new:
            # nothing was done yet, so the corrected manifest may go here
            delete_file(join(folder if hidden else options.out, RECORD_NAME))
        raise
    return Claimed(record=record, manifest=manifest)


def trained_network(location: str, kind: str | tuple[str, ...], images: ImageSet, *, thing: str) -> TrainedNetwork:
    """The network that an earlier job trained. Its classes decide; classes that the user names must be the same.

    Args:
        thing: the option that names it.

    Raises:
        UserError: the network cannot be read.
        ConfigError: the user's classes differ.
    """
    with about(thing):
        network = open_network(location, kind)
    named = images.named_classes
    if named is not None and named != network.class_names:
        raise ConfigError(
            f"(or classes.txt beside the manifest) has {_some(named)}, but {location} was trained on "
            f"{_some(network.class_names)}; give the same names in the same order",
            thing="classes",
        )
    return network


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)} names)" if len(names) > 4 else "")


def earlier_output(folder: str, jobs: tuple[str, ...], *, thing: str, images: ImageSet) -> Claimed:
    """What an earlier job's complete output was made from.

    Args:
        folder: the earlier job's output.
        jobs: the jobs whose output will do.
        thing: the option that names the folder.
        images: what it must have been made from.

    Raises:
        StorageError: the folder is not a complete output of one of the jobs, or of other images.
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
            f"'{folder}' lacks {missing} of {manifest.num_shards} shards; run jobs.{record['job']} again", thing=thing
        )
    if manifest.data_hash != images.hash:
        raise StorageError(
            f"'{folder}' was made from another manifest than data; give that of these images", thing=thing
        )
    return Claimed(record=record, manifest=manifest)
