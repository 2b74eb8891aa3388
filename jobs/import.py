"""Convert a data set in another format to a manifest: ``python -m jobs.import``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import ConfigError, OtherRunError, about
from engine.imports import READERS, ReaderOptions, with_clean_tags, write_manifest
from engine.imports.pets import TRUTH, download_pets
from engine.storage.filesystem import exists, join, read_bytes
from engine.storage.probes import check_writable
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """Convert a data set in another format to a manifest and classes.txt, for --data of the other jobs."""

    source: str
    """VOC folder, COCO instances .json, folder of class folders, or .parquet (file, folder or glob pattern)."""
    format: str
    """voc, coco, folders (one per class), parquet (of Hugging Face datasets), pets (Oxford-IIIT Pet)."""
    out: str
    """Folder or URI for the manifest, classes.txt, and the images extracted from parquet."""
    images: str = ""
    """coco, parquet with paths: folder of the images; by default the folder of the source."""
    image_column: str = ""
    """parquet: image column; by default `image`, or the only column that holds images."""
    label_column: str = ""
    """parquet: label column; by default `label`, `labels`, `tags`, or the only column of type ClassLabel."""
    background: str = ""
    """A class that means "none", such as background; it is dropped from the classes and the tags."""
    download: bool = False
    """pets: download the data set (800 MB) into --source first; its license is CC BY-SA 4.0."""
    manifest: Literal["csv", "jsonl", "parquet"] = "csv"
    """File format of the manifest."""
    overwrite: bool = False
    """Replace an existing manifest and classes.txt."""

    def __post_init__(self) -> None:
        if self.format not in READERS:
            raise ConfigError(f"must be one of {', '.join(READERS)}, got '{self.format}'", thing="format")
        for name, formats in _ONLY_FOR.items():
            if getattr(self, name) and self.format not in formats:
                raise ConfigError(f"is for {' and '.join(formats)}, not for {self.format}", thing=name)


_ONLY_FOR = {
    "images": ("coco", "parquet"),
    "image_column": ("parquet",),
    "label_column": ("parquet",),
    "download": ("pets",),
}
"""Options that other formats would ignore."""


def run(config: Import) -> dict[str, Any]:
    """Write ``manifest.csv`` (or .jsonl, .parquet) and ``classes.txt``; returns a summary of the data."""
    check_writable(config.out)
    location = join(config.out, f"manifest.{config.manifest}")
    classes = join(config.out, "classes.txt")
    if not config.overwrite:
        _check_free(location)
    options = ReaderOptions(
        out=config.out, images=config.images, image_column=config.image_column, label_column=config.label_column
    )
    with about("source"):
        if config.download:
            download_pets(config.source)
        read = READERS[config.format](config.source, options)
        found = with_clean_tags(read, config.source, background=config.background)
    if not config.overwrite:
        _check_free(classes, same=found.classes_text)
    summary = write_manifest(found, location, classes)
    print(f"{summary['images']} images; classes: {_abridged(found.class_names)}")
    for line in found.remarks.lines:
        print(line)
    outside = " --allow-outside" if summary["outside"] else ""
    if outside:
        print(
            "Some images lie outside the manifest's folder: pass --allow-outside to the jobs, "
            "or choose an --out that contains the images."
        )
    truth = f" --truth {join(config.out, TRUTH)}" if config.format == "pets" else ""
    print(f"Next: tag2mask run --data {location}{truth}{outside} --out runs/mine")
    return summary


def _abridged(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")


def _check_free(location: str, *, same: str | None = None) -> None:
    """Raise OtherRunError if a file exists, unless its content is ``same``."""
    with about("out"):
        # a class name that is not valid UTF-8 is reported later, when the file is written
        free = not exists(location) or (
            same is not None and read_bytes(location) == same.encode(errors="surrogatepass")
        )
    if not free:
        raise OtherRunError(f"already contains '{location}'", thing="out")


if __name__ == "__main__":
    sys.exit(main(Import, run))
