"""The files of a data set: which there are, and which of them are pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pyarrow.fs import LocalFileSystem

from engine.errors import StorageError
from engine.imaging.decoding import is_picture
from engine.imports.remarks import Remarks
from engine.storage.filesystem import absolute, ending, is_uri, join, list_entries, open_filesystem, resolve
from engine.storage.pictures import file_of
from engine.storage.retries import retry

_PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".tga")
"""Taken unread; a damaged one becomes an error row of the job that reads it."""
_MACOS = ("__MACOSX", ".DS_Store")
_IN_A_BUCKET = re.compile("s3a?://", re.IGNORECASE)


def is_picture_file(location: str) -> bool:
    """Whether a file is a picture: by a usual ending, under any other name by its content.

    Raises:
        StorageError: it cannot be read.
    """
    if ending(location) in _PICTURE_ENDINGS:
        return True

    def sniff() -> bool:
        opened, path = open_filesystem(location)
        if isinstance(opened, LocalFileSystem) and not os.path.isfile(path):  # a pipe, or a link to nothing
            return False
        with opened.open_input_file(path) as file:
            return is_picture(file)

    return retry(sniff, location)


def entries(folder: str, path: str, remarks: Remarks) -> tuple[list[str], list[str]]:
    """Paths, from ``folder``, of the files and of the folders directly in its folder ``path``, sorted.

    Hidden folders, and what a Mac puts into folders and archives, are left out.
    """
    files: list[str] = []
    folders: list[str] = []
    for name, is_folder in sorted(list_entries(join(folder, path) if path else folder).items()):
        inner = f"{path}/{name}" if path else name
        if name in _MACOS or name.startswith("._"):
            remarks.add("files of macOS (left out)", inner)
        elif is_folder and name.startswith("."):
            remarks.add("hidden folders (left out)", inner)
        else:
            (folders if is_folder else files).append(inner)
    return files, folders


def files_below(folder: str, path: str, remarks: Remarks, *, above: frozenset[str] | None = None) -> Iterator[str]:
    """Paths, from ``folder``, of the files at any depth in its folder ``path``.

    Args:
        above: real paths of the folders on the way there; by default of ``folder``.

    Raises:
        StorageError: a folder cannot be read, or links to one above it.
    """
    place = join(folder, path) if path else folder
    real = _real(place)
    if above is None:
        above = frozenset({_real(folder)} if path else ())
    if real in above:
        raise StorageError(f"'{place}' links to a folder above it, so it has no end; remove the link")
    files, folders = entries(folder, path, remarks)
    yield from files
    for inner in folders:
        yield from files_below(folder, inner, remarks, above=above | {real})


def _real(folder: str) -> str:
    """Where a folder lies once links are followed; a store has none."""
    place = absolute(folder)
    return place if is_uri(place) else os.path.realpath(place)


def is_missing(location: str) -> bool:
    """Whether no job could read a picture there: no such local file, or neither a path nor ``s3://``.

    What a bucket holds is not asked: that would be a request for each picture.
    """
    place = absolute(file_of(location))
    return not (_IN_A_BUCKET.match(place) if is_uri(place) else os.path.exists(place))


def portable(name: str, folder: str) -> str:
    r"""A path in another program's data, relative to ``folder``, with ``/`` where Windows wrote ``\``.

    A file that is called so comes first, as ``\`` may stand in a name.
    """
    if "\\" not in name or is_uri(name) or os.path.exists(resolve(name, folder)):
        return name
    return name.replace("\\", "/")
