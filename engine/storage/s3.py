"""S3 as a pyarrow filesystem: pyarrow's client transfers the data, botocore resolves the credentials."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow.fs as pafs

from engine.storage.account import CHECKSUMS, Account, current_account
from engine.storage.requester_pays import requester_pays_reader

_CONNECT_TIMEOUT_S = 10.0
_REQUEST_TIMEOUT_S = 30.0
"""Maximum time without data during a request."""


class S3Handler(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Forwards each call to a client with the current credentials.

    The filesystem therefore outlives any credentials, and contains none when pickled.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Handler)

    def get_type_name(self) -> str:
        return "s3"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> Any:
        return [info for path in paths for info in _reader(path).get_file_info([path])]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> Any:
        return _reader(selector.base_dir).get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        client(path).create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        client(path).delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        client(path).delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("all buckets")

    def delete_file(self, path: str) -> None:
        client(path).delete_file(path)

    def move(self, src: str, dest: str) -> None:
        client(src).move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        client(src).copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> Any:
        return _reader(path).open_input_file(path)

    def open_output_stream(self, path: str, metadata: dict[str, str]) -> Any:
        return client(path).open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: dict[str, str]) -> Any:
        raise NotImplementedError("S3 cannot append")


def client(path: str) -> pafs.S3FileSystem:
    """Return a client for ``bucket/key``.

    Raises:
        OSError: As :meth:`engine.storage.account.Account.credentials`, or the bucket's region cannot be looked up.
    """
    account = current_account()
    return _client(account, _region(account, path), account.credentials())


def _reader(path: str) -> Any:
    account = current_account()
    return requester_pays_reader(account, _region(account, path)) if account.requester_pays else client(path)


def _region(account: Account, path: str) -> str:
    return account.region or _region_of(path.partition("/")[0])


@lru_cache(maxsize=1024)
def _region_of(bucket: str) -> str:
    return str(pafs.resolve_s3_region(bucket))


@lru_cache(maxsize=16)
def _client(account: Account, region: str, credentials: Any) -> pafs.S3FileSystem:
    options: dict[str, Any] = {
        "region": region,
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "request_timeout": _REQUEST_TIMEOUT_S,
        # one PUT for a small object; a multipart upload, invisible until completed, for a large one
        "allow_delayed_open": True,
        "force_virtual_addressing": account.virtual_addressing,
    }
    if account.endpoint:
        options["scheme"], _, options["endpoint_override"] = account.endpoint.partition("://")
    if account.ca_bundle:
        options["tls_ca_file_path"] = os.path.expanduser(account.ca_bundle)
    if credentials is None:
        options["anonymous"] = True
    else:
        options["access_key"], options["secret_key"] = credentials.access_key, credentials.secret_key
        options["session_token"] = credentials.token
    with _checksums(account.checksums):
        return pafs.S3FileSystem(**options)


_environment = threading.Lock()


@contextmanager
def _checksums(value: str) -> Iterator[None]:
    """Set the checksum mode in the environment, the only place where a new client reads it."""
    with _environment:
        if not value or os.environ.get(CHECKSUMS):
            yield
            return
        os.environ[CHECKSUMS] = value
        try:
            yield
        finally:
            del os.environ[CHECKSUMS]
