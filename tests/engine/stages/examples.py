"""Small pictures, rows and networks that the tests of the stages share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.config import NetworkConfig
from engine.fitting.samples import SampleSource
from engine.networks import Architecture, build, save_network
from engine.presets import preset
from engine.records import Batch, mask_schema, seed_schema, shard_table
from engine.resources import Decoding, PassConfig
from engine.storage.manifest import freeze_manifest
from engine.storage.shards import write_shard

CLASS_NAMES = ("cat", "dog", "bird")
MAX_PIXELS = 10_000_000
PASSES = PassConfig(decoding=Decoding(max_pixels=MAX_PIXELS))
SMALL: dict[str, Any] = {"backbone": "mobilenetv3_small_050", "weights": "random"}
"""The smallest backbone, for any of the three networks' settings."""


def picture(height: int, width: int, rng_seed: int = 0) -> NDArray[np.uint8]:
    """Coloured blobs: smooth enough that a resized copy still looks alike."""
    coarse = np.random.default_rng(rng_seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def rows(encoded: Sequence[bytes | None], class_ids: list[list[int]], **columns: list[Any]) -> Batch:
    """Rows as they come from the fetching of the images."""
    empty: list[Any] = [None] * len(encoded)
    return {
        "image_id": [f"image-{row}" for row in range(len(encoded))],
        "encoded": list(encoded),
        "class_ids": class_ids,
        "height": list(empty),
        "width": list(empty),
        "error": list(empty),
        **columns,
    }


def network_config(kind: str) -> NetworkConfig:
    """A part of the tiny preset over the smallest backbone."""
    settings = preset("tiny")
    if kind == "segmentation":
        return replace(settings.segmentation, head_channels=16, **SMALL)
    return replace(settings.cam, **SMALL) if kind == "cam" else replace(settings.affinity, **SMALL)


def write_network(folder: Any, kind: str, *, rng_seed: int = 0, backbone: str = "mobilenetv3_small_050") -> str:
    """Random weights as a training job leaves them; gives the folder."""
    torch.manual_seed(rng_seed)
    architecture = replace(Architecture.of(network_config(kind), CLASS_NAMES), backbone=backbone)
    network = build(architecture, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    save_network(f"{folder}/weights.safetensors", architecture, network.state_dict())
    return str(folder)


def write_samples(
    folder: Path,
    pictures: list[bytes],
    targets: dict[str, list[bytes | None]] | None = None,
    *,
    confidence: list[float | None] | None = None,
) -> SampleSource:
    """Images with the tags cat and bird, their frozen manifest, and shards of three rows with the target column."""
    lines = ["image,tags"]
    for number, encoded in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(encoded)
        lines.append(f"{number}.png,cat;bird")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    manifest = freeze_manifest(
        str(folder / "manifest.csv"), str(folder / "frozen"), rows_per_shard=3, class_names=CLASS_NAMES
    )
    target: Any = "tags"
    for target, values in (targets or {}).items():
        schema = seed_schema(metadata={}) if target == "seed" else mask_schema(keep_stages=False, metadata={})
        for shard in range(manifest.num_shards):
            rows = manifest.read_shard(shard)
            part = values[3 * shard : 3 * shard + 3]
            columns: dict[str, list[Any]] = {name: [None] * len(part) for name in ("height", "width", "areas")}
            columns["confidence"] = (confidence or [None] * len(values))[3 * shard : 3 * shard + 3]
            error = ["crf: odd" if value is None else None for value in part]
            table = shard_table({**rows, **columns, target: part, "error": error}, schema)
            write_shard(str(folder / "shards"), shard, table)
    return SampleSource(
        manifest=str(folder / "frozen"),
        target=target,
        shards=str(folder / "shards") if targets else "",
        rows_of_shards=manifest.rows_of_shards,
        num_classes=len(CLASS_NAMES),
        grid_stride=8,
        max_pixels=MAX_PIXELS,
    )
