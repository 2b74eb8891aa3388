"""Folders named by their class, as ``torchvision.datasets.ImageFolder`` takes them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from engine.errors import StorageError
from engine.imports.found import Image, ImportedDataset
from engine.storage.filesystem import absolute, ending, is_uri, join, list_entries

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
_SHOWN = 8


def read_folders(source: str, *, images: str, out: str) -> ImportedDataset:
    """The images at any depth in the folders of ``source``, each tagged with the name of the uppermost of these.

    An image is named by its path from ``source``. Folders whose name starts with a dot are passed over; ``images`` and
    ``out`` do nothing.

    Raises:
        StorageError: there is no folder in it. While the images are taken: one of the folders holds no image, cannot
            be read, or has no end.
    """
    names = _folders(list_entries(source))
    if not names:
        raise StorageError(f"'{source}' holds no folders; give a folder that holds one folder per class")

    def found() -> Iterator[Image]:
        empty = []
        for name in names:
            path = ""
            for path in _pictures(source, name, frozenset({_real(source)})):
                yield Image(image_id=path, location=join(source, path), tags=(name,))
            if not path:
                empty.append(name)
        if empty:  # a class that nothing shows would only shift the numbers of the others
            shown = ", ".join(f"'{name}'" for name in empty[:_SHOWN]) + (", ..." if len(empty) > _SHOWN else "")
            raise StorageError(
                f"'{source}' holds folders without an image ({len(empty)}: {shown}), so nothing was written; "
                f"images end with {', '.join(IMAGE_ENDINGS)}"
            )

    return ImportedDataset(class_names=tuple(names), images=found())


def _pictures(source: str, path: str, above: frozenset[str]) -> Iterator[str]:
    """Paths, from ``source``, of the images below its folder ``path``; ``above`` are the folders on the way there."""
    folder = join(source, path)
    real = _real(folder)
    if real in above:
        raise StorageError(f"'{folder}' links to a folder above it, so it has no end; remove the link")
    entries = list_entries(folder)
    for name in sorted(name for name, is_folder in entries.items() if not is_folder):
        if ending(name) in IMAGE_ENDINGS:
            yield f"{path}/{name}"
    for name in _folders(entries):
        yield from _pictures(source, f"{path}/{name}", above | {real})


def _folders(entries: dict[str, bool]) -> list[str]:
    return sorted(name for name, is_folder in entries.items() if is_folder and not name.startswith("."))


def _real(folder: str) -> str:
    """Where a folder lies once links are followed; a store has none."""
    place = absolute(folder)
    return place if is_uri(place) else os.path.realpath(place)
