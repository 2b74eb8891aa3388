"""Stages and images for pipelines that cost nothing."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np

from engine.distributed.cluster import connected
from engine.distributed.pipeline import Committed, ShardRun, run_shards
from engine.imaging.codecs import encode_mask
from engine.records import Batch, mask_schema
from engine.resources import ResourceConfig
from engine.step import Step
from engine.storage.manifest import Manifest, freeze_manifest


class Measure:
    """A stage: the first byte of the file, and trouble with the byte 7."""

    def __call__(self, batch: Batch) -> Batch:
        sizes = []
        for encoded, error in zip(batch["encoded"], batch["error"], strict=True):
            if error is None and encoded[0] == 7:
                raise ValueError("seven is unlucky")
            sizes.append(None if error is not None else encoded[0])
        return {**batch, "height": sizes, "width": list(sizes)}


class Paint:
    """A stage: a mask of the size that was measured."""

    def __init__(self, color: int) -> None:
        self.color = color

    def __call__(self, batch: Batch) -> Batch:
        masks = [
            None if side is None else encode_mask(np.full((side, side), self.color, dtype=np.uint8))
            for side in batch["height"]
        ]
        empty = [None] * len(masks)
        kept = {name: values for name, values in batch.items() if name not in ("encoded", "class_ids")}
        return {**kept, "mask": masks, "areas": empty, "confidence": list(empty)}


class Deadly:
    """A stage: takes its whole process down at the first byte of these; of even ones in the way of a broken GPU."""

    def __init__(self, deadly: Collection[int], tried: Path | None) -> None:
        self.deadly, self.tried = deadly, tried

    def __call__(self, batch: Batch) -> Batch:
        for encoded in batch["encoded"]:
            if encoded is not None and encoded[0] in self.deadly:
                if self.tried is not None:
                    (self.tried / str(encoded[0])).touch()
                if encoded[0] % 2 == 0:
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
                os._exit(1)
        return batch


def numbered_images(folder: Path, count: int, rows_per_shard: int) -> Manifest:
    """Files of one byte each, 1, 2, 3, ..., all with the tag "cat"."""
    folder.mkdir()
    for number in range(1, count + 1):
        (folder / f"{number}.png").write_bytes(bytes([number]))
    (folder / "manifest.csv").write_text(
        "image,tags\n" + "".join(f"{number}.png,cat\n" for number in range(1, count + 1))
    )
    return freeze_manifest(
        str(folder / "manifest.csv"), str(folder / "frozen"), rows_per_shard=rows_per_shard, class_names=("cat",)
    )


def run_past(deadly: Collection[int], manifest: Manifest, out: str, tried: Path | None = None) -> list[Committed]:
    """Paint all images on two actors, with :class:`Deadly` among the stages."""
    committed: list[Committed] = []
    resources = ResourceConfig(max_crf_actors=2)
    steps = [
        Step(name="deadly", build=partial(Deadly, deadly, tried), on="crf"),
        Step(name="measure", build=Measure, on="crf"),
        Step(name="paint", build=partial(Paint, 4), on="crf"),
    ]
    schema = mask_schema(keep_stages=False, metadata={"tag2mask": "{}"})
    with connected(resources) as cluster:
        run = ShardRun(manifest=manifest, folder=out, schema=schema, resources=resources, cluster=cluster)
        run_shards(run, steps, range(manifest.num_shards), on_commit=committed.append)
    return sorted(committed, key=lambda one: one.shard)
