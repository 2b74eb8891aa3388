"""Stores that fsspec reaches: web servers as they are, writes on fsspec's store in memory."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs as pafs
import pytest

from engine.errors import LocationError, MissingError, StorageError
from engine.storage import fsspec_store
from engine.storage.filesystem import (
    copy_file,
    delete_file,
    delete_folder,
    exists,
    join,
    list_entries,
    read_bytes,
    resolve,
    write_bytes,
)
from engine.storage.fsspec_store import fsspec_store as open_store
from tests.s3_faults import served

ODD = ("a b+c %20 é#1.bin", "100%.bin", "x?y.bin", "a*b[1].bin")
DATA = b"0123456789"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server without ranges, whose folder has a file of each odd name."""
    for name in ODD:
        (tmp_path / name).write_bytes(DATA)
    with served(ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))) as address:
        yield address


@pytest.mark.parametrize("name", ODD)
def test_web_server_is_read_whatever_the_name(web: str, name: str) -> None:
    assert read_bytes(join(web, name)) == read_bytes(resolve(name, web)) == DATA


def test_part_of_a_file_is_read_from_a_server_without_ranges(web: str) -> None:
    location = join(web, ODD[0])
    scheme, _, path = location.partition("://")
    with open_store(scheme).open_input_file(path) as file:
        assert file.read_at(3, 4) == b"456"


def test_web_server_is_neither_written_nor_listed(web: str) -> None:
    with pytest.raises(LocationError, match="cannot be written: a web server can be read, not written"):
        write_bytes(join(web, "new"), DATA)
    with pytest.raises(LocationError, match="cannot be listed; name the files"):
        list_entries(web)


def test_missing_file_and_missing_server_are_told_apart(web: str) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        read_bytes(join(web, "nothing"))
    with pytest.raises(StorageError, match=r"failed: Cannot connect to host 127\.0\.0\.1:9"):
        read_bytes("http://127.0.0.1:9/a", patience_s=0)


def test_signature_in_a_query_is_not_repeated_in_an_error(web: str) -> None:
    with pytest.raises(MissingError, match="does not exist") as caught:
        read_bytes(f"{web}/none.bin?X-Amz-Signature=s3cret")
    assert "s3cret" not in str(caught.value)


def test_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LocationError, match=r"gs:// needs gcsfs: pip install 'tag2mask\[gcs\]'"):
        read_bytes("gs://bucket/key")


def test_filesystem_holds_no_credentials() -> None:
    store = open_store("http")
    assert pickle.loads(pickle.dumps(store)) == store


class _Status(Exception):
    def __init__(self, status: Any) -> None:
        super().__init__("https://host/key?sig=secret")
        self.status = status


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (_Status(404), FileNotFoundError, "No such file"),
        (_Status("503"), OSError, "HTTP status 503"),
        (OSError("Forbidden: bucket"), OSError, "HTTP status 403"),
        (_Status(None), OSError, "https://host/key"),
    ],
)
def test_errors_of_clients_become_those_of_the_system(error: Exception, kind: type[OSError], text: str) -> None:
    found = fsspec_store._os_error(error, "bucket/key")
    assert type(found) is kind
    assert text in str(found)
    assert "secret" not in str(found)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """fsspec's store in memory, in the place of Google's."""
    memory = fsspec.filesystem("memory", skip_instance_cache=True)
    monkeypatch.setattr(fsspec_store, "_filesystem", lambda *_: _WithoutSlash(memory))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    yield "gs://bucket"
    memory.rm("/", recursive=True)


class _WithoutSlash:
    """Names as buckets have them, without the slash in front."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def ls(self, path: str, detail: bool) -> list[Any]:
        return [{**info, "name": info["name"].lstrip("/")} for info in self._memory.ls(path, detail=detail)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


def test_objects_of_any_name_are_written_listed_and_deleted_alone(bucket: str) -> None:
    for name in ODD:
        write_bytes(f"{bucket}/f/{name}", name.encode())
    assert list_entries(f"{bucket}/f") == dict.fromkeys(ODD, False)
    assert [read_bytes(f"{bucket}/f/{name}") for name in ODD] == [name.encode() for name in ODD]
    write_bytes(f"{bucket}/f/axb1.bin", b"matches a*b[1].bin as a pattern")
    delete_file(f"{bucket}/f/a*b[1].bin")
    assert set(list_entries(f"{bucket}/f")) == {*ODD[:3], "axb1.bin"}
    copy_file(f"{bucket}/f/100%.bin", f"{bucket}/g/copy")
    delete_folder(f"{bucket}/f")
    assert (exists(f"{bucket}/f"), read_bytes(f"{bucket}/g/copy")) == (False, b"100%.bin")
    assert list_entries(f"{bucket}/nothing") == {}


def test_upload_that_is_not_closed_is_dropped(bucket: str) -> None:
    upload = fsspec_store._Upload(fsspec_store.FsspecHandler("gs"), "bucket/half")
    upload.write(DATA)
    del upload
    assert open_store("gs").get_file_info("bucket/half").type == pafs.FileType.NotFound
