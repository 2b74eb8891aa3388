"""Bytes at a location: a local path, or a URI ``s3://bucket/key``.

A key is never parsed as a URI, so spaces, ``#``, ``?``, ``%`` and any letter may stand in it. What is written appears
whole or not at all.
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
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from engine.errors import LocationError, StorageError, first_line
from engine.storage.retries import plain, retry
from engine.storage.s3 import S3Handler

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_S3 = pafs.PyFileSystem(S3Handler())


def as_location(value: object, thing: str) -> str:
    """A local path or URI that a caller of the library gave, as text.

    Raises:
        LocationError: it is neither text nor a path, or a URI that :class:`pathlib.Path` has changed.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, os.PathLike):
        raise LocationError(f"must be a path or a URI, got {value!r}", thing=thing)
    location: str = os.fspath(value)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", location):
        raise LocationError(f"is a URI in a Path, which drops a slash ('{location}'); give it as text", thing=thing)
    return location


def is_uri(location: str) -> bool:
    """Whether ``location`` starts with a scheme such as ``s3://``."""
    return _SCHEME.match(location) is not None


def absolute(location: str) -> str:
    """A local path made absolute, so that it means the same in every process; a URI as it is."""
    if location.startswith("file://"):
        return unquote(location[len("file://") :])
    return location if is_uri(location) else os.path.abspath(location)


def join(location: str, *names: str) -> str:
    """The location of ``names`` below the folder ``location``."""
    if is_uri(location):
        return "/".join([location.rstrip("/"), *names])
    return os.path.join(location, *names)


def parent(location: str) -> str:
    """The folder that holds ``location``."""
    if is_uri(location):
        return location.rstrip("/").rpartition("/")[0]
    return os.path.dirname(os.path.abspath(location))


def name_of(location: str) -> str:
    """The last part of ``location``."""
    return location.rstrip("/").rpartition("/")[2]


def stem(location: str) -> str:
    """The last part of ``location`` without its ending."""
    return posixpath.splitext(name_of(location))[0]


def ending(location: str) -> str:
    """The ending of ``location`` in small letters with its dot, or nothing."""
    return posixpath.splitext(name_of(location))[1].lower()


def resolve(image: str, folder: str) -> str:
    """Where a path of the manifest lies: a URI and an absolute path as they are, another one inside ``folder``."""
    if is_uri(image) or os.path.isabs(image):
        return absolute(image)
    if not is_uri(folder):
        return os.path.normpath(os.path.join(absolute(folder), image))
    if not {".", ".."} & set(image.split("/")):
        return join(folder, image)
    scheme, _, rest = folder.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}/" + posixpath.normpath(posixpath.join("/", key, image)).lstrip("/")


def open_filesystem(location: str) -> tuple[Any, str]:
    """The pyarrow filesystem of ``location`` and the path inside it.

    Raises:
        LocationError: the scheme is neither ``s3://`` nor ``file://``, the bucket has no name, or holds a password, or
            a part of the key is empty.
    """
    if "\0" in location:
        raise LocationError(f"{location!r} holds a zero byte")
    location = absolute(location)
    scheme = _SCHEME.match(location)
    if scheme is None:
        return pafs.LocalFileSystem(), location
    path = location[scheme.end() :]
    bucket = path.partition("/")[0]
    if "@" in bucket:  # before any sentence that would repeat it
        raise LocationError("holds a password in a URI (s3://...@...); remove it and set the AWS variables")
    if scheme.group(1).lower() not in ("s3", "s3a"):
        raise LocationError(f"'{location}' cannot be opened; give a local path or a URI s3://bucket/key")
    if not bucket:
        raise LocationError(f"'{location}' names no bucket; give s3://bucket/key")
    if "//" in path.rstrip("/"):
        raise LocationError(f"'{location}' has an empty part between two slashes; give s3://bucket/folder/name")
    return _S3, path


def read_bytes(location: str, *, most_bytes: float = math.inf, patience_s: float | None = None) -> bytes:
    """The whole file at ``location``.

    Args:
        location: local path or URI.
        most_bytes: a larger file is an error.
        patience_s: as for :func:`engine.storage.retries.retry`.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry` and :func:`open_filesystem`.
    """
    filesystem, path = open_filesystem(location)

    def read_local() -> bytes:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            # a pipe or a device would block for ever
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
    """Raises OSError (EFBIG) for more than ``most_bytes``."""
    if num_bytes > most_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def write_bytes(location: str, data: bytes, *, patience_s: float | None = None) -> None:
    """Write a whole file; a reader sees all of ``data`` or what was there before.

    Args:
        location: local path, whose folders are made, or URI.
        data: everything.
        patience_s: as for :func:`engine.storage.retries.retry`.

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
    """Copy a file within a store, whole or not at all; on a local disk a link to the same bytes, where it takes one.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(target)
    if isinstance(filesystem, pafs.LocalFileSystem):
        with atomic_file(target) as temporary:
            try:
                os.link(source, temporary)
            except OSError:  # another disk, or one without links
                shutil.copyfile(source, temporary)
        return
    start = open_filesystem(source)[1]
    retry(lambda: filesystem.copy_file(start, path), target)


@contextmanager
def atomic_file(location: str) -> Iterator[str]:
    """A local path to write to, whose file becomes ``location`` when the block ends without an error.

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
                # in one call: an interruption between two would close the file, and so publish what is there of it
                file.write(source.read_buffer())

        retry(upload, location)


@contextmanager
def _written(location: str, *paths: str) -> Iterator[None]:
    """Name ``location`` in a disk's errors about ``paths``, or about no path, such as that of a full disk."""
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
    """Names directly in a folder, each with whether it is a folder itself; nothing when the folder does not exist."""
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
    """Names of the files directly in a folder, sorted; ``[]`` when the folder does not exist.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`; also for a file.
    """
    entries = list_entries(location)
    return sorted(
        name for name, folder in entries.items() if not folder and name.startswith(prefix) and name.endswith(suffix)
    )


def exists(location: str) -> bool:
    """Whether there is a file or folder.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(location)
    kind = retry(lambda: filesystem.get_file_info(path.rstrip("/") or path).type, location)
    return bool(kind != pafs.FileType.NotFound)


def delete_file(location: str) -> None:
    """Delete a file; nothing happens when it does not exist.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(location)
    with suppress(FileNotFoundError):
        retry(lambda: filesystem.delete_file(path), location)


def delete_folder(location: str) -> None:
    """Delete a folder and all in it; nothing happens when it does not exist.

    Raises:
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    filesystem, path = open_filesystem(location)
    delete = shutil.rmtree if isinstance(filesystem, pafs.LocalFileSystem) else filesystem.delete_dir
    with suppress(FileNotFoundError):
        retry(lambda: delete(path.rstrip("/")), location)
