"""Find tags that the classifier contradicts: ``python -m jobs.check_tags``."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.chain import tag_chain
from engine.checks import require_fractions
from engine.config import Settings
from engine.errors import about
from engine.records import tag_schema
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions, StartsFrom, Uses
from engine.runs.output import claim, trained_network
from engine.runs.shards import label_shards
from engine.storage.filesystem import join, write_bytes
from engine.storage.shards import read_shards
from jobs.cli.command import main

TABLE = "contradicted.parquet"
TABLE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
        pa.field("present", pa.bool_(), nullable=False),
    ]
)
"""``present`` is true for a tag of the image that the classifier rejects, false for a class missing from its tags."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckTags(ShardOptions):
    """List the tags that the classifier contradicts, most confident first, to review or drop them."""

    cam: Annotated[str, StartsFrom()]
    """Output folder of jobs.train_cam, ideally trained on other images: a classifier also fits wrong tags."""
    doubt_below: float = 0.05
    """List a tag if the classifier gives it a lower probability than this."""
    miss_above: float = 0.95
    """List a class missing from the tags if the classifier gives it a higher probability than this."""
    settings: Annotated[Settings, Uses("cam.inference", "shards")]

    def __post_init__(self) -> None:
        ShardOptions.__post_init__(self)
        require_fractions(doubt_below=self.doubt_below)
        require_fractions(miss_above=self.miss_above)


def run(config: CheckTags, images: ImageSet | None = None) -> dict[str, Any]:
    """Write the class probabilities of every image as shards, and the contradicted tags as one table.

    Changing the thresholds rewrites only the table; the shards are reused.
    """
    images, settings = images or ImageSet(config), config.settings
    cam = trained_network(config.cam, "cam", images, thing="cam")
    claimed = claim(
        "check_tags",
        config,
        images,
        uses=("cam.inference", "shards"),
        inputs={"cam": cam.hash},
        rows_per_shard=settings.shards.rows_per_shard,
        class_names=cam.class_names,
        writes=(TABLE,),
        hidden=True,
    )
    chain = tag_chain(settings, cam, decoding=claimed.manifest.decoding(config.max_pixels))
    summary = label_shards(config, claimed, schema=tag_schema(metadata=claimed.metadata), steps=chain)
    found = contradicted(config, cam.class_names)
    buffer = io.BytesIO()
    pq.write_table(found, buffer, compression="zstd")
    with about("out"):
        write_bytes(join(config.out, TABLE), buffer.getvalue())
    denied = pc.sum(found.column("present")).as_py() or 0
    missed = len(found) - denied
    print(f"{denied} doubtful tags, {missed} missing tags: {join(config.out, TABLE)}")
    return {**summary, "denied": denied, "missed": missed}


def contradicted(config: CheckTags, class_names: tuple[str, ...]) -> pa.Table:
    """Return the table of contradicted tags, most confident first; ties keep the order of the shards."""
    tables = [
        pa.Table.from_pylist(list(_contradicted(shard, config, class_names)), TABLE_SCHEMA)
        for shard in read_shards(config.out, ("image_id", "image", "tags", "probabilities", "error"))
    ]
    found = pa.concat_tables(tables)
    probability = found.column("probability")
    confidence = pc.if_else(found.column("present"), pc.subtract(1.0, pc.cast(probability, pa.float64())), probability)
    return found.take(pc.sort_indices(confidence, sort_keys=[("", "descending")]))


def _contradicted(shard: pa.Table, config: CheckTags, class_names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for row in shard.to_pylist():
        if row["error"] is not None:
            continue
        for tag, probability in zip(class_names, row["probabilities"], strict=True):
            present = tag in row["tags"]
            if probability < config.doubt_below if present else probability > config.miss_above:
                place = {name: row[name] for name in ("image_id", "image")}
                yield {**place, "tag": tag, "probability": probability, "present": present}


if __name__ == "__main__":
    sys.exit(main(CheckTags, run))
