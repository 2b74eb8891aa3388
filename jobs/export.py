"""Write masks in the format of another program: ``python -m jobs.export``."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TextIO

import pyarrow.parquet as pq

from engine.distributed.cluster import Cluster
from engine.distributed.pipeline import Pool, Step, crf_pool
from engine.errors import ConfigError, OutputError
from engine.export import FORMATS, Exported, FormatOptions, plan_names
from engine.records import export_schema
from engine.runs.inputs import made_with
from engine.runs.options import OptionalText, ShardOptions, check_fraction
from engine.runs.shards import SUMMARY, check_errors, claim, do_shards
from engine.stages.export import ExportImages
from engine.storage.filesystem import atomic_file, join, open_filesystem
from engine.storage.labeled import SKIPPED, LabeledManifest
from engine.storage.manifest import Manifest
from engine.storage.run_record import WORK_FOLDER, write_json
from engine.storage.shards import read_shards
from engine.storage.sources.find import embeds_pictures, find_source
from engine.storage.tally import Tally
from engine.storage.truth import INDEX
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Export(ShardOptions):
    """Write masks in the format of another program; images without a mask are left out and counted."""

    masks: str
    """Folder that jobs.label or jobs.segment wrote."""
    format: str
    """voc, coco (RLE), yolo (polygons), label-studio (brush), fiftyone, png (a plain folder)."""
    images: Literal["auto", "copy", "refer"] = "auto"
    """copy the images too, or refer to where they lie; auto copies for voc and yolo, whose readers need it, and images
    that lie inside of .tar or .parquet files."""
    min_confidence: float = 0.0
    """Images whose mask has less confidence are left out, 0 to 1; 0 takes all."""
    val_fraction: float = 0.0
    """Part of the images that goes to the subset val, by a hash of the id; the rest is train."""
    image_url_prefix: OptionalText = ""
    """For label-studio: what stands before an image's path; empty takes s3:// as it is, else local files from /."""

    def __post_init__(self) -> None:
        ShardOptions.__post_init__(self)
        if isinstance(self.format, str) and self.format not in FORMATS:
            raise ConfigError(f"--format is '{self.format}'; allowed: {', '.join(FORMATS)}")
        for name in ("min_confidence", "val_fraction"):
            check_fraction(name, getattr(self, name))


def run(config: Export) -> dict[str, Any]:
    """Write the files of every image that has a mask, then the lists, ``index.csv`` and ``summary.json``."""
    source = made_with(config.masks, ("label", "segment"), "--masks", data=config.data)
    class_names = tuple(source.record["class_names"])
    options = FormatOptions(class_names=class_names, out=config.out, image_url_prefix=config.image_url_prefix)
    chosen = FORMATS[config.format](options)
    embedded = embeds_pictures(find_source(config.data))
    if embedded and config.images == "refer":
        raise ConfigError(f"--images is refer, but '{config.data}' holds the images itself; allowed: auto or copy")
    copies = config.images == "copy" or embedded or (config.images == "auto" and chosen.copies_images)
    settings = {
        "format": config.format,
        "images": "copy" if copies else "refer",
        "min_confidence": config.min_confidence,
        "val_fraction": config.val_fraction,
        "image_url_prefix": config.image_url_prefix,
    }
    claimed = claim(
        "export",
        config,
        settings,
        {"masks": source.hash},
        rows_per_shard=source.manifest.rows_per_shard,
        class_names=class_names,
        writes=(*chosen.writes, INDEX),
        needs_tags=False,
    )
    manifest = claimed.manifest
    labeled = LabeledManifest.of(manifest, masks=config.masks, min_confidence=config.min_confidence)
    naming = plan_names(partial(_image_ids, manifest))

    def pools(cluster: Cluster) -> list[Pool]:
        arguments = {
            "format_name": config.format,
            "options": options,
            "naming": naming,
            "val_fraction": config.val_fraction,
            "max_pixels": config.max_pixels,
            "threads": config.resources.fetch_threads,
        }
        return [crf_pool([Step(name="export", stage=ExportImages, arguments=arguments)], config.resources, cluster)]

    folder = join(config.out, WORK_FOLDER, "export")
    summary = do_shards(
        config,
        dataclasses.replace(claimed, manifest=labeled),
        folder=folder,
        schema=export_schema(),
        pools=pools,
        fetch=copies,
        stale=partial(_mended, masks=config.masks),
    )
    done = summary.pop("done")
    del summary["done_before"]
    found = summary["errors"]
    summary |= {
        "exported": done - sum(found.values()),
        "skipped": {stage: found[stage] for stage in SKIPPED if stage in found},
        "errors": {stage: count for stage, count in found.items() if stage not in SKIPPED},
    }
    if not summary["missing_shards"]:
        exported = partial(_exported, folder)
        try:
            chosen.finish(exported, partial(_open_text, config.out))
            _write_index(config.out, exported())
        except OSError as error:
            raise OutputError(f"--out '{config.out}' cannot be written: {error}") from error
    write_json(join(config.out, SUMMARY), summary)
    check_errors(summary, config)
    print(f"exported {summary['exported']} of {summary['images']} images: {config.out}")
    return summary


def _mended(exported: Tally, masks: str) -> list[int]:
    """Shards of which images were left out for want of a mask that they have by now (``jobs.label --retry-errors``)."""
    failed = {shard: exported.errors_of(shard) for shard in exported.shards if exported.errors_of(shard)["mask"]}
    if not failed:
        return []
    made = Tally(masks)
    return [
        shard for shard, errors in failed.items() if made.errors_of(shard).total() < errors["mask"] + errors["manifest"]
    ]


def _image_ids(manifest: Manifest) -> Iterator[str]:
    opened, path = open_filesystem(manifest.location)
    with opened.open_input_file(path) as source:
        for batch in pq.ParquetFile(source).iter_batches(columns=["image_id"]):
            yield from batch.column(0).to_pylist()


def _exported(folder: str) -> Iterator[Exported]:
    for table in read_shards(folder, ("image_id", "name", "subset", "entry")):
        for row in table.to_pylist():
            if row["name"] is not None:
                yield Exported(**{**row, "entry": json.loads(row["entry"])})


@contextmanager
def _open_text(out: str, path: str) -> Iterator[TextIO]:
    with atomic_file(join(out, *path.split("/"))) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield file


def _write_index(out: str, exported: Iterator[Exported]) -> None:
    with _open_text(out, INDEX) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["name", "image_id", "subset"])
        rows.writerows((one.name, one.image_id, one.subset) for one in exported)


if __name__ == "__main__":
    sys.exit(main(Export, run))
