"""WebDataset tars: what a sample is, and archives that are odd or broken."""

from __future__ import annotations

import json
import tarfile
import uuid
from pathlib import Path

import pytest

from engine.errors import ManifestError
from engine.storage import filesystem
from engine.storage.manifest import iter_manifest
from engine.storage.pictures import read_picture
from tests.engine.storage.sources.examples import samples, tar_bytes, webdataset
from tests.s3_faults import faulty
from tests.s3_server import S3Server


def _rows(location: Path) -> list[tuple[str, str, bytes, list[str]]]:
    return [
        (image_id, image, read_picture(uri), tags)
        for batch in iter_manifest(str(location))
        for image_id, image, uri, tags in zip(
            *(batch[name] for name in ("image_id", "image", "uri", "tags")), strict=True
        )
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_any_writer_are_read(tmp_path: Path, format: int) -> None:
    long = "folder/" * 20 + "x" * 90
    some = [*samples(3), (f"{long}.jpg", b"long name", ["dog"]), ("ünï.jpg", b"letters", []), *samples(5)[3:]]
    if format == tarfile.USTAR_FORMAT:
        some = [sample for sample in some if "folder" not in sample[0]]
    (tmp_path / "a.tar").write_bytes(webdataset(some, format=format))
    assert _rows(tmp_path / "a.tar") == [(f"a.tar/{name}", f"a.tar/{name}", data, tags) for name, data, tags in some]


def test_sample_is_its_picture_with_the_tags_beside_it(tmp_path: Path) -> None:
    members = [
        ("a/1.seg.png", b"not the picture"),
        ("a/1.webp", b"one"),
        ("a/1.json", json.dumps({"tags": "cat; dog", "image_id": 17}).encode()),
        ("b/1.txt", "cow\n猫\n\n".encode()),
        ("b/1.JPG", b"two"),
        ("lonely.json", b"{}"),
        ("3.png", b"three"),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    assert _rows(tmp_path / "a.tar") == [
        ("17", "a.tar/a/1.webp", b"one", ["cat", "dog"]),
        ("a.tar/b/1.JPG", "a.tar/b/1.JPG", b"two", ["cow", "猫"]),
        ("a.tar/3.png", "a.tar/3.png", b"three", []),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no tar at all" * 100, "is not a readable tar"),
        (b"", "holds no image"),
        (webdataset(samples(3))[:4000], "is cut off at byte 4000"),
        (tar_bytes([("1.jpg", b"x"), ("1.json", b"{")]), "'1.json' is not JSON"),
        (tar_bytes([("1.jpg", b"x"), ("1.json", b"[]")]), "'1.json' is not a JSON object"),
        (tar_bytes([("1.jpg", b"x"), ("1.json", b'{"caption": "a cat"}')]), "'1.json' has no entry 'tags'"),
        (tar_bytes([("1.jpg", b"x"), ("1.txt", b"\xff")]), "'1.txt' is not UTF-8"),
        (tar_bytes([("1.jpg", b"x"), ("1.json", b'{"tags": 5}')]), "has tags 5"),
    ],
)
def test_tar_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ManifestError, match=r"^--data") as caught:
        list(iter_manifest(str(tmp_path / "a.tar")))
    assert sentence in str(caught.value)
    assert "a.tar" in str(caught.value)


@pytest.mark.s3
@pytest.mark.parametrize(("picture_bytes", "most_requests"), [(20_000, 15), (600_000, 70)])
def test_one_request_to_a_bucket_brings_many_small_samples_and_skips_large_pictures(
    picture_bytes: int, most_requests: int, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [(f"{number:04d}.jpg", b"x" * picture_bytes, ["cat"]) for number in range(60)]
    location = f"{s3.make_bucket(f'tars-{uuid.uuid4().hex[:12]}')}/a.tar"
    filesystem.write_bytes(location, webdataset(some))
    reads: list[str] = []

    def count(method: str, path: str) -> str:
        if method == "GET" and path.endswith("a.tar"):
            reads.append(path)
        return ""

    with faulty(s3.endpoint, count) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        batch = next(iter_manifest(location))
    assert batch["tags"] == [["cat"]] * 60
    assert len(reads) <= most_requests
    monkeypatch.undo()
    assert len(read_picture(batch["uri"][59])) == picture_bytes
