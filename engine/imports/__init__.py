"""Import data sets of other formats as manifests; each format is one module and one line here."""

from __future__ import annotations

from engine.imports.coco import read_coco
from engine.imports.folders import read_folders
from engine.imports.found import Reader, ReaderOptions, with_clean_tags, write_manifest
from engine.imports.parquet import read_parquet
from engine.imports.pets import read_pets
from engine.imports.voc import read_voc

READERS: dict[str, Reader] = {
    "voc": read_voc,
    "coco": read_coco,
    "folders": read_folders,
    "parquet": read_parquet,
    "pets": read_pets,
}
"""Readers by name of the format."""

__all__ = ["READERS", "ReaderOptions", "with_clean_tags", "write_manifest"]
