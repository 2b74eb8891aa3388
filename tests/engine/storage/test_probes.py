"""What is asked of a store before and during a run; with faults of the store in test_store_faults.py."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from engine.errors import MissingError, OutputError, StoreUnavailableError
from engine.storage import probes
from engine.storage.filesystem import read_bytes
from tests.engine.storage.conftest import Configure
from tests.s3_server import S3Server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.make_bucket(f"probe-{uuid.uuid4().hex[:12]}")


def test_writable_folder_is_left_empty(tmp_path: Path) -> None:
    probes.check_writable(str(tmp_path / "new"))
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file", r"cannot be written \(File exists\)"),
        ("file/below", r"cannot be written \(Not a directory\)"),
        ("/proc/out", r"cannot be written \(.+\)"),
        ("ftp://bucket/out", r"cannot be opened; give a local path or a URI \(s3://, gs://, .*\)"),
        ("https://host/out", "cannot be written: a web server can be read, not written"),
        ("hf://datasets/a/b", "cannot be written: every file would be a commit; write to a folder or bucket"),
        ("s3://", "names no bucket; give s3://bucket/key"),
        ("s3://bucket//run", "has an empty part between two slashes; .*"),
    ],
)
def test_folder_that_cannot_be_written_is_named_once_with_the_reason(
    tmp_path: Path, location: str, reason: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    if location.startswith("file"):
        location = str(tmp_path / location)
    with pytest.raises(OutputError, match=rf"^out '{location}[^']*' {reason}$") as caught:
        probes.check_writable(location)
    assert "probe" not in str(caught.value)


def test_output_in_the_copy_of_the_working_directory_that_ray_deletes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    for location in ("runs/out", str(copy / "runs")):
        with pytest.raises(OutputError, match="Ray's copy of the working directory, which Ray deletes; give an abs"):
            probes.check_writable(location)
    assert os.listdir(copy) == []
    with pytest.raises(MissingError, match=r"^'data.csv' does not exist in Ray's copy .*; give an absolute path"):
        read_bytes("data.csv")
    probes.check_writable(str(tmp_path / "out"))


@pytest.mark.s3
def test_bucket_that_cannot_be_written_is_the_users_mistake(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probes.check_writable(f"{bucket}/out")
    with pytest.raises(OutputError, match="bucket 'there-is-no-such-bucket' does not exist"):
        probes.check_writable("s3://there-is-no-such-bucket/out")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(OutputError, match="may not be accessed: no AWS credentials were found"):
        probes.check_writable(f"{bucket}/out")


@pytest.mark.parametrize("location", ["/nowhere/a.jpg", "https://host/a.jpg"])
def test_store_that_is_not_asked_is_not_to_blame(location: str) -> None:
    probes.check_store(location)


def test_local_file_has_no_bucket() -> None:
    assert probes.bucket_of("/nowhere/a.jpg") == ""
    probes.check_bucket("/nowhere/a.jpg")


def test_store_whose_region_cannot_be_found_is_to_blame(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("")

    def resolve(bucket: str) -> str:
        raise OSError("When resolving region: no such thing")

    monkeypatch.setattr("pyarrow.fs.resolve_s3_region", resolve)
    with pytest.raises(StoreUnavailableError, match="failed: When resolving region"):
        probes.check_store(f"s3://region-{uuid.uuid4().hex}/key")
