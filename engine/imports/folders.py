"""Folders named by their class, as ``torchvision.datasets.ImageFolder`` takes them."""

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
    """The pictures at any depth in the folders of ``source``, each tagged with the name of the uppermost of these.

    A picture is named by its path from ``source``. No option does anything.

    Raises:
        StorageError: there is no folder in it, or folders of splits. While the images are taken: one of the folders
            holds no picture, cannot be read, or has no end.
    """
    remarks = Remarks()
    files, names = entries(source, "", remarks)
    if not names:
        raise StorageError(f"'{source}' holds no folders; give a folder that holds one folder per class")
    if {name.lower() for name in names} <= _SPLITS:
        raise StorageError(
            f"'{source}' holds the splits {', '.join(names)}, not classes; give one of them, such as "
            f"'{join(source, names[0])}'"
        )

    def found() -> Iterator[Image]:
        for path in files:
            remarks.add("files beside the class folders (left out)", path)
        empty = []
        for name in names:
            number = 0
            for path in files_below(source, name, remarks):
                if is_picture_file(join(source, path)):
                    number += 1
                    yield Image(image_id=path, location=join(source, path), tags=(name,))
                else:
                    remarks.add("files that are not pictures (left out)", path)
            if not number:
                empty.append(name)
        if empty:  # a class that nothing shows would only shift the numbers of the others
            shown = ", ".join(f"'{name}'" for name in empty[:_SHOWN]) + (", ..." if len(empty) > _SHOWN else "")
            raise StorageError(
                f"'{source}' holds folders without a picture that Pillow reads ({len(empty)}: {shown}), so nothing was "
                "written"
            )

    return ImportedDataset(class_names=tuple(names), images=found(), remarks=remarks)
