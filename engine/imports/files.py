"""List the files of a data set and recognize images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pyarrow.fs import LocalFileSystem

from engine.errors import StorageError
from engine.imaging.decoding import is_picture
from engine.imports.remarks import Remarks
from engine.storage.filesystem import absolute, ending, is_uri, join, list_entries, open_filesystem, resolve
from engine.storage.fsspec_store import STORES
from engine.storage.pictures import file_of
from engine.storage.retries import retry

_PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".tga")
"""Endings accepted without reading the file; a damaged image becomes an error row later."""
_MACOS = ("__MACOSX", ".DS_Store")
_IN_A_STORE = re.compile(rf"(s3a?|{'|'.join(STORES)})://", re.IGNORECASE)


def is_picture_file(location: str) -> bool:
    """Whether a file is an image, judged by a common ending, else by its content.

    Raises:
        StorageError: The file cannot be read.
    """
    if ending(location) in _PICTURE_ENDINGS:
        return True

    def sniff() -> bool:
        opened, path = open_filesystem(location)
        if isinstance(opened, LocalFileSystem) and not os.path.isfile(path):  # a pipe or a broken link
            return False
        with opened.open_input_file(path) as file:
            return is_picture(file)

    return retry(sniff, location)


def entries(folder: str, path: str, remarks: Remarks) -> tuple[list[str], list[str]]:
    """List the files and the folders directly in the subfolder ``path``, sorted, as paths relative to ``folder``.

    Hidden folders and the metadata files of macOS are left out.
    """
    files: list[str] = []
    folders: list[str] = []
    for name, is_folder in sorted(list_entries(join(folder, path) if path else folder).items()):
        inner = f"{path}/{name}" if path else name
        if name in _MACOS or name.startswith("._"):
            remarks.add("files of macOS (skipped)", inner)
        elif is_folder and name.startswith("."):
            remarks.add("hidden folders (skipped)", inner)
        else:
            (folders if is_folder else files).append(inner)
    return files, folders


def files_below(folder: str, path: str, remarks: Remarks, *, above: frozenset[str] | None = None) -> Iterator[str]:
    """List the files at any depth in the subfolder ``path``, as paths relative to ``folder``.

    Args:
        above: Real paths of the parent folders, to detect cycles; by default that of ``folder``.

    Raises:
        StorageError: A folder cannot be read, or links to one of its parents.
    """
    place = join(folder, path) if path else folder
    real = _real(place)
    if above is None:
        above = frozenset({_real(folder)} if path else ())
    if real in above:
        raise StorageError(f"'{place}' links to one of its parent folders; remove the link")
    files, folders = entries(folder, path, remarks)
    yield from files
    for inner in folders:
        yield from files_below(folder, inner, remarks, above=above | {real})


def _real(folder: str) -> str:
    """Resolve symbolic links in a local path; URIs have none."""
    place = absolute(folder)
    return place if is_uri(place) else os.path.realpath(place)


def is_missing(location: str) -> bool:
    """Whether a local file does not exist, or a URI is of no known store.

    Objects in a bucket are not checked, which would take a request for each image.
    """
    place = absolute(file_of(location))
    return not (_IN_A_STORE.match(place) if is_uri(place) else os.path.exists(place))


def portable(name: str, folder: str) -> str:
    r"""Replace ``\`` of a Windows path by ``/``, unless a file of that exact name exists in ``folder``."""
    if "\\" not in name or is_uri(name) or os.path.exists(resolve(name, folder)):
        return name
    return name.replace("\\", "/")
