"""Small data sets, and what jobs leave in their output folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.imaging.codecs import encode_mask
from engine.presets import preset
from engine.records import mask_schema, seed_schema, shard_table
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions
from engine.runs.output import Claimed, claim
from engine.storage.run_record import write_json
from engine.storage.shards import write_shard

CLASS_NAMES = ["cat", "dog"]
TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], dtype=np.uint8)
MASK = np.array([[0, 1, 1, 1], [0, 0, 0, 2]], dtype=np.uint8)
OTHER = np.array([[2, 2], [0, 0], [0, 2]], dtype=np.uint8)


def write_data(folder: Path, num_images: int = 5) -> str:
    """A manifest of images that do not exist."""
    folder.mkdir()
    (folder / "manifest.csv").write_text("image,tags\n" + "".join(f"{n}.png,cat\n" for n in range(num_images)))
    return str(folder / "manifest.csv")


def options_for(data: str, out: Path) -> ShardOptions:
    """Options of a job over these images, with the settings of ``tiny``."""
    return ShardOptions(data=data, out=str(out), settings=preset("tiny"))


def write_output(out: Path, data: str, job: str, *, shards: int = 3) -> Claimed:
    """An output of two rows a shard, as a job leaves it, of which the first shards are done."""
    options = options_for(data, out)
    claimed = claim(job, options, ImageSet(options), uses=(), inputs={}, rows_per_shard=2, hidden=True)
    column = "seed" if job == "make_seeds" else "mask"
    schema = seed_schema(metadata={}) if column == "seed" else mask_schema(keep_stages=False, metadata={})
    for shard in range(shards):
        rows = claimed.manifest.read_shard(shard)
        count = len(rows["image_id"])
        empty = {name: [None] * count for name in ("height", "width", "areas")}
        sure = {"confidence": [0.2 * (2 * shard + row) for row in range(count)]}
        pngs = [encode_mask(np.zeros((4, 4), dtype=np.uint8))] * count
        write_shard(str(out), shard, shard_table({**rows, **empty, **sure, column: pngs}, schema))
    return claimed


def write_masks(
    folder: Path,
    masks: Mapping[str, NDArray[Any] | None],
    confidences: Mapping[str, float] | None = None,
    stages: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
) -> str:
    """Mask shards of two rows; a mask that is None is an error row."""
    ids = list(masks)
    schema = mask_schema(keep_stages=stages is not None, metadata={})
    for shard, start in enumerate(range(0, len(ids), 2)):
        part = ids[start : start + 2]
        encoded = [None if (mask := masks[name]) is None else encode_mask(mask) for name in part]
        batch: dict[str, list[Any]] = {
            "image_id": part,
            "image": [f"photos/{name}.jpg" for name in part],
            "mask": encoded,
            "error": ["decode: odd" if one is None else None for one in encoded],
            **{name: [None] * len(part) for name in ("height", "width", "tags", "areas")},
            "confidence": [(confidences or {}).get(name) for name in part],
            **{column: [encode_mask(values[name]) for name in part] for column, values in (stages or {}).items()},
        }
        write_shard(str(folder), shard, shard_table(batch, schema))
    write_json(str(folder / ".tag2mask" / "run.json"), {"job": "label", "class_names": CLASS_NAMES})
    return str(folder)


def write_truth(folder: Path, masks: Mapping[str, NDArray[Any]]) -> str:
    folder.mkdir(exist_ok=True)
    for name, mask in masks.items():
        (folder / f"{name}.png").write_bytes(encode_mask(mask))
    return str(folder)
