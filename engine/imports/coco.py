"""Import COCO annotations: the categories of an image's annotations become its tags.

Source: cocodataset.org, format-data (instances, stuff, panoptic); lvisdataset.org. The whole JSON file is read into
memory.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from engine.errors import StorageError
from engine.imports.files import portable
from engine.imports.found import Image, ImportedDataset, ReaderOptions, united
from engine.imports.remarks import Remarks
from engine.storage.filesystem import parent, read_bytes, resolve

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_Id = int | str


def read_coco(source: str, options: ReaderOptions) -> ImportedDataset:
    """Read the images of an annotation file; they lie in ``options.images``, else in the file's folder.

    A ``file_name`` may be relative, absolute, or a URI as jobs.export may write it; without one, as in LVIS, the path
    of ``coco_url`` is used. Ids may be numbers or text. Classes are the categories in the order of their ids. Crowd
    annotations count too. A file that is listed several times gets the tags of all its entries.

    Raises:
        StorageError: The file is not COCO, an id is ambiguous, or an annotation refers to an unknown id.
    """
    folder = options.images or parent(source)
    try:
        values = json.loads(read_bytes(source))
        listed = [(_id(item["id"]), _file_name(item), item.get("image_id")) for item in values["images"]]
        categories = [(_id(item["id"]), _text(item["name"]).strip()) for item in values["categories"]]
        annotated = Counter(
            (_id(item["image_id"]), _id(part["category_id"]))
            for item in values["annotations"]
            for part in item.get("segments_info", (item,))  # panoptic
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"'{source}' is not a COCO instances file ({type(error).__name__}: {error}); it needs images, annotations "
            "and categories"
        ) from error
    files = _by_id(((number, file) for number, file, _ in listed), "image", source)
    names = _by_id(sorted(categories, key=lambda item: (isinstance(item[0], str), item[0])), "category", source)
    _check_known(annotated, files, names, source)
    order = {name: number for number, name in enumerate(names.values())}
    tags: dict[_Id, set[str]] = defaultdict(set)
    for image, category in annotated:
        tags[image].add(names[category])

    def found() -> Iterator[Image]:
        for number, file, image_id in listed:
            name = portable(file, folder)
            ordered = tuple(sorted(tags.get(number, ()), key=order.__getitem__))
            yield Image(
                image_id=str(name if image_id is None else image_id), location=resolve(name, folder), tags=ordered
            )

    remarks = Remarks()
    return ImportedDataset(class_names=tuple(order), images=united(found(), remarks), remarks=remarks)


def _id(value: Any) -> _Id:
    """Normalize an id: some programs write numbers as text, or as 1.0."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if _INTEGER.fullmatch(text) else text
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(f"{value!r} is not an id")


def _text(name: Any) -> str:
    """Convert a name to text: some programs write it as a number."""
    if not isinstance(name, (str, int, float)):
        raise TypeError(f"{name!r} is not a name")
    return str(name)


def _file_name(item: dict[str, Any]) -> str:
    if item.get("file_name") in (None, "") and "coco_url" in item:
        return urlsplit(_text(item["coco_url"])).path.lstrip("/")
    return _text(item["file_name"])


def _by_id(pairs: Iterable[tuple[_Id, str]], kind: str, source: str) -> dict[_Id, str]:
    found: dict[_Id, str] = {}
    for number, name in pairs:
        if found.setdefault(number, name) != name:
            raise StorageError(f"'{source}' gives the {kind} id {number} to both '{found[number]}' and '{name}'")
    return found


def _check_known(
    annotated: Counter[tuple[_Id, _Id]], files: dict[_Id, str], names: dict[_Id, str], source: str
) -> None:
    for index, (kind, known) in enumerate((("image", files), ("category", names))):
        unknown = {pair[index]: 0 for pair in annotated if pair[index] not in known}
        if unknown:
            number = sum(count for pair, count in annotated.items() if pair[index] in unknown)
            listed = f"ids such as {next(iter(known))!r}" if known else "none"
            raise StorageError(
                f"'{source}' has {number} annotations with an unknown {kind}_id, such as "
                f"{next(iter(unknown))!r}; the file lists {listed}"
            )
