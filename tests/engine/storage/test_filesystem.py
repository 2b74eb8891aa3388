"""engine/storage/filesystem.py against the local disk and a real S3 server."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.errors import DeniedError, LocationError, StorageError
from engine.storage import filesystem
from tests.s3_faults import faulty
from tests.s3_server import S3Server

KEYS = ["plain.jpg", "a b.jpg", "a#b.jpg", "a?b=c.jpg", "100%20.jpg", "é ü 猫.jpg", "deep/a+b/c&d.jpg", "a:b@c.jpg"]


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.make_bucket(f"fs-{uuid.uuid4().hex[:12]}")


@pytest.mark.parametrize("key", KEYS)
def test_local_file_of_any_name_comes_back_as_written(tmp_path: Path, key: str) -> None:
    location = filesystem.join(str(tmp_path), key)
    filesystem.write_bytes(location, b"some bytes")
    assert filesystem.read_bytes(location) == b"some bytes"
    assert filesystem.list_names(filesystem.parent(location)) == [filesystem.name_of(location)]


@pytest.mark.s3
@pytest.mark.parametrize("key", KEYS)
def test_object_of_any_key_comes_back_as_written(bucket: str, key: str) -> None:
    location = filesystem.join(bucket, "folder", key)
    filesystem.write_bytes(location, b"some bytes")
    assert filesystem.exists(location)
    assert filesystem.read_bytes(location) == b"some bytes"
    assert filesystem.list_names(filesystem.parent(location)) == [filesystem.name_of(location)]
    filesystem.delete_file(location)
    assert not filesystem.exists(location)


@pytest.mark.s3
@pytest.mark.parametrize("num_bytes", [0, 1, 12_000_000])
def test_object_of_any_size_comes_back_as_written(bucket: str, num_bytes: int) -> None:
    data = os.urandom(num_bytes)
    filesystem.write_bytes(f"{bucket}/object", data)
    assert filesystem.read_bytes(f"{bucket}/object") == data


def test_permanent_errors_are_raised_at_once_with_their_own_type(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"'.*/nothing' does not exist"):
        filesystem.read_bytes(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        filesystem.read_bytes(str(tmp_path / "file" / "below"))
    with pytest.raises(IsADirectoryError, match="is a folder"):
        filesystem.read_bytes(str(tmp_path))
    with pytest.raises(IsADirectoryError, match="a device"):
        filesystem.read_bytes("/dev/zero")
    with pytest.raises(OSError, match=r"give a local path or a URI \(s3://, gs://"):
        filesystem.read_bytes("ftp://127.0.0.1/a.jpg")
    (tmp_path / "file").write_bytes(b"1234")
    assert filesystem.read_bytes(str(tmp_path / "file"), most_bytes=4) == b"1234"
    with pytest.raises(OSError, match=r"file' failed: File too large"):
        filesystem.read_bytes(str(tmp_path / "file"), most_bytes=3)
    assert time.monotonic() - start < 0.2


@pytest.mark.s3
def test_permanent_s3_errors_are_raised_at_once_with_their_own_type(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem.write_bytes(f"{bucket}/object", b"x")
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match="nothing' does not exist"):
        filesystem.read_bytes(f"{bucket}/nothing")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        filesystem.read_bytes("s3://there-is-no-such-bucket/object")
    with pytest.raises(IsADirectoryError):
        filesystem.read_bytes(bucket)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PermissionError, match="may not be accessed with these credentials"):
        filesystem.read_bytes(f"{bucket}/object")
    with pytest.raises(PermissionError):
        filesystem.list_names(bucket)
    assert time.monotonic() - start < 2


@pytest.mark.s3
def test_object_of_which_a_part_is_refused_is_not_there_at_all(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(s3.endpoint, lambda method, path: "forbidden" if "partNumber=2" in path else "") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        with pytest.raises(PermissionError):
            filesystem.write_bytes(f"{bucket}/bytes", bytes(12_000_000))
        with (
            pytest.raises(PermissionError),
            filesystem.atomic_file(f"{bucket}/file") as temporary,
            open(temporary, "wb") as file,
        ):
            file.write(bytes(12_000_000))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert filesystem.list_names(bucket) == []


@pytest.mark.s3
def test_small_object_is_one_request(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def rule(method: str, path: str) -> str:
        seen.append(method)
        return ""

    with faulty(s3.endpoint, rule) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        filesystem.write_bytes(f"{bucket}/small", b"some bytes")
    assert seen == ["PUT"]


@pytest.mark.s3
def test_file_of_any_size_is_copied_to_a_bucket(bucket: str) -> None:
    for num_bytes in (0, 1, 12_000_000):
        data = os.urandom(num_bytes)
        with filesystem.atomic_file(f"{bucket}/file") as temporary:
            Path(temporary).write_bytes(data)
        assert filesystem.read_bytes(f"{bucket}/file") == data


@pytest.mark.s3
def test_endpoint_that_nobody_listens_on_is_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        filesystem.read_bytes(f"{bucket}/object", patience_s=0)


def test_reader_never_sees_a_part_of_a_file_that_is_replaced(tmp_path: Path) -> None:
    location = str(tmp_path / "file")
    versions = [bytes([letter]) * 2_000_000 for letter in b"ab"]
    filesystem.write_bytes(location, versions[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for data in versions:
                filesystem.write_bytes(location, data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(filesystem.read_bytes(location) in versions for _ in range(50))
    finally:
        stop.set()
        writer.join()
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("scheme", ["local", pytest.param("s3", marks=pytest.mark.s3)])
def test_file_whose_writer_fails_never_appears(scheme: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = str(tmp_path / "out") if scheme == "local" else request.getfixturevalue("bucket")

    def write_and_fail() -> None:
        with filesystem.atomic_file(filesystem.join(folder, "file")) as temporary:
            Path(temporary).write_bytes(b"half")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_and_fail()
    assert filesystem.list_entries(folder) == {}


def test_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    filesystem.write_bytes(str(tmp_path / "file"), b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_listing_gives_files_only_filtered_and_sorted(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "a.json", "folder/a.txt"):
        filesystem.write_bytes(str(tmp_path / name), b"")
    assert filesystem.list_names(str(tmp_path)) == ["a.json", "a.txt", "b.txt"]
    assert filesystem.list_names(str(tmp_path), prefix="a", suffix=".txt") == ["a.txt"]
    assert filesystem.list_names(str(tmp_path / "nothing")) == []
    with pytest.raises(StorageError, match="is a file, not a folder"):
        filesystem.list_names(str(tmp_path / "a.txt"))


@pytest.mark.s3
def test_listing_a_bucket_gives_files_only_filtered_and_sorted(bucket: str) -> None:
    for name in ("b.txt", "a.txt", "a.json", "folder/a.txt"):
        filesystem.write_bytes(f"{bucket}/{name}", b"x")
    assert filesystem.list_names(bucket) == ["a.json", "a.txt", "b.txt"]
    assert filesystem.list_names(bucket, prefix="a", suffix=".txt") == ["a.txt"]
    assert filesystem.list_names(f"{bucket}/nothing") == []
    filesystem.delete_folder(f"{bucket}/folder")
    filesystem.delete_folder(f"{bucket}/nothing")
    assert not filesystem.exists(f"{bucket}/folder/a.txt")
    assert filesystem.exists(f"{bucket}/a.txt")


@pytest.mark.parametrize(
    ("image", "folder", "expected"),
    [
        ("a/b.jpg", "/data", "/data/a/b.jpg"),
        ("../a b#.jpg", "/data/set", "/data/a b#.jpg"),
        ("/abs/a.jpg", "/data", "/abs/a.jpg"),
        ("/abs/a.jpg", "s3://bucket/set", "/abs/a.jpg"),
        ("s3://other/a%20b.jpg", "/data", "s3://other/a%20b.jpg"),
        ("file:///a%20b.jpg", "/data", "/a b.jpg"),
        ("a/b.jpg", "s3://bucket", "s3://bucket/a/b.jpg"),
        ("./a/../b.jpg", "s3://bucket/set", "s3://bucket/set/b.jpg"),
        ("../../../b.jpg", "s3://bucket/set", "s3://bucket/b.jpg"),
    ],
)
def test_image_of_a_manifest_is_found_beside_it(image: str, folder: str, expected: str) -> None:
    assert filesystem.resolve(image, folder) == expected


def test_empty_part_of_a_key_is_named() -> None:
    for use in (filesystem.read_bytes, filesystem.exists, filesystem.list_names):
        with pytest.raises(LocationError, match="has an empty part between two slashes"):
            use("s3://bucket//run")


def test_unknown_scheme_names_what_is_allowed() -> None:
    with pytest.raises(StorageError, match=r"give a local path or a URI \(s3://, gs://"):
        filesystem.open_filesystem("ftp://bucket/key")


def test_zero_byte_in_a_path_is_named() -> None:
    for use in (filesystem.read_bytes, filesystem.exists, filesystem.list_names, filesystem.delete_folder):
        with pytest.raises(LocationError, match=r"a\\x00b' contains a null byte"):
            use("a\0b")


@contextmanager
def full_disk() -> Iterator[None]:
    """A file may have 1000 bytes: the next is refused without a name, as by a disk that is full.

    Not a fixture: pytest writes to a file of its own between the phases of a test.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_is_said_with_the_file(tmp_path: Path) -> None:
    location = str(tmp_path / "file")
    with pytest.raises(StorageError, match=rf"^'{location}' cannot be written \(File too large\)$"), full_disk():
        filesystem.write_bytes(location, bytes(1001))
    assert os.listdir(tmp_path) == []


def test_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), filesystem.atomic_file(str(tmp_path / "file")):
        (tmp_path / "elsewhere").read_bytes()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fdinfo"), reason="needs a folder that nobody may delete")
def test_folder_that_cannot_be_deleted_is_named_without_credentials() -> None:
    with pytest.raises(DeniedError, match=r"^'/proc/self/fdinfo' may not be accessed \(Permission denied\)$"):
        filesystem.delete_folder("/proc/self/fdinfo")
