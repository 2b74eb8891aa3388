"""Folders named by their class, as ``torchvision.datasets.ImageFolder`` takes them."""

from __future__ import annotations

from collections.abc import Iterator

from engine.errors import StorageError
from engine.imports.found import Found, Image
from engine.storage.filesystem import ending, join, list_entries, list_names

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


def read_folders(source: str, *, images: str, out: str) -> Found:
    """The images in the folders of ``source``, each tagged with its folder's name; ``images`` and ``out`` do nothing.

    Raises:
        StorageError: there is no folder in it.
    """
    try:
        names = sorted(name for name, is_folder in list_entries(source).items() if is_folder and name[0] != ".")
    except OSError as error:
        raise StorageError(f"--source: {error}") from error
    if not names:
        raise StorageError(f"--source '{source}' holds no folders; allowed: a folder with one for each class")

    def found() -> Iterator[Image]:
        for name in names:
            for file in list_names(join(source, name)):
                if ending(file) in IMAGE_ENDINGS:
                    yield Image(image_id=f"{name}/{file}", location=join(source, name, file), tags=(name,))

    return Found(class_names=tuple(names), images=found())
