"""Probe a store: is it writable, does the bucket exist, is it the cause of an error."""

from __future__ import annotations

import uuid

import pyarrow.fs as pafs

from engine.errors import DeniedError, LocationError, MissingError, OutputError, StorageError, StoreUnavailableError
from engine.storage.filesystem import delete_file, exists, join, open_filesystem, write_bytes
from engine.storage.fsspec_store import STORES
from engine.storage.retries import in_ray_copy, is_refused_account, retry

_WITHOUT_BUCKETS = ("hf", "http", "https")
_PROBE_S = 20.0
"""How long to retry a store before it counts as unavailable."""


def check_writable(location: str) -> None:
    """Write and delete a small file in a folder, which is created if it does not exist.

    Raises:
        OutputError: The folder is not writable, or is in Ray's temporary copy of the working directory.
    """
    if in_ray_copy(location):
        raise OutputError(
            f"'{location}' lies in Ray's copy of the working directory, which Ray deletes; give an absolute path that "
            "all nodes share, or a URI",
            thing="out",
        )
    probe = join(location, f".tag2mask-probe-{uuid.uuid4().hex}.tmp")  # an ending that a later claim ignores
    try:
        store = STORES.get(location.partition("://")[0].lower())
        if store is not None and store.read_only:
            raise OutputError(f"'{location}' cannot be written: {store.read_only}", thing="out")
        bucket = bucket_of(location)
        if bucket and not exists(bucket):
            # some stores create missing buckets, which would hide a typo
            name = bucket.rpartition("/")[2]
            raise OutputError(f"'{location}' cannot be written: bucket '{name}' does not exist", thing="out")
        write_bytes(probe, b"probe")
        delete_file(probe)
    except StorageError as error:
        raise OutputError(error.reason.replace(probe, location), thing="out") from error


def check_bucket(location: str) -> None:
    """Check that the bucket of a missing file still exists; does nothing for local files.

    Raises:
        StoreUnavailableError: The bucket does not exist.
        StorageError: as :func:`engine.storage.retries.retry`.
    """
    bucket = bucket_of(location)
    if bucket and not exists(bucket):
        raise StoreUnavailableError(f"bucket '{bucket}' no longer exists")


def bucket_of(location: str) -> str:
    """Return the bucket of a URI, such as ``s3://bucket``; empty for a local path or a store without buckets."""
    filesystem, path = open_filesystem(location)
    scheme = location.partition("://")[0]
    if isinstance(filesystem, pafs.LocalFileSystem) or scheme.lower() in _WITHOUT_BUCKETS:
        return ""
    return f"{scheme}://{path.partition('/')[0]}"


def check_store(location: str) -> None:
    """Check whether a file could not be read because its whole store is unavailable.

    Does nothing for local files, unsupported URIs, and stores without buckets, such as ``https://``.

    Raises:
        StoreUnavailableError: The store does not respond or rejects the credentials, so no file in it can be read.
    """
    try:
        bucket = bucket_of(location)
    except LocationError:
        return
    except StorageError as error:
        raise StoreUnavailableError(str(error)) from error
    if not bucket:
        return
    # a listing, because errors for a single file give no reason
    filesystem, path = open_filesystem(f"{bucket}/.tag2mask-probe-{uuid.uuid4().hex}")
    nothing = pafs.FileSelector(path, allow_not_found=True)
    try:
        retry(lambda: filesystem.get_file_info(nothing), bucket, patience_s=_PROBE_S)
    except MissingError:
        return
    except DeniedError as error:
        if is_refused_account(error):
            raise StoreUnavailableError(str(error)) from error
    except StorageError as error:
        raise StoreUnavailableError(str(error)) from error
