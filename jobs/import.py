"""Make a manifest of data in another program's format: ``python -m jobs.import``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import ConfigError, OtherRunError, about
from engine.imports import READERS, ImportedDataset, write_manifest
from engine.storage.filesystem import exists, join, read_bytes
from engine.storage.probes import check_writable
from jobs.cli.command import main


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """Write a manifest and classes.txt for --data from a data set in another format."""

    source: str
    """The folder with JPEGImages, the instances .json, the folder of class folders, or .parquet (one, or a folder)."""
    format: str
    """voc, coco, folders (one for each class), parquet (of Hugging Face datasets)."""
    out: str
    """Folder or URI for the manifest, classes.txt, and the images of parquet."""
    images: str = ""
    """coco: folder of the images; without it the folder of the .json."""
    manifest: Literal["csv", "jsonl", "parquet"] = "csv"
    """Kind of the manifest."""
    overwrite: bool = False
    """Replace a manifest and classes.txt that are there already."""

    def __post_init__(self) -> None:
        if self.format not in READERS:
            raise ConfigError(f"must be one of {', '.join(READERS)}, got '{self.format}'", thing="format")


def run(config: Import) -> dict[str, Any]:
    """Write ``manifest.csv`` (or .jsonl, .parquet) and ``classes.txt``; returns what was found."""
    check_writable(config.out)
    location = join(config.out, f"manifest.{config.manifest}")
    classes = join(config.out, "classes.txt")
    if not config.overwrite:
        _check_free(location)
    with about("source"):
        found: ImportedDataset = READERS[config.format](config.source, images=config.images, out=config.out)
    if not config.overwrite:
        _check_free(classes, same=found.classes_text)
    summary = write_manifest(found, location, classes)
    print(f"{summary['images']} images; classes: {_some(found.class_names)}")
    outside = " --allow-outside" if summary["outside"] else ""
    if outside:
        print(
            "Images lie outside of the manifest's folder, so the jobs need --allow-outside; or give --out above them."
        )
    print(f"Next: python -m jobs.run --data {location}{outside} --out runs/mine")
    return summary


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")


def _check_free(location: str, *, same: str | None = None) -> None:
    """Refuse to replace a file, but one that holds ``same``."""
    with about("out"):
        # a name that is not UTF-8 is refused where it would be written
        free = not exists(location) or (
            same is not None and read_bytes(location) == same.encode(errors="surrogatepass")
        )
    if not free:
        raise OtherRunError(f"holds '{location}' already", thing="out")


if __name__ == "__main__":
    sys.exit(main(Import, run))
