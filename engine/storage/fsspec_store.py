"""Google, Azure, the Hugging Face hub and web servers as pyarrow filesystems, through their fsspec implementations.

Each implementation reads its store's usual variables and files. A pickled filesystem holds no credentials.
"""

from __future__ import annotations

import errno
import importlib.util
import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from engine.errors import LocationError, first_line
from engine.storage.account import AccountError
from engine.storage.ranged_file import open_ranged

_VARIABLES = ("AZURE_", "GOOGLE_", "HF_", "STORAGE_EMULATOR_HOST")
_CLIENTS = ("aiohttp", "azure", "google", "httpcore", "httpcore2", "httpx", "httpx2", "requests")
"""Packages whose errors without an HTTP status are failures of the connection."""
_AZURE_ACCOUNT = "set AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING"


@dataclass(frozen=True, slots=True)
class Store:
    """A kind of store."""

    protocol: str
    """Its name in fsspec."""
    module: str
    """The package that implements it."""
    extra: str
    """Our extra that installs the package."""
    read_only: str = ""
    """Why it cannot be written; empty if it can."""


_AZURE = Store("az", "adlfs", "azure")
_WEB = Store("http", "aiohttp", "", "a web server can be read, not written")
STORES = {
    "gs": Store("gs", "gcsfs", "gcs"),
    "az": _AZURE,
    "abfs": _AZURE,
    "hf": Store("hf", "huggingface_hub", "hf", "every file would be a commit; write to a folder or bucket"),
    "http": _WEB,
    "https": _WEB,
}
"""By scheme of a URI."""


def fsspec_store(scheme: str) -> pafs.PyFileSystem:
    """Return the filesystem of a scheme in :data:`STORES`.

    Raises:
        LocationError: The package that implements it is not installed.
    """
    store = STORES[scheme]
    if importlib.util.find_spec(store.module) is None:
        raise LocationError(f"{scheme}:// needs {store.module}: pip install 'tag2mask[{store.extra}]'")
    return pafs.PyFileSystem(FsspecHandler(scheme))


class FsspecHandler(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Reads and writes objects whole or by range; names are never patterns, and nothing is cached."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._prefix = f"{scheme}://" if STORES[scheme] is _WEB else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FsspecHandler) and other._scheme == self._scheme

    def get_type_name(self) -> str:
        return self._scheme

    def normalize_path(self, path: str) -> str:
        return path

    @contextmanager
    def _opened(self, path: str) -> Iterator[Any]:
        """The fsspec filesystem, whose errors are raised as OSErrors."""
        try:
            yield _filesystem(STORES[self._scheme].protocol, os.getpid(), _variables())
        except Exception as error:
            raise _os_error(error, path) from error

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> pafs.FileInfo:
        try:
            with self._opened(path) as store:
                return _file_info(path, store.info(self._prefix + path))
        except FileNotFoundError:
            return pafs.FileInfo(path, pafs.FileType.NotFound)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        folder = selector.base_dir
        if self._prefix:
            raise LocationError(f"'{self._prefix}{folder}' cannot be listed; name the files")
        try:
            with self._opened(folder) as store:
                if selector.recursive:
                    found = store.find(folder, withdirs=True, detail=True).values()
                else:
                    found = store.ls(folder, detail=True)
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        named = ((info["name"].rstrip("/"), info) for info in found)
        return [_file_info(name, info) for name, info in named if name != folder]

    def create_dir(self, path: str, recursive: bool) -> None:
        """Folders are parts of names."""

    def delete_dir(self, path: str) -> None:
        with self._opened(path) as store:
            for name in store.find(path):
                store.rm_file(name)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.delete_dir(path)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("all buckets")

    def delete_file(self, path: str) -> None:
        with self._opened(path) as store:
            store.rm_file(path)

    def move(self, src: str, dest: str) -> None:
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        with self._opened(src) as store:  # Azure's own copy may return before it is complete
            data = store.cat_file(src)
        self._put(dest, data)

    def open_input_stream(self, path: str) -> Any:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> Any:
        url = self._prefix + path
        with self._opened(path) as store:
            info = store.info(url)
            if info["type"] != "file":
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            size = info["size"]
            if size is None:
                return pa.BufferReader(store.cat_file(url))

        def fetch(start: int, end: int) -> bytes:
            with self._opened(path) as store:
                data: bytes = store.cat_file(url, start=start, end=end)
            if len(data) == size > end - start:  # a server without ranges sends the whole file
                return data[start:end]
            if len(data) != end - start:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET), path)
            return data

        return open_ranged(size, fetch)

    def open_output_stream(self, path: str, metadata: dict[str, str]) -> Any:
        if reason := STORES[self._scheme].read_only:
            raise LocationError(f"'{self._scheme}://{path}' cannot be written: {reason}")
        return pa.PythonFile(_Upload(self, path), mode="w")

    def open_append_stream(self, path: str, metadata: dict[str, str]) -> Any:
        raise NotImplementedError("objects cannot be appended to")

    def _put(self, path: str, data: bytes) -> None:
        with self._opened(path) as store:
            store.pipe_file(path, data)


class _Upload(io.RawIOBase):
    """Collects an object and puts it whole when closed; one that is never closed is dropped."""

    def __init__(self, handler: FsspecHandler, path: str) -> None:
        self._handler, self._path, self._parts = handler, path, list[bytes]()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._handler._put(self._path, b"".join(self._parts))

    def __del__(self) -> None:
        pass


def _variables() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(_VARIABLES)))


@lru_cache(maxsize=8)
def _filesystem(protocol: str, process: int, variables: tuple[tuple[str, str], ...]) -> Any:
    import fsspec  # with its implementations it takes a second, so only users of these stores load it

    for name in ("azure", "gcsfs"):  # their tracebacks and requests; what fails is raised here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol == "gs" and "STORAGE_EMULATOR_HOST" in os.environ:
        options["token"] = "anon"
    if protocol == "gs":
        # not its subclass that fsspec registers: that asks each bucket for its kind, which needs a right
        from gcsfs.core import GCSFileSystem as Client
    else:
        Client = fsspec.get_filesystem_class(protocol)
    try:
        store: Any = Client(**options)
    except ValueError as error:
        raise AccountError(_AZURE_ACCOUNT if protocol == "az" else _safe(error)) from error
    if protocol == "az":  # our own retries suffice; these take a minute to give up
        store.service_client._config.retry_policy.total_retries = 0
    return store


def _file_info(path: str, info: dict[str, Any]) -> pafs.FileInfo:
    if info["type"] == "directory":
        return pafs.FileInfo(path, pafs.FileType.Directory)
    return pafs.FileInfo(path, pafs.FileType.File, size=info["size"])


def _os_error(error: Exception, path: str) -> OSError:
    """Convert a client's error to one that :mod:`engine.storage.retries` understands."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    status = 403 if str(cause).startswith("Forbidden: ") else _status(cause)
    if status in (404, 410):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if status:
        return OSError(f"HTTP status {status}")
    package = type(cause).__module__.partition(".")[0]
    if package in _CLIENTS:
        refused = "Credential" in type(cause).__name__ or "Authentication" in type(cause).__name__
        return (AccountError if refused else ConnectionError)(_safe(cause))
    return error if isinstance(error, OSError) else OSError(_safe(error))


def _status(error: BaseException) -> int:
    places = [
        (error, "status_code"),
        (error, "status"),
        (error, "code"),
        (getattr(error, "response", None), "status_code"),
    ]
    values = (str(getattr(place, name, "")) for place, name in places)
    return next((int(value) for value in values if value.isdecimal()), 0)


def _safe(error: BaseException) -> str:
    """The first line of a message, without queries of URLs, which may hold signatures."""
    return re.sub(r"\?\S*", "", first_line(error))
