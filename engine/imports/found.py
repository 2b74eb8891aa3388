"""What a reader finds, and the manifest that is written of it."""

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
    remarks: Remarks
    """Complete once all images are taken."""

    @property
    def classes_text(self) -> str:
        """What the file of classes holds."""
        return "".join(f"{name}\n" for name in self.class_names)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderOptions:
    """What a reader may be told; each format uses some."""

    out: str
    """Folder for images that are no files yet."""
    images: str = ""
    """Folder of the images; empty: that of the source."""
    image_column: str = ""
    """Column of the pictures; empty: found."""
    label_column: str = ""
    """Column of the labels; empty: found."""


class Reader(Protocol):
    """Reads one format."""

    def __call__(self, source: str, options: ReaderOptions) -> ImportedDataset:
        """What there is.

        Args:
            source: local path or URI of the data set.
            options: what the format does not say.

        Raises:
            UserError: the source cannot be read.
        """


def united(images: Iterable[Image], remarks: Remarks) -> Iterator[Image]:
    """Images of which each file stands once, with the tags of all its entries; held in memory.

    Raises:
        StorageError: two files have one id.
    """
    by_file: dict[str, Image] = {}
    file_of_id: dict[str, str] = {}
    for one in images:
        first = by_file.setdefault(one.location, one)
        if first is not one:
            remarks.add("further entries of a file (tags added to its first)", one.image_id)
            by_file[one.location] = replace(first, tags=tuple(dict.fromkeys(first.tags + one.tags)))
        elif file_of_id.setdefault(one.image_id, one.location) != one.location:
            raise StorageError(
                f"gives the image_id '{one.image_id}' to both '{file_of_id[one.image_id]}' and '{one.location}'"
            )
    return iter(by_file.values())


def with_clean_tags(found: ImportedDataset, source: str, *, background: str) -> ImportedDataset:
    """The data set with classes and tags as a job reads them: without blanks around them, each once.

    Args:
        found: as a reader gives it.
        source: what was read, for an error's sentence.
        background: a class that stands for none: it is left out of the classes and of the tags.

    Raises:
        UserError: a name is none that a class may have, or ``background`` is no class.
    """
    names = unique_names(found.class_names)
    if background and background not in names:
        raise ConfigError(f"must be a class of the data set, got '{background}'", thing="background")
    if not background and BACKGROUND in names:
        raise ConfigError(
            f"must be given, as '{source}' has a class '{BACKGROUND}', which is class 0 by itself; with '{BACKGROUND}' "
            "its images have no tags",
            thing="background",
        )
    names = [name for name in names if name != background]
    check_class_names(names, f"'{source}'")

    def images() -> Iterator[Image]:
        for one in found.images:
            yield replace(one, tags=tuple(tag for tag in unique_names(one.tags) if tag != background))

    return replace(found, class_names=tuple(names), images=images())


def write_manifest(found: ImportedDataset, location: str, classes: str) -> dict[str, Any]:
    """Write a manifest and its file of classes.

    Args:
        found: as :func:`with_clean_tags` gives it.
        location: of the manifest; its ending, ``.csv``, ``.jsonl`` or ``.parquet``, decides the kind. Images below its
            folder are named by their path from there.
        classes: location of the file of classes.

    Returns:
        ``images``, ``classes``, ``outside`` (images that are not below the folder) and ``remarks`` (things by kind).

    Raises:
        OutputError: a name does not fit into the file, or the file cannot be written.
        StorageError: there is no image, or none of them can be read.
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
                    remarks.add("images that do not exist, or have an address other than s3://", place)
                if not one.tags:
                    remarks.add("images without tags (all background)", one.image_id)
                for tag in one.tags:
                    unused.pop(tag, None)
                path = place[len(folder.rstrip("/")) + 1 :] if inside else place
                yield {"image_id": one.image_id, "image": path, "tags": list(one.tags)}
            if not counts["images"]:
                raise StorageError("holds no image of this format; nothing was written")
            if counts["missing"] == counts["images"]:
                raise StorageError(
                    f"names {counts['images']} images and none of them exists (the last is '{place}'); nothing was "
                    "written; images may name their folder"
                )

    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[ending(location)]
    try:
        with about("out"):
            with atomic_file(location) as temporary:
                write(temporary, rows())
            write_bytes(classes, found.classes_text.encode())
    except UnicodeEncodeError as error:
        name = error.object[max(0, error.start - _SHOWN) : error.end + _SHOWN]
        raise StorageError(f"has a name that is not UTF-8, in {name!r}; rename it", thing="source") from error
    for name in unused:
        remarks.add("classes that are the tag of no image", name)
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
