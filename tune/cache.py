"""Maps of the images that have truth, cached as shards for this search and later ones.

There is a folder for each network and each way it sees the images, named by a hash of all that decides its content:
weights, inference settings, radius, images and tags. So another AffinityNet recomputes no CAM, and other scales no
affinity. The truth is cached beside them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config import AffinityInferenceConfig, InferenceConfig, WalkConfig
from engine.errors import ConfigError, OutsideError, StorageError
from engine.imaging.codecs import encode_mask
from engine.networks import TrainedNetwork
from engine.ops.metrics import confusion_matrix
from engine.plain_settings import to_dict
from engine.records import COLUMN_TYPES, ignore_value
from engine.resources import PassConfig
from engine.runs.options import ShardOptions
from engine.stages.cam import ComputeCam
from engine.stages.distances import ComputeDistances
from engine.step import Step
from engine.storage.cached_maps import CachedMaps, columns_of
from engine.storage.filesystem import absolute, join, write_bytes
from engine.storage.manifest import Manifest, freeze_manifest, has_manifest, iter_manifest, open_manifest
from engine.storage.roots import lies_outside, outside_reason
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER, fingerprint, versions, write_json
from engine.storage.shards import committed_shards, write_shard
from engine.storage.sources.find import find_source
from engine.storage.truth import open_truth
from tune.counts import do_pass

MAX_ROWS_PER_SHARD = 16
MIN_SHARDS = 16
"""So that a trial over few images still reports several times."""
_READ_THREADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueMasks:
    """The truth of the images of a manifest that have one, in a fixed random order."""

    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    """image_id, location and tags."""
    masks: dict[str, bytes]
    """image_id to PNG."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of each mask."""
    pixels: NDArray[np.int64]
    """(N, C+1) pixels of each class."""

    @property
    def images_hash(self) -> str:
        """Of the images' ids, locations and tags."""
        return fingerprint({"rows": [list(row) for row in self.rows]})

    @property
    def hash(self) -> str:
        """Of the masks' bytes."""
        return fingerprint({name: hashlib.sha256(png).hexdigest() for name, png in self.masks.items()})


def read_true_masks(
    data: str, truth: str, *, class_names: tuple[str, ...], rng_seed: int, allow_outside: bool = False
) -> TrueMasks:
    """Find and check the true masks.

    Args:
        data: the manifest.
        truth: folder of PNGs or of mask shards.
        class_names: the C classes.
        rng_seed: of the order.
        allow_outside: also take local images outside the manifest's folder.

    Raises:
        UserError: an image lies outside, a file cannot be read, a mask has an unknown class, or no image has truth.
    """
    true_masks, num_classes = open_truth(truth, class_names), len(class_names)
    folder = find_source(data).folder
    rows: list[tuple[str, str, tuple[str, ...], str]] = []
    for batch in iter_manifest(data):
        for image_id, image, tags, uri in zip(
            *(batch[name] for name in ("image_id", "image", "tags", "uri")), strict=True
        ):
            if image and not allow_outside and lies_outside(image, folder):
                raise OutsideError(f"cannot be used: {outside_reason(image)}", thing="data")
            rows.append((image_id, image, tuple(tags), uri))

    def read(row: tuple[str, str, tuple[str, ...], str]) -> tuple[bytes, tuple[int, ...], NDArray[np.int64]] | None:
        mask = true_masks.mask_of(row[0], row[1])
        if mask is None:
            return None
        try:
            confusion = confusion_matrix(mask, np.zeros_like(mask), num_classes, ignore=ignore_value(num_classes))
        except ValueError as error:
            raise StorageError(
                f"has a mask of '{row[0]}' that does not fit the classes: {error}", thing="truth"
            ) from error
        return encode_mask(mask), mask.shape, confusion.sum(axis=1)

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [(row, mask) for row, mask in zip(rows, pool.map(read, rows), strict=True) if mask is not None]
    if not found:
        raise StorageError(f"'{truth}' has no mask of an image in data '{data}'", thing="truth")
    found.sort(key=lambda entry: entry[0][0])
    random.Random(rng_seed).shuffle(found)
    return TrueMasks(
        rows=tuple((row[0], row[3], row[2]) for row, _ in found),
        masks={row[0]: mask[0] for row, mask in found},
        sizes=tuple((mask[1][0], mask[1][1]) for _, mask in found),
        pixels=np.stack([mask[2] for _, mask in found]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedStep:
    """A folder for what steps give for the images."""

    folder: str
    manifest: Manifest
    steps: tuple[Step, ...]
    """The name of the first is that of the column."""

    def fill(self, config: ShardOptions) -> None:
        """Run the steps on the images that are not there yet; errors as for :func:`do_pass`."""
        column = self.steps[0].name
        names = ("image_id", "image", "class_ids", "height", "width", "error", column)
        schema = pa.schema([(name, COLUMN_TYPES[name]) for name in names])
        do_pass(f"maps: {column}", config, self.manifest, self.steps, folder=self.folder, schema=schema, fetch=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """Where the maps of some images are cached."""

    folder: str
    true_masks: TrueMasks
    class_names: tuple[str, ...]
    passes: PassConfig

    def cam(self, network: TrainedNetwork, inference: InferenceConfig) -> CachedStep:
        """The class maps of a network."""
        key = {"network": "cam", "weights": network.hash, "inference": to_dict(inference)}
        step = Step(name="cam", build=partial(ComputeCam, network.file, inference, self.passes), on="network")
        return self._open(key, (step,))

    def distances(
        self,
        network: TrainedNetwork,
        inference: AffinityInferenceConfig,
        walk: WalkConfig,
        *,
        after_affinity: Sequence[Step] = (),
    ) -> CachedStep:
        """AffinityNet's affinities, as far as the walk's radius reaches.

        Args:
            after_affinity: steps that change the affinities (column ``distances``) before they are cached.
        """
        key = {"network": "affinity", "weights": network.hash, "inference": to_dict(inference), "radius": walk.radius}
        build = partial(ComputeDistances, network.file, inference, walk, self.passes)
        if after_affinity:
            key["after_affinity"] = [step.name for step in after_affinity]
        return self._open(key, (Step(name="distances", build=build, on="network"), *after_affinity))

    def truth(self, manifest: Manifest) -> str:
        """Cache the true masks beside the maps.

        Returns:
            their folder.

        Raises:
            ConfigError: it cannot be written.
        """
        masks, size = self.true_masks.masks, manifest.rows_per_shard
        key = {"images": self.true_masks.images_hash, "truth": self.true_masks.hash}
        folder = absolute(join(self.folder, f"truth-{fingerprint(key)}"))
        ids = [row[0] for row in self.true_masks.rows]
        try:
            for shard in set(range(manifest.num_shards)) - committed_shards(folder):
                own = ids[shard * size : (shard + 1) * size]
                write_shard(folder, shard, pa.table({"image_id": own, "truth": [masks[image_id] for image_id in own]}))
        except OSError as error:
            raise ConfigError(f"cannot be written: {error}", thing="cache") from error
        return folder

    def _open(self, key: dict[str, Any], steps: tuple[Step, ...]) -> CachedStep:
        names, rows = self.class_names, self.true_masks.rows
        key |= {"images": self.true_masks.images_hash, "class_names": list(names), "max_pixels": self.passes.max_pixels}
        folder = absolute(join(self.folder, f"{key['network']}-{fingerprint(key)}"))
        work = join(folder, WORK_FOLDER)
        if has_manifest(work):
            return CachedStep(folder=folder, manifest=open_manifest(work), steps=steps)
        lines = (json.dumps({"image_id": name, "image": image, "tags": tags}) for name, image, tags in rows)
        listed = join(work, "images.jsonl")
        try:
            write_bytes(listed, "".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise ConfigError(f"cannot be written: {error}", thing="cache") from error
        write_json(join(work, RECORD_NAME), {"job": "tune.cache", "key": key, "versions": versions()})
        size = min(MAX_ROWS_PER_SHARD, -(-len(rows) // MIN_SHARDS))
        manifest = freeze_manifest(listed, work, class_names=names, rows_per_shard=size, allow_outside=True)
        return CachedStep(folder=folder, manifest=manifest, steps=steps)


def cached_maps(cams: Sequence[CachedStep], distances: CachedStep | None, truth: str) -> CachedMaps:
    """The maps of folders that are filled."""
    manifest = cams[0].manifest
    return CachedMaps(
        **{item.name: getattr(manifest, item.name) for item in fields(Manifest)},
        cams=tuple(one.folder for one in cams),
        distances=distances.folder if distances is not None else "",
        truth=truth,
    )


def check_sizes(maps: CachedMaps, true_masks: TrueMasks) -> None:
    """Refuse truth that is not as large as its image.

    Raises:
        StorageError: so it is.
    """
    sizes = iter(zip(true_masks.rows, true_masks.sizes, strict=True))
    for shard in range(maps.num_shards):
        columns = columns_of(maps.cams[0], shard, ("height", "width", "error"))
        for height, width, error in zip(columns["height"], columns["width"], columns["error"], strict=True):
            row, size = next(sizes)
            if error is None and (height, width) != size:
                raise StorageError(
                    f"of image '{row[0]}' is {size[0]} x {size[1]} pixels, but the image is {height} x {width}",
                    thing="truth",
                )
