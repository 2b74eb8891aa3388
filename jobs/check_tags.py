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
import tyro

from engine.config import CamInferenceConfig, ShardConfig
from engine.distributed.cluster import Cluster
from engine.distributed.pipeline import Pool, Step, network_pool
from engine.errors import OutputError
from engine.plain_settings import to_dict
from engine.records import tag_schema
from engine.runs.options import ShardOptions, check_fraction
from engine.runs.shards import claim, label_shards, network_classes, shard_metadata
from engine.stages.tag_scores import ScoreTags
from engine.storage.filesystem import join, write_bytes
from engine.storage.shards import read_shards
from engine.storage.weights import weights_file, weights_hash
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
"""``present``: the manifest has the tag and the classifier denies it; else the classifier misses it there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckTags(ShardOptions):
    """List the tags that the classifier contradicts, to drop or to review, the surest first."""

    cam: str
    """Folder that jobs.train_cam wrote; its images should be others, or many, or few epochs: it learns errors too."""
    doubt_below: float = 0.05
    """A tag of the manifest is contradicted when the classifier gives it less than this probability."""
    miss_above: float = 0.95
    """A tag that the manifest lacks is listed when the classifier gives it more than this probability."""
    cam_inference: Annotated[CamInferenceConfig, tyro.conf.arg(name="cam.inference")]
    """How the classifier looks at an image."""
    shards: ShardConfig
    """The output's layout."""

    def __post_init__(self) -> None:
        ShardOptions.__post_init__(self)
        for name in ("doubt_below", "miss_above"):
            check_fraction(name, getattr(self, name))


def run(config: CheckTags) -> dict[str, Any]:
    """Write every class's probability for every image as shards, and the contradicted tags as one table.

    Other thresholds need no second look at the images: the shards stay as they are.
    """
    class_names = network_classes(config.cam, "cam", config)
    settings = {"cam": {"inference": to_dict(config.cam_inference)}, "shards": to_dict(config.shards)}
    claimed = claim(
        "check_tags",
        config,
        settings,
        {"cam": weights_hash(config.cam)},
        rows_per_shard=config.shards.rows_per_shard,
        class_names=class_names,
        writes=(TABLE,),
    )

    def pools(cluster: Cluster) -> list[Pool]:
        arguments = {
            "weights": weights_file(config.cam),
            "config": config.cam_inference,
            "device": config.resources.device,
            "max_pixels": config.max_pixels,
        }
        return [network_pool([Step(name="tags", stage=ScoreTags, arguments=arguments)], config.resources, cluster)]

    summary = label_shards(config, claimed, schema=tag_schema(metadata=shard_metadata(claimed)), pools=pools)
    found = contradicted(config, class_names)
    buffer = io.BytesIO()
    pq.write_table(found, buffer, compression="zstd")
    try:
        write_bytes(join(config.out, TABLE), buffer.getvalue())
    except OSError as error:
        raise OutputError(f"--out: {error}") from error
    denied = pc.sum(found.column("present")).as_py() or 0
    missed = len(found) - denied
    print(f"{denied} tags denied, {missed} missed: {join(config.out, TABLE)}")
    return {**summary, "denied": denied, "missed": missed}


def contradicted(config: CheckTags, class_names: tuple[str, ...]) -> pa.Table:
    """The table, the surest first; those that are as sure in the order of the shards."""
    tables = [
        pa.Table.from_pylist(list(_contradicted(shard, config, class_names)), TABLE_SCHEMA)
        for shard in read_shards(config.out, ("image_id", "image", "tags", "probabilities", "error"))
    ]
    found = pa.concat_tables(tables)
    probability = found.column("probability")
    surety = pc.if_else(found.column("present"), pc.subtract(1.0, pc.cast(probability, pa.float64())), probability)
    return found.take(pc.sort_indices(surety, sort_keys=[("", "descending")]))


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
