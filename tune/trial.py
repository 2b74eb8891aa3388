"""One trial: a slice of configurations over the cached images, part by part, so that a poor one can be stopped early.

What a trial has counted is written after every part; the same trial of a later run goes on from there. So the search
itself needs no checkpoint of Tune, and no store that Tune can write to.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import CrfConfig, WalkConfig
from engine.errors import StorageError
from engine.records import decode_map, decode_mask, encode_map, ignore_value
from engine.stages.guard import guarded
from engine.stages.mask import MakeMask
from engine.storage.filesystem import join, read_bytes, write_bytes
from engine.storage.manifest import Manifest
from engine.storage.shards import read_shard
from tune.cache import COLUMNS, group_of
from tune.figures import MAX_GROUPS, miou
from tune.space import Slice
from tune.sweep import background_counts, mask_counts, refined_maps, slice_counts

NUM_PARTS = 8
"""Times that a trial reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What all trials share."""

    cache: str
    """Folder of the cached maps."""
    manifest: Manifest
    """Of the cached images."""
    true_masks: dict[str, bytes]
    """image_id to PNG."""
    states: str
    """Folder for what trials have counted."""
    walk: WalkConfig
    """Radius and tolerance."""
    crf: CrfConfig
    max_pixels: int

    @property
    def num_classes(self) -> int:
        """C, background not counted."""
        return len(self.manifest.class_names)

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
    count_row = _with_crf(context, part) if part.crf else _without_crf(context, part)
    ignore = ignore_value(context.num_classes)
    for shards in context.parts()[len(state.history) :]:
        num_images, counts, truth = state.num_images, state.counts.copy(), state.truth.copy()
        for shard in shards:
            rows = read_shard(context.cache, shard, COLUMNS).to_pylist()
            for row, group in zip(rows, groups[shard].tolist(), strict=True):
                true_mask = decode_mask(context.true_masks[row["image_id"]])
                if row["error"] is not None:
                    counts[:, group] += background_counts(true_mask, num_classes=context.num_classes, ignore=ignore)
                else:
                    _check_size(row, true_mask)
                    counts[:, group] += count_row(row, true_mask)
                valid = true_mask[true_mask != ignore]
                truth[group] += np.bincount(valid, minlength=context.num_classes + 1)
            num_images += len(rows)
        best = float(np.nanmax(miou(counts, truth)))
        state = State(num_images=num_images, counts=counts, truth=truth, history=(*state.history, best))
        write_state(context, part, state)
        yield state


RowCounter = Callable[[dict[str, Any], NDArray[np.integer[Any]]], NDArray[np.int64]]


def _without_crf(context: Context, part: Slice) -> RowCounter:
    def count(row: dict[str, Any], true_mask: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        counts = slice_counts(
            torch.from_numpy(decode_map(row["cam"])),
            torch.from_numpy(decode_map(row["distances"])),
            true_mask,
            row["class_ids"],
            part,
            num_classes=context.num_classes,
            ignore=ignore_value(context.num_classes),
            radius=context.walk.radius,
            tolerance=context.walk.tolerance,
        )
        return counts.reshape(-1, *counts.shape[2:])

    return count


def _with_crf(context: Context, part: Slice) -> RowCounter:
    num_classes = context.num_classes
    make_mask = MakeMask(
        context.crf, context.walk, num_classes=num_classes, max_pixels=context.max_pixels, keep_stages=False
    )

    def count(row: dict[str, Any], true_mask: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        ignore = ignore_value(num_classes)
        if not row["class_ids"]:
            return background_counts(true_mask, num_classes=num_classes, ignore=ignore)[None]
        ((_, maps),) = refined_maps(
            torch.from_numpy(decode_map(row["cam"])),
            torch.from_numpy(decode_map(row["distances"])),
            part,
            radius=context.walk.radius,
            tolerance=context.walk.tolerance,
        )
        try:
            encoded = read_bytes(row["image"])
        except OSError as error:
            raise StorageError(str(error)) from error
        batch = {name: [row[name]] for name in ("class_ids", "height", "width", "error")}
        made = guarded("crf", make_mask, {**batch, "refined_cam": [encode_map(maps.numpy())], "encoded": [encoded]})
        if made["mask"][0] is None:
            return background_counts(true_mask, num_classes=num_classes, ignore=ignore)[None]
        return mask_counts(true_mask, decode_mask(made["mask"][0]), num_classes=num_classes, ignore=ignore)[None]

    return count


def _check_size(row: dict[str, Any], true_mask: NDArray[np.integer[Any]]) -> None:
    if true_mask.shape != (row["height"], row["width"]):
        raise StorageError(
            f"image '{row['image_id']}' and its truth do not fit: {row['height']} x {row['width']} pixels and "
            f"{true_mask.shape[0]} x {true_mask.shape[1]}"
        )


def _location(context: Context, part: Slice) -> str:
    return join(context.states, f"{part.name}.npz")


def _narrow(counts: NDArray[np.int64]) -> NDArray[Any]:
    return counts.astype(np.int32) if counts.max(initial=0) < 2**31 else counts
