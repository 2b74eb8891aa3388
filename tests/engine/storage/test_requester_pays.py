"""Requester-pays buckets: a real server behind a proxy that refuses requests without the header."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import DeniedError, MissingError, StorageError
from engine.storage import filesystem
from tests.s3_faults import faulty
from tests.s3_server import S3Server

pytestmark = pytest.mark.s3
LARGE = os.urandom(3_000_000)


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With a few objects; from here on a requester-pays bucket."""
    uri = s3.make_bucket(f"pays-{uuid.uuid4().hex[:12]}")
    for name, data in {"a b+%.jpg": b"x", "large": LARGE, "empty": b"", "folder/file": b"y"}.items():
        filesystem.write_bytes(f"{uri}/{name}", data)
    opened, path = filesystem.open_filesystem(f"{uri}/table.parquet")
    pq.write_table(pa.table({"row": range(100_000)}), path, row_group_size=10_000, filesystem=opened)
    with faulty(s3.endpoint, lambda method, path: "requester pays") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield uri


def test_requester_pays_bucket_is_read_if_the_requester_accepts_the_charges(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeniedError, match="may not be accessed"):
        filesystem.read_bytes(f"{bucket}/large")
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    for name, data in {"a b+%.jpg": b"x", "large": LARGE, "empty": b"", "folder/file": b"y"}.items():
        assert filesystem.read_bytes(f"{bucket}/{name}") == data
    names = {"a b+%.jpg": False, "empty": False, "folder": True, "large": False, "table.parquet": False}
    assert filesystem.list_entries(bucket) == names
    assert filesystem.list_entries(f"{bucket}/nothing") == {}
    for location, there in ((bucket, True), (f"{bucket}/folder", True), (f"{bucket}/nothing", False)):
        assert filesystem.exists(location) is there
    opened, path = filesystem.open_filesystem(f"{bucket}/table.parquet")
    with opened.open_input_file(path) as file:
        assert pq.ParquetFile(file).read_row_group(7)["row"].to_pylist() == list(range(70_000, 80_000))
        assert file.read_at(4, 0) == b"PAR1"


def test_errors_are_those_of_every_store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    assert not filesystem.exists("s3://there-is-no-such-bucket")
    for location in (f"{bucket}/nothing", "s3://there-is-no-such-bucket/key"):
        with pytest.raises(MissingError, match="does not exist"):
            filesystem.read_bytes(location)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(DeniedError, match="may not be accessed with these credentials"):
        filesystem.read_bytes(f"{bucket}/large")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StorageError, match="cannot be accessed: Unable to locate credentials"):
        filesystem.read_bytes(f"{bucket}/large")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(StorageError, match="failed: Could not connect to the endpoint URL"):
        filesystem.read_bytes(f"{bucket}/large", patience_s=0)
