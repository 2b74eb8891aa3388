"""Small data sets, and what jobs leave in their output folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.imaging.codecs import encode_mask
from engine.presets import preset
from engine.records import mask_schema, seed_schema, shard_table
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions
from engine.runs.output import Claimed, claim
from engine.storage.shards import write_shard


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
    claimed = claim(job, options, ImageSet(options), uses=(), inputs={}, rows_per_shard=2)
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
