"""COCO: the categories of an image's annotations are its tags.

Source: cocodataset.org, format-data. The file is one JSON text and is read whole.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator

from engine.errors import StorageError
from engine.imports.found import Found, Image
from engine.storage.filesystem import join, parent, read_bytes


def read_coco(source: str, *, images: str, out: str) -> Found:
    """The images of an instances file, below ``images``, else below the folder of the file; ``out`` does nothing.

    Classes are the categories in the order of their ids. Crowds count too.

    Raises:
        StorageError: it is no such file.
    """
    try:
        values = json.loads(read_bytes(source))
        names = {item["id"]: item["name"] for item in sorted(values["categories"], key=lambda item: item["id"])}
        tags: dict[int, dict[str, None]] = defaultdict(dict)
        for item in values["annotations"]:
            tags[item["image_id"]][names[item["category_id"]]] = None
        listed = [
            (item["id"], str(item.get("image_id", item["file_name"])), item["file_name"]) for item in values["images"]
        ]
    except OSError as error:
        raise StorageError(f"--source: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"--source '{source}' is not a COCO instances file ({type(error).__name__}: {error}); needed: "
            "a JSON object with images, annotations and categories"
        ) from error
    order = {name: number for number, name in enumerate(names.values())}
    folder = images or parent(source)

    def found() -> Iterator[Image]:
        for number, image_id, file_name in listed:
            ordered = tuple(sorted(tags.get(number, ()), key=order.__getitem__))
            yield Image(image_id=image_id, location=join(folder, file_name), tags=ordered)

    return Found(class_names=tuple(order), images=found())
