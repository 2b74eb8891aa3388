"""What a reader finds, and the manifest that is written of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import OutputError, StorageError, about
from engine.storage.filesystem import absolute, atomic_file, ending, is_uri, parent, write_bytes

_ROWS_PER_GROUP = 4096
_SHOWN = 20
"""Characters of a text around the one that is wrong."""
_SCHEMA = pa.schema([("image_id", pa.string()), ("image", pa.string()), ("tags", pa.list_(pa.string()))])


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image of another program's data set."""

    image_id: str
    location: str
    """Local path or URI."""
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedDataset:
    """A data set: its classes, and its images in a stream."""

    class_names: tuple[str, ...]
    """Names of the classes 1..C."""
    images: Iterator[Image]

    @property
    def classes_text(self) -> str:
        """What the file of classes holds."""
        return "".join(f"{name}\n" for name in self.class_names)


class Reader(Protocol):
    """Reads one format."""

    def __call__(self, source: str, *, images: str, out: str) -> ImportedDataset:
        """What there is.

        Args:
            source: local path or URI of the data set.
            images: folder of the images where the format does not say it; empty where it does.
            out: folder for images that are no files yet.

        Raises:
            UserError: the source cannot be read.
        """


def write_manifest(found: ImportedDataset, location: str, classes: str) -> dict[str, Any]:
    """Write a manifest and its file of classes.

    Args:
        location: of the manifest; its ending, ``.csv``, ``.jsonl`` or ``.parquet``, decides the kind. Images below its
            folder are named by their path from there.
        classes: location of the file of classes.

    Returns:
        ``images``, ``classes`` and ``outside``: how many there are, and images that are not below the folder.

    Raises:
        OutputError: a name does not fit into the file, or the file cannot be written.
        StorageError: there is no image.
    """
    wrong = next((name for name in found.class_names if name != name.strip() or not name or "\n" in name), None)
    if wrong is not None:
        raise OutputError(f"class {wrong!r} does not fit into a line of '{classes}'; rename it")
    folder = parent(absolute(location))
    num_images = num_outside = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal num_images, num_outside
        with about("source"):
            for one in found.images:
                place = absolute(one.location)
                inside = place.startswith(folder.rstrip("/") + "/")
                num_images += 1
                num_outside += not inside and not is_uri(place)
                path = place[len(folder.rstrip("/")) + 1 :] if inside else place
                yield {"image_id": one.image_id, "image": path, "tags": list(one.tags)}
            if not num_images:
                raise StorageError("holds no image of this format; nothing was written")

    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[ending(location)]
    try:
        with about("out"):
            with atomic_file(location) as temporary:
                write(temporary, rows())
            write_bytes(classes, found.classes_text.encode())
    except UnicodeEncodeError as error:
        name = error.object[max(0, error.start - _SHOWN) : error.end + _SHOWN]
        raise StorageError(f"has a name that is not UTF-8, in {name!r}; rename it", thing="source") from error
    return {"images": num_images, "classes": len(found.class_names), "outside": num_outside}


def _write_csv(path: str, rows: Iterator[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_SCHEMA.names)
        for row in rows:
            if any(";" in tag for tag in row["tags"]):
                raise OutputError(
                    f"must be jsonl or parquet, as a tag of '{row['image_id']}' holds ';'", thing="manifest"
                )
            writer.writerow([row["image_id"], row["image"], ";".join(row["tags"])])


def _write_jsonl(path: str, rows: Iterator[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(path: str, rows: Iterator[dict[str, Any]]) -> None:
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))
