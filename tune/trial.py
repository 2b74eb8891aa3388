"""One trial: a slice of configurations over the cached images, part by part, so that a poor one can be stopped early.

What a trial has counted is written after every part; the same trial of a later run goes on from there. So the search
itself needs no checkpoint of Tune, and no store that Tune can write to.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import WalkConfig
from engine.errors import StorageError
from engine.guard import guarded
from engine.imaging.codecs import decode_map, decode_mask, encode_map
from engine.records import ignore_value
from engine.resources import PassConfig
from engine.stages.mask import MakeMask
from engine.storage.filesystem import join, read_bytes, write_bytes
from engine.storage.manifest import Manifest
from engine.storage.pictures import read_picture
from tune.cache import group_of, read_maps
from tune.figures import MAX_GROUPS, miou
from tune.space import Scales, Slice
from tune.sweep import background_counts, mask_counts, refined_maps, slice_counts

NUM_PARTS = 8
"""Times that a trial reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What all trials share."""

    cams: dict[Scales, str]
    """Folder of the cached CAMs of each set of scales."""
    distances: str
    """Folder of the cached affinities; empty where nothing walks."""
    manifest: Manifest
    """Of the cached images."""
    true_masks: dict[str, bytes]
    """image_id to PNG."""
    states: str
    """Folder for what trials have counted."""
    walk: WalkConfig
    """Radius and tolerance."""
    max_pixels: int

    @property
    def num_classes(self) -> int:
        """C, background not counted."""
        return len(self.manifest.class_names)

    @property
    def ignore(self) -> int:
        """The value of a pixel of a true mask that does not count."""
        return ignore_value(self.num_classes)

    def true_mask(self, row: dict[str, Any]) -> NDArray[np.integer[Any]]:
        """The truth of a cached image.

        Raises:
            StorageError: it differs from the image in size.
        """
        mask = decode_mask(self.true_masks[row["image_id"]])
        if row["error"] is None and mask.shape != (row["height"], row["width"]):
            raise StorageError(
                f"image '{row['image_id']}' and its truth do not fit: {row['height']} x {row['width']} pixels and "
                f"{mask.shape[0]} x {mask.shape[1]}"
            )
        return mask

    def parts(self) -> list[list[int]]:
        """The shards of each part; fewer parts where there are fewer shards."""
        number = min(NUM_PARTS, self.manifest.num_shards)
        return [part.tolist() for part in np.array_split(np.arange(self.manifest.num_shards), number)]


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a trial has counted so far."""

    num_images: int
    counts: NDArray[np.int64]
    """(S * A, G, 2, C+1), all alphas of the first number of steps first."""
    truth: NDArray[np.int64]
    """(G, C+1)."""
    history: tuple[float, ...]
    """The best mIoU after each part that is done."""
    cpu_s: float = 0.0
    """CPU time of the process that counted."""

    @classmethod
    def empty(cls, context: Context, part: Slice) -> State:
        """Nothing counted."""
        groups, size = min(MAX_GROUPS, context.manifest.num_rows), context.num_classes + 1
        return cls(
            num_images=0,
            counts=np.zeros((part.num_configurations, groups, 2, size), dtype=np.int64),
            truth=np.zeros((groups, size), dtype=np.int64),
            history=(),
        )


def read_state(context: Context, part: Slice) -> State:
    """What an earlier run has counted of a slice."""
    try:
        data = read_bytes(_location(context, part))
    except FileNotFoundError:
        return State.empty(context, part)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return State(
            num_images=int(arrays["num_images"]),
            counts=arrays["counts"].astype(np.int64),
            truth=arrays["truth"].astype(np.int64),
            history=tuple(arrays["history"].tolist()),
            cpu_s=float(arrays["cpu_s"]),
        )


def write_state(context: Context, part: Slice, state: State) -> None:
    """Keep what is counted, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        num_images=state.num_images,
        counts=_narrow(state.counts),
        truth=_narrow(state.truth),
        history=np.array(state.history),
        cpu_s=state.cpu_s,
    )
    write_bytes(_location(context, part), buffer.getvalue())


def run_slice(context: Context, part: Slice) -> Iterator[State]:
    """Count a slice over the images that are not counted yet.

    Yields:
        The state after each part, those that an earlier run has done first.

    Raises:
        StorageError: the cache or an image cannot be read, or truth and image differ in size.
    """
    torch.set_num_threads(1)
    state = read_state(context, part)
    yield from (replace(state, history=state.history[: done + 1]) for done in range(len(state.history)))
    groups = list(group_of(context.manifest, MAX_GROUPS))
    count_row = _with_crf(context, part) if part.with_crf else _without_crf(context, part)
    ignore = context.ignore
    start = time.process_time() - state.cpu_s
    for shards in context.parts()[len(state.history) :]:
        num_images, counts, truth = state.num_images, state.counts.copy(), state.truth.copy()
        for shard in shards:
            rows = read_maps(context.cams[part.scales], context.distances, shard)
            for row, group in zip(rows, groups[shard].tolist(), strict=True):
                true_mask = context.true_mask(row)
                if row["error"] is not None:
                    counts[:, group] += background_counts(true_mask, num_classes=context.num_classes, ignore=ignore)
                else:
                    counts[:, group] += count_row(row, true_mask)
                valid = true_mask[true_mask != ignore]
                truth[group] += np.bincount(valid, minlength=context.num_classes + 1)
            num_images += len(rows)
        best = float(np.nanmax(miou(counts, truth)))
        state = State(
            num_images=num_images,
            counts=counts,
            truth=truth,
            history=(*state.history, best),
            cpu_s=time.process_time() - start,
        )
        write_state(context, part, state)
        yield state


RowCounter = Callable[[dict[str, Any], NDArray[np.integer[Any]]], NDArray[np.int64]]


def _without_crf(context: Context, part: Slice) -> RowCounter:
    def count(row: dict[str, Any], true_mask: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        counts = slice_counts(
            *maps_of(row),
            true_mask,
            row["class_ids"],
            part,
            num_classes=context.num_classes,
            ignore=context.ignore,
            radius=context.walk.radius,
            tolerance=context.walk.tolerance,
        )
        return counts.reshape(-1, *counts.shape[2:])

    return count


def _with_crf(context: Context, part: Slice) -> RowCounter:
    num_classes, ignore = context.num_classes, context.ignore
    passes = PassConfig(max_pixels=context.max_pixels)
    make_mask = MakeMask(part.crf, context.walk, passes, num_classes=num_classes, keep_stages=False)

    def count(row: dict[str, Any], true_mask: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        if not row["class_ids"]:
            return background_counts(true_mask, num_classes=num_classes, ignore=ignore)[None]
        ((_, maps),) = refined_maps(
            *maps_of(row),
            part,
            radius=context.walk.radius,
            tolerance=context.walk.tolerance,
        )
        try:
            encoded = read_picture(row["image"])
        except OSError as error:
            raise StorageError(str(error)) from error
        batch = {name: [row[name]] for name in ("class_ids", "height", "width", "error")}
        made = guarded("crf", make_mask, {**batch, "refined_cam": [encode_map(maps.numpy())], "encoded": [encoded]})
        if made["mask"][0] is None:
            return background_counts(true_mask, num_classes=num_classes, ignore=ignore)[None]
        return mask_counts(true_mask, decode_mask(made["mask"][0]), num_classes=num_classes, ignore=ignore)[None]

    return count


def maps_of(row: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """CAM and distances; where there are none, a grid that nothing looks at."""
    cam = torch.from_numpy(decode_map(row["cam"]))
    distances = row.get("distances")
    return cam, cam.new_zeros((1, 1, 1)) if distances is None else torch.from_numpy(decode_map(distances))


def _location(context: Context, part: Slice) -> str:
    return join(context.states, f"{part.name}.npz")


def _narrow(counts: NDArray[np.int64]) -> NDArray[Any]:
    return counts.astype(np.int32) if counts.max(initial=0) < 2**31 else counts
