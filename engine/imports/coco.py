"""COCO: the categories of an image's annotations are its tags.

Source: cocodataset.org, format-data. The file is one JSON text and is read whole.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from engine.errors import StorageError
from engine.imports.found import Image, ImportedDataset
from engine.storage.filesystem import parent, read_bytes, resolve


def read_coco(source: str, *, images: str, out: str) -> ImportedDataset:
    """The images of an instances file, below ``images``, else below the folder of the file; ``out`` does nothing.

    A ``file_name`` that is a URI, as jobs.export may write it, or an absolute path is taken as it is. Classes are the
    categories in the order of their ids. Crowds count too.

    Raises:
        StorageError: it is no such file.
    """
    try:
        values = json.loads(read_bytes(source))
        names = {item["id"]: _text(item["name"]) for item in sorted(values["categories"], key=lambda item: item["id"])}
        tags: dict[int, dict[str, None]] = defaultdict(dict)
        for item in values["annotations"]:
            tags[item["image_id"]][names[item["category_id"]]] = None
        listed = [
            (item["id"], str(item.get("image_id", item["file_name"])), _text(item["file_name"]))
            for item in values["images"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"'{source}' is not a COCO instances file ({type(error).__name__}: {error}); it needs images, annotations "
            "and categories"
        ) from error
    order = {name: number for number, name in enumerate(names.values())}
    folder = images or parent(source)

    def found() -> Iterator[Image]:
        for number, image_id, file_name in listed:
            ordered = tuple(sorted(tags.get(number, ()), key=order.__getitem__))
            yield Image(image_id=image_id, location=resolve(file_name, folder), tags=ordered)

    return ImportedDataset(class_names=tuple(order), images=found())


def _text(name: Any) -> str:
    """A name, which some programs write as a number."""
    if not isinstance(name, (str, int, float)):
        raise TypeError(f"{name!r} is no name")
    return str(name)
