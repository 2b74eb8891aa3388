"""The result of reading a data set, and writing it as a manifest."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ConfigError, OutputError, StorageError, about
from engine.imports.files import is_missing
from engine.imports.remarks import Remarks
from engine.storage.class_names import BACKGROUND, check_class_names
from engine.storage.filesystem import absolute, atomic_file, ending, is_uri, parent, write_bytes
from engine.storage.sources.tags import unique_names
from engine.storage.vocabulary import class_line

_ROWS_PER_GROUP = 4096
_SHOWN = 20
"""Characters of context shown around an invalid character."""
_SCHEMA = pa.schema([("image_id", pa.string()), ("image", pa.string()), ("tags", pa.list_(pa.string()))])


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image of a data set."""

    image_id: str
    location: str
    """Local path or URI."""
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedDataset:
    """A data set: its classes and a stream of its images."""

    class_names: tuple[str, ...]
    """Names of the classes 1..C."""
    images: Iterator[Image]
    remarks: Remarks
    """Complete once all images have been iterated."""

    @property
    def classes_text(self) -> str:
        """The content of the class file."""
        return "".join(f"{class_line(name)}\n" for name in self.class_names)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderOptions:
    """Options of the readers; each format uses some of them."""

    out: str
    """Folder for images extracted from the data set."""
    images: str = ""
    """Folder of the images; empty for the folder of the source."""
    image_column: str = ""
    """Image column; empty to detect it."""
    label_column: str = ""
    """Label column; empty to detect it."""


class Reader(Protocol):
    """A function that reads one format."""

    def __call__(self, source: str, options: ReaderOptions) -> ImportedDataset:
        """Read a data set.

        Args:
            source: Local path or URI of the data set.
            options: Details that the format does not specify.

        Raises:
            UserError: The source cannot be read.
        """


def united(images: Iterable[Image], remarks: Remarks) -> Iterator[Image]:
    """Merge entries of the same file, with the tags of all its entries; holds all images in memory.

    Raises:
        StorageError: Two files have the same id.
    """
    by_file: dict[str, Image] = {}
    file_of_id: dict[str, str] = {}
    for one in images:
        first = by_file.setdefault(one.location, one)
        if first is not one:
            remarks.add("duplicate entries of a file (tags merged)", one.image_id)
            by_file[one.location] = replace(first, tags=tuple(dict.fromkeys(first.tags + one.tags)))
        elif file_of_id.setdefault(one.image_id, one.location) != one.location:
            raise StorageError(
                f"gives the image_id '{one.image_id}' to both '{file_of_id[one.image_id]}' and '{one.location}'"
            )
    return iter(by_file.values())


def with_clean_tags(found: ImportedDataset, source: str, *, background: str) -> ImportedDataset:
    """Strip whitespace from classes and tags, drop duplicates, and drop the background class.

    Args:
        found: The result of a reader.
        source: What was read, for error messages.
        background: A class that means "none"; it is dropped from the classes and the tags.

    Raises:
        UserError: A class name is invalid, or ``background`` is not a class.
    """
    names = unique_names(found.class_names)
    if background and background not in names:
        raise ConfigError(f"must be a class of the data set, got '{background}'", thing="background")
    if not background and BACKGROUND in names:
        raise ConfigError(
            f"must be given, because '{source}' has a class '{BACKGROUND}', which is always class 0; '{BACKGROUND}' "
            "drops it from the tags",
            thing="background",
        )
    names = [name for name in names if name != background]
    check_class_names(names, f"'{source}'")

    def images() -> Iterator[Image]:
        for one in found.images:
            yield replace(one, tags=tuple(tag for tag in unique_names(one.tags) if tag != background))

    return replace(found, class_names=tuple(names), images=images())


def write_manifest(found: ImportedDataset, location: str, classes: str) -> dict[str, Any]:
    """Write a manifest and its class file.

    Args:
        found: The result of :func:`with_clean_tags`.
        location: Location of the manifest; its ending, ``.csv``, ``.jsonl`` or ``.parquet``, determines the format.
            Images inside its folder get relative paths.
        classes: Location of the class file.

    Returns:
        ``images``, ``classes``, ``outside`` (number of images outside the folder) and ``remarks`` (counts by kind).

    Raises:
        OutputError: A name cannot be represented in the format, or the file cannot be written.
        StorageError: There are no images, or none of them exists.
    """
    folder = parent(absolute(location))
    remarks = found.remarks
    unused = dict.fromkeys(found.class_names)
    counts = Counter(images=0, outside=0, missing=0)

    def rows() -> Iterator[dict[str, Any]]:
        with about("source"):
            for one in found.images:
                place = absolute(one.location)
                inside = place.startswith(folder.rstrip("/") + "/")
                counts["images"] += 1
                counts["outside"] += not inside and not is_uri(place)
                if is_missing(place):
                    counts["missing"] += 1
                    remarks.add("images that do not exist, or are in no known store", place)
                if not one.tags:
                    remarks.add("images without tags (all background)", one.image_id)
                for tag in one.tags:
                    unused.pop(tag, None)
                path = place[len(folder.rstrip("/")) + 1 :] if inside else place
                yield {"image_id": one.image_id, "image": path, "tags": list(one.tags)}
            if not counts["images"]:
                raise StorageError("contains no images of this format; nothing was written")
            if counts["missing"] == counts["images"]:
                raise StorageError(
                    f"lists {counts['images']} images, but none of them exists (the last is '{place}'); nothing was "
                    "written; the option images sets their folder"
                )

    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[ending(location)]
    try:
        with about("out"):
            with atomic_file(location) as temporary:
                write(temporary, rows())
            write_bytes(classes, found.classes_text.encode())
    except UnicodeEncodeError as error:
        name = error.object[max(0, error.start - _SHOWN) : error.end + _SHOWN]
        raise StorageError(f"has a name that is not valid UTF-8, in {name!r}; rename it", thing="source") from error
    for name in unused:
        remarks.add("classes that no image is tagged with", name)
    return {
        "images": counts["images"],
        "classes": len(found.class_names),
        "outside": counts["outside"],
        "remarks": remarks.counts,
    }


def _write_csv(path: str, rows: Iterator[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_SCHEMA.names)
        for row in rows:
            if any(";" in tag for tag in row["tags"]):
                raise OutputError(
                    f"must be jsonl or parquet, because a tag of '{row['image_id']}' contains ';'", thing="manifest"
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
