"""What the networks say about the images that have truth, kept as shards for this search and later ones.

A folder for each network and each way it looks at the images, named by a hash of all that decides its content: weights,
settings of inference, radius, images and tags. So another AffinityNet costs no CAM, and other scales no affinity.

Letters: K classes present, O offsets, (h, w) grid cells.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config import AffinityInferenceConfig, InferenceConfig, WalkConfig
from engine.distributed.pipeline import Committed, ShardRun, run_shards
from engine.errors import ConfigError, ManifestError, StorageError, TooManyErrors
from engine.imaging.codecs import encode_map, encode_mask
from engine.imaging.decoding import decode_image
from engine.imaging.scaling import equal_groups, resized, scaled_size
from engine.ops.metrics import confusion_matrix
from engine.plain_settings import to_dict
from engine.records import Batch, ignore_value
from engine.resources import PassConfig, ResourceConfig
from engine.runs.progress import Meter
from engine.stages.cam import ComputeCam
from engine.stages.walk import RefineCam
from engine.step import Step
from engine.storage.filesystem import absolute, delete_file, exists, join, write_bytes
from engine.storage.manifest import MANIFEST_NAME, Manifest, freeze_manifest, iter_manifest, open_manifest
from engine.storage.roots import lies_outside, outside_reason
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER, fingerprint, versions, write_json
from engine.storage.shards import committed_shards, read_shard, shard_path
from engine.storage.sources.find import find_source
from engine.storage.truth import open_truth
from engine.storage.weights import weights_file, weights_hash
from tune.sweep import pair_distances

MAX_ROWS_PER_SHARD = 16
LEAST_SHARDS = 16
"""So that a trial over few images still reports part by part."""
_READ_THREADS = 16

_IMAGE_FIELDS = [
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("image", pa.string(), nullable=False),  # where it lies, absolute
    pa.field("class_ids", pa.list_(pa.int32())),
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("error", pa.string()),
]
_MAP_FIELDS = {
    "cam": pa.field("cam", pa.large_binary()),  # encode_map of (K, h', w'), before the background map
    "affinity": pa.field("distances", pa.large_binary()),  # encode_map of (O, h, w); null where no walk needs it
}


class StoreDistances:
    """Reads ``encoded``, ``class_ids``, ``error``; adds ``distances`` (O, h, w), the pair affinities as ``-log W``."""

    def __init__(self, weights: str, affinity: AffinityInferenceConfig, walk: WalkConfig, passes: PassConfig) -> None:
        """Arguments and errors as for :class:`engine.stages.walk.RefineCam`."""
        self._refine = RefineCam(weights, affinity, walk, passes, keep_cam=False)
        self._affinity = affinity
        self._walk = walk
        self._passes = passes

    def __call__(self, batch: Batch) -> Batch:
        # without a class the mask is background, whatever the affinities
        rows = [row for row, error in enumerate(batch["error"]) if error is None and batch["class_ids"][row]]
        pictures = []
        for row in rows:
            image = decode_image(batch["encoded"][row], max_pixels=self._passes.max_pixels)
            size = scaled_size(*image.shape[:2], long_side_px=self._affinity.long_side_px)
            pictures.append(resized(image, size))
        distances: list[bytes | None] = [None] * len(batch["error"])
        for group in equal_groups([picture.shape for picture in pictures], self._passes.images_per_pass):
            features = self._refine.features([pictures[index] for index in group])
            for index, one in zip(group, features, strict=True):
                planes = pair_distances(one, self._walk.radius)
                distances[rows[index]] = encode_map(planes.cpu().numpy())
        return {**batch, "distances": distances}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueMasks:
    """The truth of the images of the manifest that have one, in a fixed random order."""

    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    """image_id, location and tags."""
    masks: dict[str, bytes]
    """image_id to PNG."""

    @property
    def images_hash(self) -> str:
        """Of the images' names, places and tags."""
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
        allow_outside: take local images that are not below the manifest's folder too.

    Raises:
        UserError: an image lies outside, a file cannot be read, a mask holds a class that does not exist, or no image
            has truth.
    """
    true_masks, num_classes = open_truth(truth, class_names), len(class_names)
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
            raise StorageError(
                f"has a mask of '{row[0]}' that does not fit the classes: {error}", thing="truth"
            ) from error
        return encode_mask(mask)

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [(row, png) for row, png in zip(rows, pool.map(read, rows), strict=True) if png is not None]
    if not found:
        raise StorageError(f"'{truth}' has no mask of an image in data '{data}'", thing="truth")
    found.sort(key=lambda entry: entry[0][0])
    random.Random(rng_seed).shuffle(found)
    return TrueMasks(
        rows=tuple((row[0], row[3], row[2]) for row, _ in found),
        masks={row[0]: png for row, png in found},
    )


def _inside(image: str, folder: str, allow_outside: bool) -> str:
    if image and not allow_outside and lies_outside(image, folder):
        raise ManifestError(f"cannot be used: {outside_reason(image)}", thing="data")
    return image


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """One network with the way it looks at the images."""

    network: Literal["cam", "affinity"]
    weights: str
    """Folder that its training wrote."""
    inference: InferenceConfig | AffinityInferenceConfig
    walk: WalkConfig
    """Its radius says which pairs of cells have an affinity."""

    def key(self, true_masks: TrueMasks, *, class_names: tuple[str, ...], max_pixels: int) -> dict[str, Any]:
        """All that decides what the network says; its hash names the folder."""
        return {
            "network": self.network,
            "weights": weights_hash(self.weights),
            "inference": to_dict(self.inference),
            **({"radius": self.walk.radius} if self.network == "affinity" else {}),
            "images": true_masks.images_hash,
            "class_names": list(class_names),
            "max_pixels": max_pixels,
        }


def open_cache(folder: str, look: Look, true_masks: TrueMasks, key: Mapping[str, Any]) -> tuple[str, Manifest]:
    """The folder of this key below ``folder``, made when it does not exist, and its images.

    Raises:
        UserError: it cannot be read or written.
    """
    place = absolute(join(folder, f"{look.network}-{fingerprint(dict(key))}"))
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
        raise ConfigError(f"cannot be written: {error}", thing="cache") from error
    write_json(join(place, RECORD_NAME), {"job": "tune.cache", "key": dict(key), "versions": versions()})
    rows_per_shard = min(MAX_ROWS_PER_SHARD, -(-len(true_masks.rows) // LEAST_SHARDS))
    return place, freeze_manifest(
        rows, work, class_names=tuple(key["class_names"]), rows_per_shard=rows_per_shard, allow_outside=True
    )


def missing_shards(place: str, manifest: Manifest) -> list[int]:
    """Shards that the network has not seen yet."""
    done = committed_shards(place)
    return [shard for shard in range(manifest.num_shards) if shard not in done]


def fill_cache(
    place: str,
    manifest: Manifest,
    look: Look,
    *,
    resources: ResourceConfig,
    max_pixels: int,
    cluster: Any,
    after_affinity: Sequence[Step] = (),
) -> None:
    """Run a network on the images that it has not seen yet; a killed run goes on by shards.

    Args:
        after_affinity: steps that change the affinities before they are cached.

    Raises:
        TooManyErrors: a shard could not be done.
    """
    todo = missing_shards(place, manifest)
    if not todo:
        return
    weights, passes = weights_file(look.weights), resources.passes(max_pixels)
    if isinstance(look.inference, InferenceConfig):
        steps = [Step(name="cam", build=partial(ComputeCam, weights, look.inference, passes), on="network")]
    else:
        build = partial(StoreDistances, weights, look.inference, look.walk, passes)
        steps = [Step(name="walk", build=build, on="network"), *after_affinity]
    rows = manifest.rows_of_shards
    done = manifest.num_rows - sum(rows[shard] for shard in todo)

    def on_commit(committed: Committed) -> None:
        nonlocal done
        done += committed.num_rows
        meter.update(done)

    with Meter(f"{look.network} network", manifest.num_rows, unit="images", done=done) as meter:
        schema = pa.schema([*_IMAGE_FIELDS, _MAP_FIELDS[look.network]])
        run = ShardRun(manifest=manifest, folder=place, schema=schema, resources=resources, cluster=cluster)
        run_shards(run, steps, todo, on_commit=on_commit)
    left = missing_shards(place, manifest)
    if left:
        raise TooManyErrors(
            f"the {look.network} network failed on {len(left)} of {manifest.num_shards} shards (the first: {left[0]}); "
            "the same command tries them again"
        )


def check_errors(places: Sequence[str], manifest: Manifest, *, max_error_fraction: float) -> dict[str, int]:
    """Count the images that some network could not see; they are scored as all background.

    Args:
        places: folders of the cache, complete.
        max_error_fraction: of the images, that may be so.

    Returns:
        How many, by stage.

    Raises:
        TooManyErrors: there are more. The next command looks at the shards that hold them again.
    """
    errors: dict[str, str] = {}
    shards: list[tuple[str, int]] = []
    for place in places:
        for shard in range(manifest.num_shards):
            rows = read_shard(place, shard, ("image_id", "error")).to_pylist()
            found = {row["image_id"]: row["error"] for row in rows if row["error"] is not None}
            if found:
                errors = {**found, **errors}
                shards.append((place, shard))
    if len(errors) > max_error_fraction * manifest.num_rows:
        for place, shard in shards:
            delete_file(shard_path(place, shard))
        image_id, error = next(iter(errors.items()))
        raise TooManyErrors(
            f"{len(errors)} of {manifest.num_rows} images with truth ended in an error, more than "
            f"max_error_fraction {max_error_fraction:g}; the first: '{image_id}': {error}"
        )
    return dict(Counter(error.split(":", 1)[0] for error in errors.values()))


def read_maps(cam: str, distances: str, shard: int) -> list[dict[str, Any]]:
    """The rows of one shard of the cache.

    Args:
        cam: folder of the CAMs.
        distances: folder of the affinities; empty where nothing walks, and then the rows have none.

    Raises:
        StorageError: a shard cannot be read.
    """
    rows: list[dict[str, Any]] = read_shard(
        cam, shard, [item.name for item in (*_IMAGE_FIELDS, _MAP_FIELDS["cam"])]
    ).to_pylist()
    if distances:
        beside = read_shard(distances, shard, ("image_id", "error", "distances")).to_pylist()
        for row, other in zip(rows, beside, strict=True):
            assert row["image_id"] == other["image_id"], (row["image_id"], other["image_id"])
            row["distances"], row["error"] = other["distances"], row["error"] or other["error"]
    return rows


def group_of(manifest: Manifest, most: int) -> Iterator[NDArray[np.int64]]:
    """For each shard the group of each of its images: the images dealt in turn to at most ``most`` groups."""
    start = 0
    for rows in manifest.rows_of_shards:
        yield np.arange(start, start + rows) % min(most, manifest.num_rows)
        start += rows
