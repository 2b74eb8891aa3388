"""Cache the networks' maps of the images with true masks, as shards that later searches reuse.

Each combination of a network and its inference settings has its own folder, named by a hash of everything that affects
the content: weights, inference settings, radius, images and tags. A new AffinityNet therefore does not recompute the
CAMs, and other CAM scales do not recompute the affinities. The true masks are cached in the same place, with the
frozen manifest of the images.
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
from engine.resources import Decoding
from engine.runs.options import ShardOptions
from engine.stages.cam import ComputeCam
from engine.stages.distances import ComputeDistances
from engine.step import Step
from engine.storage.cached_maps import CachedMaps, columns_of
from engine.storage.filesystem import absolute, exists, join, write_bytes
from engine.storage.manifest import Manifest, freeze_manifest, has_manifest, open_manifest
from engine.storage.roots import lies_outside, outside_reason
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER, fingerprint, versions, write_json
from engine.storage.shards import committed_shards, write_shard
from engine.storage.sources.columns import TableForm
from engine.storage.sources.find import find_source
from engine.storage.truth import open_truth
from engine.storage.user_manifest import iter_manifest
from tune.counts import do_pass

MAX_ROWS_PER_SHARD = 16
MIN_SHARDS = 16
"""A minimum, so that a trial on few images still reports several times."""
_READ_THREADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueMasks:
    """The true masks of a manifest's images, in a fixed random order; images without one are left out."""

    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    """image_id, location and tags."""
    masks: dict[str, bytes]
    """image_id to PNG."""
    sizes: tuple[tuple[int, ...], ...]
    """(height, width) of each mask."""
    pixels: NDArray[np.int64]
    """(N, C+1) pixels of each class."""

    @property
    def images_hash(self) -> str:
        """Hash of the images' ids, locations and tags."""
        return fingerprint({"rows": [list(row) for row in self.rows]})

    @property
    def hash(self) -> str:
        """Hash of the masks' bytes."""
        return fingerprint({name: hashlib.sha256(png).hexdigest() for name, png in self.masks.items()})


def read_true_masks(
    data: str,
    truth: str,
    *,
    class_names: tuple[str, ...],
    rng_seed: int,
    allow_outside: bool = False,
    form: TableForm = TableForm(),  # noqa: B008 - frozen
) -> TrueMasks:
    """Find and check the true masks.

    Args:
        data: The manifest.
        truth: Folder of PNGs or of mask shards.
        class_names: The C classes.
        rng_seed: Seed of the random order.
        allow_outside: Also accept local images outside the manifest's folder.
        form: How to read the manifest's table.

    Raises:
        UserError: An image lies outside the folder, a file cannot be read, a mask contains an unknown class, or no
            image has a true mask.
    """
    true_masks, num_classes, folder = open_truth(truth, class_names), len(class_names), find_source(data).folder
    names = ("image_id", "image", "uri", "tags")
    rows = [row for batch in iter_manifest(data, form) for row in zip(*(batch[name] for name in names), strict=True)]
    for _, image, _, _ in rows:
        if image and not allow_outside and lies_outside(image, folder):
            raise OutsideError(f"cannot be used: {outside_reason(image)}", thing="data")

    def read(row: tuple[Any, ...]) -> tuple[bytes, tuple[int, ...], NDArray[np.int64]] | None:
        mask = true_masks.mask_of(row[0], row[1])
        if mask is None:
            return None
        try:
            confusion = confusion_matrix(mask, np.zeros_like(mask), num_classes, ignore=ignore_value(num_classes))
        except ValueError as error:
            raise StorageError(
                f"has a mask of '{row[0]}' that does not match the classes: {error}", thing="truth"
            ) from error
        return encode_mask(mask), mask.shape, confusion.sum(axis=1)

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [(row, mask) for row, mask in zip(rows, pool.map(read, rows), strict=True) if mask is not None]
    if not found:
        raise StorageError(f"'{truth}' has no mask for any image in '{data}'", thing="truth")
    found.sort(key=lambda entry: entry[0][0])
    random.Random(rng_seed).shuffle(found)
    return TrueMasks(
        rows=tuple((image_id, uri, tuple(tags)) for (image_id, _, uri, tags), _ in found),
        masks={row[0]: png for row, (png, _, _) in found},
        sizes=tuple(size for _, (_, size, _) in found),
        pixels=np.stack([pixels for _, (_, _, pixels) in found]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """The cached maps of the images with true masks."""

    folder: str
    config: ShardOptions
    true_masks: TrueMasks
    truth: str
    """Folder of the cached true masks and the frozen manifest."""
    manifest: Manifest
    decoding: Decoding

    @classmethod
    def open(
        cls,
        folder: str,
        config: ShardOptions,
        true_masks: TrueMasks,
        class_names: tuple[str, ...],
        decoding: Decoding,
    ) -> Cache:
        """Cache the true masks and freeze the manifest, unless an earlier search did.

        Raises:
            ConfigError: The cache cannot be written.
        """
        masks, rows = true_masks.masks, true_masks.rows
        key = {"images": true_masks.images_hash, "truth": true_masks.hash, "class_names": list(class_names)}
        truth = absolute(join(folder, f"truth-{fingerprint(key)}"))
        work, size = join(truth, WORK_FOLDER), min(MAX_ROWS_PER_SHARD, -(-len(rows) // MIN_SHARDS))
        lines = (json.dumps({"image_id": name, "image": image, "tags": tags}) for name, image, tags in rows)
        try:
            if not has_manifest(work):
                listed = join(work, "images.jsonl")
                write_bytes(listed, "".join(f"{line}\n" for line in lines).encode())
                freeze_manifest(listed, work, class_names=class_names, rows_per_shard=size, allow_outside=True)
            manifest = open_manifest(work)
            for shard in set(range(manifest.num_shards)) - committed_shards(truth):
                own = [row[0] for row in rows[shard * size : (shard + 1) * size]]
                write_shard(truth, shard, pa.table({"image_id": own, "truth": [masks[image_id] for image_id in own]}))
        except OSError as error:
            raise ConfigError(f"cannot be written: {error}", thing="cache") from error
        return cls(
            folder=folder, config=config, true_masks=true_masks, truth=truth, manifest=manifest, decoding=decoding
        )

    def cam(self, network: TrainedNetwork, inference: InferenceConfig) -> str:
        """Compute a network's missing class maps and return their folder; raises as :func:`do_pass` does."""
        passes = self.config.settings.resources.passes(self.decoding)
        step = Step(name="cam", build=partial(ComputeCam, network.file, inference, passes), on="network")
        return self._filled({"network": "cam", "weights": network.hash, "inference": to_dict(inference)}, [step])

    def distances(
        self,
        network: TrainedNetwork,
        inference: AffinityInferenceConfig,
        walk: WalkConfig,
        *,
        after_affinity: Sequence[Step] = (),
    ) -> str:
        """Compute AffinityNet's missing affinities within the walk's radius and return their folder.

        Raises as :func:`do_pass` does.

        Args:
            after_affinity: Steps that modify the affinities (column ``distances``) before they are cached.
        """
        key = {"network": "affinity", "weights": network.hash, "inference": to_dict(inference), "radius": walk.radius}
        if after_affinity:
            key["after_affinity"] = [step.name for step in after_affinity]
        passes = self.config.settings.resources.passes(self.decoding)
        build = partial(ComputeDistances, network.file, inference, walk, passes)
        return self._filled(key, [Step(name="distances", build=build, on="network"), *after_affinity])

    def _filled(self, key: dict[str, Any], steps: Sequence[Step]) -> str:
        """Run the steps on the images not yet cached and return the folder of their output."""
        key |= {"images": self.true_masks.images_hash, "class_names": list(self.manifest.class_names)}
        key["max_pixels"] = self.decoding.max_pixels
        if self.decoding.bands or self.decoding.value_range:
            key["decoding"] = to_dict(self.decoding)
        folder, column = absolute(join(self.folder, f"{key['network']}-{fingerprint(key)}")), steps[0].name
        record = join(folder, WORK_FOLDER, RECORD_NAME)
        if not exists(record):
            write_json(record, {"job": "tune.cache", "key": key, "versions": versions()})
        names = ("image_id", "image", "class_ids", "height", "width", "error", column)
        schema = pa.schema([(name, COLUMN_TYPES[name]) for name in names])
        do_pass(f"maps: {column}", self.config, self.manifest, steps, folder=folder, schema=schema, fetch=True)
        return folder

    def maps(self, cams: Sequence[str], distances: str) -> CachedMaps:
        """Open the maps in folders that :meth:`cam` and :meth:`distances` returned.

        Raises:
            StorageError: A true mask differs in size from its image.
        """
        own = {item.name: getattr(self.manifest, item.name) for item in fields(Manifest)}
        own |= {"bands": self.decoding.bands, "value_range": self.decoding.value_range}
        maps = CachedMaps(**own, cams=tuple(cams), distances=distances, truth=self.truth)
        sizes = iter(zip(self.true_masks.rows, self.true_masks.sizes, strict=True))
        for shard in range(maps.num_shards):
            columns = columns_of(cams[0], shard, ("height", "width", "error"))
            for height, width, error in zip(columns["height"], columns["width"], columns["error"], strict=True):
                row, size = next(sizes)
                if error is None and (height, width) != size:
                    raise StorageError(
                        f"of image '{row[0]}' is {size[0]} x {size[1]} pixels, but the image is {height} x {width}",
                        thing="truth",
                    )
        return maps
