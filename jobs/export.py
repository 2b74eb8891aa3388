"""Export masks to the format of another program: ``python -m jobs.export``."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TextIO

import pyarrow.parquet as pq

from engine.checks import require_fractions
from engine.config import Settings
from engine.errors import ConfigError, about
from engine.export import FORMATS, Exported, FormatOptions, plan_names
from engine.records import export_schema
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions, StartsFrom, Uses
from engine.runs.output import SUMMARY, claim, earlier_output
from engine.runs.shards import check_errors, do_shards
from engine.stages.export import ExportImages
from engine.step import Step
from engine.storage.filesystem import atomic_file, join, open_filesystem
from engine.storage.labeled import SKIPPED, LabeledManifest
from engine.storage.manifest import Manifest
from engine.storage.run_record import WORK_FOLDER, write_json
from engine.storage.shards import read_shards
from engine.storage.tally import Tally
from engine.storage.truth import INDEX
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Export(ShardOptions):
    """Export masks to the format of another program; images without a mask are skipped and counted."""

    masks: Annotated[str, StartsFrom()]
    """Output folder of jobs.label or jobs.segment."""
    format: str
    """voc, coco (RLE), yolo (polygons), label-studio (brush), fiftyone, datasets (Hugging Face), webdataset (tars), png
    (a plain folder)."""
    images: Literal["auto", "copy", "refer"] = "auto"
    """copy the images into the output (upright), or refer to their current location; auto copies for formats whose
    readers require it, and for images inside .tar or .parquet files."""
    min_confidence: float = 0.0
    """Skip masks with a lower confidence than this, 0 to 1; 0 keeps all."""
    image_url_prefix: str = ""
    """label-studio: URL prefix for image paths; by default s3:// URIs are kept and local files are served from /."""
    settings: Annotated[Settings, Uses("val_fraction")]

    def __post_init__(self) -> None:
        ShardOptions.__post_init__(self)
        if self.format not in FORMATS:
            raise ConfigError(f"must be one of {', '.join(FORMATS)}, got '{self.format}'", thing="format")
        require_fractions(min_confidence=self.min_confidence)


def run(config: Export, images: ImageSet | None = None) -> dict[str, Any]:
    """Write the files of every image with a mask, then the format's lists, ``index.csv`` and ``summary.json``."""
    images, val_fraction = images or ImageSet(config), config.settings.val_fraction
    source = earlier_output(config.masks, ("label", "segment"), thing="masks", images=images)
    class_names = tuple(source.record["class_names"])
    options = FormatOptions(
        class_names=class_names,
        out=config.out,
        val_fraction=val_fraction,
        rows_per_shard=source.manifest.rows_per_shard,
        image_url_prefix=config.image_url_prefix,
    )
    chosen = FORMATS[config.format](options)
    embedded = source.manifest.embeds_pictures
    if config.images == "refer":
        if embedded:
            raise ConfigError(f"must be auto or copy, as '{config.data}' holds the images itself", thing="images")
        if chosen.needs_images:
            raise ConfigError(
                f"must be auto or copy for {config.format}, which holds the images itself", thing="images"
            )
        if chosen.copies_images:
            print(
                f"warning: readers of {config.format} ignore EXIF orientation: an image that has one is shown as it is "
                "stored, its mask upright",
                file=sys.stderr,
            )
    copies = config.images == "copy" or embedded or (config.images == "auto" and chosen.copies_images)
    chosen_options = {
        "format": config.format,
        "images": "copy" if copies else "refer",
        "min_confidence": f"{config.min_confidence:g}",
        "image_url_prefix": config.image_url_prefix,
    }
    claimed = claim(
        "export",
        config,
        images,
        uses=("val_fraction",),
        inputs={"masks": source.hash, **chosen_options},
        rows_per_shard=source.manifest.rows_per_shard,
        class_names=class_names,
        writes=(*chosen.writes, INDEX),
        needs_tags=False,
    )
    manifest = claimed.manifest
    labeled = LabeledManifest.of(manifest, masks=config.masks, min_confidence=config.min_confidence)
    naming = plan_names(partial(_image_ids, manifest))

    write = partial(
        ExportImages,
        config.format,
        options,
        naming,
        decoding=claimed.manifest.decoding(config.max_pixels),
        threads=config.settings.resources.fetch_threads,
    )
    folder = join(config.out, WORK_FOLDER, "export")
    summary = do_shards(
        config,
        dataclasses.replace(claimed, manifest=labeled),
        folder=folder,
        schema=export_schema(),
        steps=[Step(name="export", build=write, on="crf")],
        fetch=copies,
        stale=partial(_newly_labeled, masks=config.masks),
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
        with about("out"):
            chosen.finish(exported, partial(_open_text, config.out))
            _write_index(config.out, exported())
    write_json(join(config.out, SUMMARY), summary)
    check_errors(summary, config)
    print(f"exported {summary['exported']} of {summary['images']} images: {config.out}")
    return summary


def _newly_labeled(exported: Tally, masks: str) -> list[int]:
    """List shards exported while some images had no mask that now have one (after ``jobs.label --retry-errors``)."""
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
