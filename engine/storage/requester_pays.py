"""Reading requester-pays buckets with botocore; pyarrow's client cannot send ``x-amz-request-payer``."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from engine.storage.account import Account, AccountError, safe_message
from engine.storage.ranged_file import open_ranged


@lru_cache(maxsize=4)
def requester_pays_reader(account: Account, region: str) -> RequesterPaysReader:
    """The reader of an account, whose client renews its credentials."""
    return RequesterPaysReader(account.botocore_client(region))


class RequesterPaysReader:
    """The part of a pyarrow filesystem that reads."""

    def __init__(self, client: Any) -> None:
        """Args:
        client: of botocore, for S3.
        """
        self._client = client
        client.meta.events.register("before-sign.s3", _pay)

    def get_file_info(self, wanted: list[str] | pafs.FileSelector) -> list[pafs.FileInfo]:
        """What pyarrow's filesystems return for paths, or for a selector that is not recursive."""
        if isinstance(wanted, pafs.FileSelector):
            assert not wanted.recursive
            return self._listing(wanted)
        return [self._info(path) for path in wanted]

    def _info(self, path: str) -> pafs.FileInfo:
        bucket, _, key = path.partition("/")
        errors = self._client.exceptions
        with _pyarrow_errors(path):
            if key:
                try:
                    head = self._client.head_object(Bucket=bucket, Key=key)
                    return pafs.FileInfo(path, pafs.FileType.File, size=head["ContentLength"])
                except errors.ClientError as error:
                    if _status(error) != 404:
                        raise
            try:
                found = self._client.list_objects_v2(Bucket=bucket, Prefix=_prefix(key), MaxKeys=1)
            except errors.NoSuchBucket:
                return pafs.FileInfo(path, pafs.FileType.NotFound)
        is_folder = not key or found["KeyCount"] > 0
        return pafs.FileInfo(path, pafs.FileType.Directory if is_folder else pafs.FileType.NotFound)

    def _listing(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        bucket, _, key = selector.base_dir.partition("/")
        pages = self._client.get_paginator("list_objects_v2")
        found = []
        with _pyarrow_errors(selector.base_dir):
            for page in pages.paginate(Bucket=bucket, Prefix=_prefix(key), Delimiter="/"):
                for folder in page.get("CommonPrefixes", ()):
                    found.append(pafs.FileInfo(f"{bucket}/{folder['Prefix'].rstrip('/')}", pafs.FileType.Directory))
                for file in page.get("Contents", ()):
                    if file["Key"] != _prefix(key):  # the marker of an empty folder
                        found.append(pafs.FileInfo(f"{bucket}/{file['Key']}", pafs.FileType.File, size=file["Size"]))
        if not found and not selector.allow_not_found:
            raise _missing(selector.base_dir)
        return found

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open an object for random access."""
        info = self._info(path)
        if info.type != pafs.FileType.File:
            raise _missing(path)
        bucket, _, key = path.partition("/")

        def fetch(start: int, end: int) -> bytes:
            with _pyarrow_errors(path):
                found = self._client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")
                data: bytes = found["Body"].read()
            return data

        return open_ranged(info.size, fetch)


def _pay(request: Any, **_: Any) -> None:
    request.headers["x-amz-request-payer"] = "requester"


def _prefix(key: str) -> str:
    return f"{key}/" if key else ""


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


@contextmanager
def _pyarrow_errors(path: str) -> Iterator[None]:
    """Raise botocore's errors as those of pyarrow's client."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        if _status(error) == 404:
            raise _missing(path) from error
        raise OSError(f"AWS Error {error.response['Error']['Code']} (HTTP status {_status(error)})") from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise ConnectionError(safe_message(error)) from error
    except exceptions.BotoCoreError as error:
        raise AccountError(safe_message(error)) from error
