"""Read and write files at a location: a local path or a URI such as ``s3://bucket/key``.

Keys are never parsed as URIs, so they may contain spaces, ``#``, ``?``, ``%`` and any other character. Writes are
atomic.
"""

from __future__ import annotations

import errno
import math
import os
import posixpath
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from engine.errors import LocationError, StorageError, first_line
from engine.storage.fsspec_store import STORES, fsspec_store
from engine.storage.retries import plain, retry
from engine.storage.s3 import S3Handler

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_S3_SCHEMES = ("s3", "s3a")
_S3 = pafs.PyFileSystem(S3Handler())


def as_location(value: object, thing: str) -> str:
    """Convert a local path or URI from a caller of the library to text.

    Raises:
        LocationError: The value is neither text nor a path, or a URI in a :class:`pathlib.Path`, which alters it.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, os.PathLike):
        raise LocationError(f"must be a path or a URI, got {value!r}", thing=thing)
    location: str = os.fspath(value)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", location):
        raise LocationError(f"is a URI in a Path, which drops a slash ('{location}'); pass it as a str", thing=thing)
    return location


def is_uri(location: str) -> bool:
    """Whether ``location`` starts with a scheme such as ``s3://``."""
    return _SCHEME.match(location) is not None


def _is_web(location: str) -> bool:
    return location.lower().startswith(("http://", "https://"))


def absolute(location: str) -> str:
    """Make a local path absolute, so that it is valid in every process; a URI is returned unchanged."""
    if location.startswith("file://"):
        return unquote(location[len("file://") :])
    return location if is_uri(location) else os.path.abspath(location)


def join(location: str, *names: str) -> str:
    """Join ``names`` to the folder ``location``."""
    if is_uri(location):
        if _is_web(location):  # a URL is encoded, names are not
            names = tuple(map(quote, names))
        return "/".join([location.rstrip("/"), *names])
    return os.path.join(location, *names)


def parent(location: str) -> str:
    """Return the parent folder of ``location``."""
    if is_uri(location):
        return location.rstrip("/").rpartition("/")[0]
    return os.path.dirname(os.path.abspath(location))


def name_of(location: str) -> str:
    """Return the last part of ``location``."""
    return location.rstrip("/").rpartition("/")[2]


def stem(location: str) -> str:
    """Return the last part of ``location`` without its ending."""
    return posixpath.splitext(name_of(location))[0]


def ending(location: str) -> str:
    """Return the ending of ``location`` in lowercase, with its dot; empty if there is none."""
    return posixpath.splitext(name_of(location))[1].lower()


def resolve(image: str, folder: str) -> str:
    """Resolve a path of a manifest: URIs and absolute paths are kept, others are relative to ``folder``."""
    if is_uri(image) or os.path.isabs(image):
        return absolute(image)
    if not is_uri(folder):
        return os.path.normpath(os.path.join(absolute(folder), image))
    if not {".", ".."} & set(image.split("/")):
        return join(folder, image)
    scheme, _, rest = folder.partition("://")
    bucket, _, key = rest.partition("/")
    if _is_web(folder):
        image = quote(image)
    return f"{scheme}://{bucket}/" + posixpath.normpath(posixpath.join("/", key, image)).lstrip("/")


def open_filesystem(location: str) -> tuple[Any, str]:
    """Return the pyarrow filesystem of ``location`` and the path within it.

    Raises:
        LocationError: The scheme is unknown or its package is not installed, the bucket is missing or contains a
            password, or a part of the key is empty.
    """
    if "\0" in location:
        raise LocationError(f"{location!r} contains a null byte")
    location = absolute(location)
    scheme = _SCHEME.match(location)
    if scheme is None:
        return pafs.LocalFileSystem(), location
    path = location[scheme.end() :]
    bucket = path.partition("/")[0]
    kind = scheme.group(1).lower()
    if "@" in bucket:  # before any message that would repeat it
        variables = "AWS" if kind in _S3_SCHEMES else "store's"
        raise LocationError(f"has a password in a URI ({kind}://...@...); remove it and set the {variables} variables")
    if kind not in (*_S3_SCHEMES, *STORES):
        known = ", ".join(f"{name}://" for name in ("s3", *STORES))
        raise LocationError(f"'{location}' cannot be opened; give a local path or a URI ({known})")
    if not bucket:
        raise LocationError(f"'{location}' names no bucket; give {kind}://bucket/key")
    if "//" in path.rstrip("/") and not _is_web(location):
        raise LocationError(f"'{location}' has an empty part between two slashes; give {kind}://bucket/folder/name")
    return (_S3 if kind in _S3_SCHEMES else fsspec_store(kind)), path


def read_bytes(location: str, *, most_bytes: float = math.inf, patience_s: float | None = None) -> bytes:
    """Read a whole file.

    Args:
        location: Local path or URI.
        most_bytes: Maximum size; a larger file is an error.
        patience_s: As for :func:`engine.storage.retries.retry`.

    Raises:
        StorageError: As :func:`engine.storage.retries.retry` and :func:`open_filesystem`.
    """
    filesystem, path = open_filesystem(location)

    def read_local() -> bytes:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            # a pipe or a device could block forever
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        check_size(found.st_size, most_bytes)
        with open(path, "rb") as file:
            return file.read()

    def read_remote() -> bytes:
        if "/" not in path.rstrip("/") or path.endswith("/"):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        with filesystem.open_input_file(path) as file:
            size = file.size()
            check_size(size, most_bytes)
            data: bytes = file.read()
            if len(data) != size:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET), path)
            return data

    local = isinstance(filesystem, pafs.LocalFileSystem)
    return retry(read_local if local else read_remote, location, patience_s=patience_s)


def check_size(num_bytes: int, most_bytes: float) -> None:
    """Raise OSError (EFBIG) for more than ``most_bytes``."""
    if num_bytes > most_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def write_bytes(location: str, data: bytes, *, patience_s: float | None = None) -> None:
    """Write a whole file atomically.

    Args:
        location: Local path, whose folders are created, or URI.
        data: The content.
        patience_s: As for :func:`engine.storage.retries.retry`.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(location)
    if isinstance(filesystem, pafs.LocalFileSystem):
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            file.write(data)
        return

    def put() -> None:
        with filesystem.open_output_stream(path, buffer_size=None) as file:
            file.write(data)

    retry(put, location, patience_s=patience_s)


def copy_file(source: str, target: str) -> None:
    """Copy a file atomically within a store; on a local disk, as a hard link if possible.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(target)
    if isinstance(filesystem, pafs.LocalFileSystem):
        with atomic_file(target) as temporary:
            try:
                os.link(source, temporary)
            except OSError:  # another disk, or no support for links
                shutil.copyfile(source, temporary)
        return
    start = open_filesystem(source)[1]
    retry(lambda: filesystem.copy_file(start, path), target)


@contextmanager
def atomic_file(location: str) -> Iterator[str]:
    """Yield a local path to write to; the file is moved to ``location`` if the block ends without an error.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(location)
    if isinstance(filesystem, pafs.LocalFileSystem):
        folder, name = os.path.split(path)
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            with _written(location, folder, temporary):
                os.makedirs(folder, exist_ok=True)
                yield temporary
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(temporary)
        return
    with tempfile.TemporaryDirectory() as scratch:
        temporary = os.path.join(scratch, "file")
        with _written(location, temporary):
            yield temporary

        def upload() -> None:
            with pa.memory_map(temporary) as source, filesystem.open_output_stream(path, buffer_size=None) as file:
                # in one call: an interruption between two would close, and thereby publish, a partial file
                file.write(source.read_buffer())

        retry(upload, location)


@contextmanager
def _written(location: str, *paths: str) -> Iterator[None]:
    """Name ``location`` in OSErrors about ``paths`` or without a path, such as that of a full disk."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.filename not in (None, *paths):
            raise
        reason = os.strerror(error.errno) if error.errno else first_line(error)
        raise StorageError(f"'{location}' cannot be written ({reason})") from error


def list_entries(location: str) -> dict[str, bool]:
    """List a folder as names with whether each is a folder; empty if the folder does not exist."""
    filesystem, path = open_filesystem(location)
    if isinstance(filesystem, pafs.LocalFileSystem):
        try:
            with os.scandir(path) as entries:
                return {entry.name: entry.is_dir() for entry in entries}
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise StorageError(f"'{location}' is a file, not a folder") from error
        except OSError as error:
            raise plain(error, location) from error

    def listing() -> dict[str, bool]:
        infos = filesystem.get_file_info(pafs.FileSelector(path.rstrip("/"), allow_not_found=True))
        return {info.base_name: info.type == pafs.FileType.Directory for info in infos}

    return retry(listing, location)


def list_names(location: str, *, prefix: str = "", suffix: str = "") -> list[str]:
    """List the names of the files directly in a folder, sorted; empty if the folder does not exist.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`; also for a file.
    """
    entries = list_entries(location)
    return sorted(
        name for name, folder in entries.items() if not folder and name.startswith(prefix) and name.endswith(suffix)
    )


def exists(location: str) -> bool:
    """Whether a file or folder exists.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(location)
    kind = retry(lambda: filesystem.get_file_info(path.rstrip("/") or path).type, location)
    return bool(kind != pafs.FileType.NotFound)


def delete_file(location: str) -> None:
    """Delete a file, if it exists.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(location)
    with suppress(FileNotFoundError):
        retry(lambda: filesystem.delete_file(path), location)


def delete_folder(location: str) -> None:
    """Delete a folder and its content, if it exists.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(location)
    delete = shutil.rmtree if isinstance(filesystem, pafs.LocalFileSystem) else filesystem.delete_dir
    with suppress(FileNotFoundError):
        retry(lambda: delete(path.rstrip("/")), location)
