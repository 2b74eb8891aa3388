"""What the networks say about the images that have truth, kept as shards for this search and later ones.

A folder named by a hash of all that decides its content: weights, settings of inference, radius, images and tags.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from engine.config import AffinityInferenceConfig, InferenceConfig, ResourceConfig, WalkConfig
from engine.errors import ConfigError, ManifestError, StorageError, TooManyErrors
from engine.ops.metrics import confusion_matrix
from engine.pipeline import Committed, Pool, Step, network_pool, run_shards
from engine.plain_settings import to_dict
from engine.progress import Meter
from engine.records import Batch, encode_mask, ignore_value
from engine.stages.cam import ComputeCam
from engine.stages.walk import RefineCam
from engine.storage.filesystem import absolute, exists, join, write_bytes
from engine.storage.manifest import MANIFEST_NAME, Manifest, freeze_manifest, iter_manifest, open_manifest
from engine.storage.roots import lies_outside, outside_reason
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER, fingerprint, versions, write_json
from engine.storage.shards import committed_shards
from engine.storage.sources.find import find_source
from engine.storage.truth import open_truth
from engine.storage.weights import weights_hash
from tune.sweep import pair_distances

MAX_ROWS_PER_SHARD = 16
LEAST_SHARDS = 16
"""So that a trial over few images still reports part by part."""
COLUMNS = ("image_id", "image", "class_ids", "height", "width", "error", "cam", "distances")
_READ_THREADS = 16

SCHEMA_FIELDS = [
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("image", pa.string(), nullable=False),  # where it lies, absolute
    pa.field("class_ids", pa.list_(pa.int32())),
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("error", pa.string()),
    pa.field("cam", pa.large_binary()),  # encode_map of (K, h', w'), before the background map
    pa.field("distances", pa.large_binary()),  # encode_map of (O, h, w), engine's affinities as -log W
]


class StoreDistances(RefineCam):
    """Reads ``encoded``, ``cam``; adds ``distances`` (O, h, w), the pair affinities as ``-log W``; keeps ``cam``."""

    def __call__(self, batch: Batch) -> Batch:
        out = super().__call__(batch)
        return {
            **{name: values for name, values in out.items() if name != "refined_cam"},
            "distances": out["refined_cam"],
        }

    def walked(self, cams: Sequence[Tensor], features: Tensor) -> list[Tensor]:
        """The distances in the place of the walk: (O, h, w) float32; one cell where no class needs them."""
        return [
            pair_distances(one, self._walk.radius) if len(cam) else one.new_zeros((1, 1, 1))
            for cam, one in zip(cams, features, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueMasks:
    """The truth of the images of the manifest that have one, in a fixed random order."""

    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    """image_id, location and tags."""
    masks: dict[str, bytes]
    """image_id to PNG."""

    @property
    def hash(self) -> str:
        """Of the masks' bytes."""
        return fingerprint({name: hashlib.sha256(png).hexdigest() for name, png in self.masks.items()})


def read_true_masks(
    data: str, truth: str, *, num_classes: int, rng_seed: int, allow_outside: bool = False
) -> TrueMasks:
    """Find and check the true masks.

    Args:
        data: the manifest.
        truth: folder of PNGs or of mask shards.
        num_classes: C.
        rng_seed: of the order.
        allow_outside: take local images that are not below the manifest's folder too.

    Raises:
        UserError: an image lies outside, a file cannot be read, a mask holds a class that does not exist, or no image
            has truth.
    """
    true_masks = open_truth(truth)
    folder = find_source(data).folder
    rows = [
        (image_id, _inside(image, folder, allow_outside), tuple(tags), uri)
        for batch in iter_manifest(data)
        for image_id, image, tags, uri in zip(
            batch["image_id"], batch["image"], batch["tags"], batch["uri"], strict=True
        )
    ]

    def read(row: tuple[str, str, tuple[str, ...], str]) -> bytes | None:
        mask = true_masks.mask_of(row[0], row[1])
        if mask is None:
            return None
        try:
            confusion_matrix(mask, np.zeros_like(mask), num_classes, ignore=ignore_value(num_classes))
        except ValueError as error:
            raise StorageError(f"--truth: the mask of '{row[0]}' does not fit the classes: {error}") from error
        return encode_mask(mask)

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [(row, png) for row, png in zip(rows, pool.map(read, rows), strict=True) if png is not None]
    if not found:
        raise StorageError(f"--truth '{truth}' has no mask of an image in --data '{data}'")
    found.sort(key=lambda entry: entry[0][0])
    random.Random(rng_seed).shuffle(found)
    return TrueMasks(
        rows=tuple((row[0], row[3], row[2]) for row, _ in found),
        masks={row[0]: png for row, png in found},
    )


def _inside(image: str, folder: str, allow_outside: bool) -> str:
    if image and not allow_outside and lies_outside(image, folder):
        raise ManifestError(f"--data: {outside_reason(image)}")
    return image


def cache_key(
    true_masks: TrueMasks,
    *,
    cam: str,
    affinity: str,
    cam_inference: InferenceConfig,
    affinity_inference: AffinityInferenceConfig,
    radius: int,
    class_names: tuple[str, ...],
    max_pixels: int,
) -> dict[str, Any]:
    """All that decides what the networks say; its hash names the folder."""
    return {
        "cam": {"weights": weights_hash(cam), "inference": to_dict(cam_inference)},
        "affinity": {"weights": weights_hash(affinity), "inference": to_dict(affinity_inference), "radius": radius},
        "images": fingerprint({"rows": [list(row) for row in true_masks.rows]}),
        "class_names": list(class_names),
        "max_pixels": max_pixels,
    }


def open_cache(folder: str, true_masks: TrueMasks, key: Mapping[str, Any]) -> tuple[str, Manifest]:
    """The folder of this key below ``folder``, made when it does not exist, and its images.

    Raises:
        UserError: it cannot be read or written.
    """
    place = absolute(join(folder, f"networks-{fingerprint(dict(key))}"))
    work = join(place, WORK_FOLDER)
    if exists(join(work, MANIFEST_NAME)):
        return place, open_manifest(work)
    rows = join(work, "images.jsonl")
    text = io.StringIO()
    for image_id, image, tags in true_masks.rows:
        text.write(json.dumps({"image_id": image_id, "image": image, "tags": list(tags)}) + "\n")
    try:
        write_bytes(rows, text.getvalue().encode())
    except OSError as error:
        raise ConfigError(f"--cache: {error}") from error
    write_json(join(place, RECORD_NAME), {"job": "tune.cache", "key": dict(key), "versions": versions()})
    rows_per_shard = min(MAX_ROWS_PER_SHARD, -(-len(true_masks.rows) // LEAST_SHARDS))
    return place, freeze_manifest(
        rows, work, class_names=tuple(key["class_names"]), rows_per_shard=rows_per_shard, allow_outside=True
    )


def missing_shards(place: str, manifest: Manifest) -> list[int]:
    """Shards that the networks have not seen yet."""
    done = committed_shards(place)
    return [shard for shard in range(manifest.num_shards) if shard not in done]


def fill_cache(
    place: str,
    manifest: Manifest,
    *,
    cam: str,
    affinity: str,
    cam_inference: InferenceConfig,
    affinity_inference: AffinityInferenceConfig,
    walk: WalkConfig,
    resources: ResourceConfig,
    max_pixels: int,
    cluster: Any,
) -> None:
    """Run the networks on the images that they have not seen yet; a killed run goes on by shards.

    Raises:
        TooManyErrors: a shard could not be done.
    """
    todo = missing_shards(place, manifest)
    if not todo:
        return
    shared = {"device": resources.device, "images_per_pass": resources.images_per_pass, "max_pixels": max_pixels}
    steps = [
        Step(name="cam", stage=ComputeCam, arguments={"weights": cam, "config": cam_inference, **shared}),
        Step(
            name="walk",
            stage=StoreDistances,
            arguments={"weights": affinity, "affinity": affinity_inference, "walk": walk, "keep_cam": True, **shared},
        ),
    ]
    pools: list[Pool] = [network_pool(steps, resources, cluster)]
    rows = manifest.rows_of_shards
    done = manifest.num_rows - sum(rows[shard] for shard in todo)

    def on_commit(committed: Committed) -> None:
        nonlocal done
        done += committed.num_rows
        meter.update(done)

    with Meter("networks", manifest.num_rows, unit="images", done=done) as meter:
        run_shards(
            manifest,
            todo,
            pools,
            folder=place,
            schema=pa.schema(SCHEMA_FIELDS),
            resources=resources,
            cluster=cluster,
            on_commit=on_commit,
        )
    left = missing_shards(place, manifest)
    if left:
        raise TooManyErrors(
            f"the networks failed on {len(left)} of {manifest.num_shards} shards (the first: {left[0]}); "
            "the same command tries them again"
        )


def group_of(manifest: Manifest, most: int) -> Iterator[NDArray[np.int64]]:
    """For each shard the group of each of its images: the images dealt in turn to at most ``most`` groups."""
    start = 0
    for rows in manifest.rows_of_shards:
        yield np.arange(start, start + rows) % min(most, manifest.num_rows)
        start += rows
