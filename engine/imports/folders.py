"""Import one folder per class, as in ``torchvision.datasets.ImageFolder``."""

from __future__ import annotations

from collections.abc import Iterator

from engine.errors import StorageError
from engine.imports.files import entries, files_below, is_picture_file
from engine.imports.found import Image, ImportedDataset, ReaderOptions
from engine.imports.remarks import Remarks
from engine.storage.filesystem import join

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_SHOWN = 8


def read_folders(source: str, options: ReaderOptions) -> ImportedDataset:
    """Read the images at any depth in the class folders of ``source``, each tagged with its class folder's name.

    The image id is the path relative to ``source``. The options are not used.

    Raises:
        StorageError: There are no folders, or they are splits. During iteration: a class folder contains no images,
            cannot be read, or contains a cycle of links.
    """
    remarks = Remarks()
    files, names = entries(source, "", remarks)
    if not names:
        raise StorageError(f"'{source}' contains no folders; give a folder with one folder per class")
    if {name.lower() for name in names} <= _SPLITS:
        raise StorageError(
            f"'{source}' contains the splits {', '.join(names)}, not classes; give one of them, such as "
            f"'{join(source, names[0])}'"
        )

    def found() -> Iterator[Image]:
        for path in files:
            remarks.add("files outside the class folders (skipped)", path)
        empty = []
        for name in names:
            number = 0
            for path in files_below(source, name, remarks):
                if is_picture_file(join(source, path)):
                    number += 1
                    yield Image(image_id=path, location=join(source, path), tags=(name,))
                else:
                    remarks.add("files that are not images (skipped)", path)
            if not number:
                empty.append(name)
        if empty:  # an empty class would only shift the ids of the others
            shown = ", ".join(f"'{name}'" for name in empty[:_SHOWN]) + (", ..." if len(empty) > _SHOWN else "")
            raise StorageError(
                f"'{source}' has {len(empty)} folders without an image that Pillow reads ({shown}); nothing was written"
            )

    return ImportedDataset(class_names=tuple(names), images=found(), remarks=remarks)
