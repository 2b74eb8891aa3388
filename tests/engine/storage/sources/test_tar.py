"""WebDataset tars: what a sample is, and archives that are odd or broken."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ManifestError, UserError
from engine.storage import filesystem
from engine.storage.pictures import read_picture
from engine.storage.sources import tar
from engine.storage.sources.columns import TableForm
from engine.storage.sources.find import open_source_file
from engine.storage.user_manifest import iter_manifest, iter_tables
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


TOLD = b'{"tags": ["cat"], "image_id": 17}'


@pytest.mark.parametrize(
    ("names", "picture", "label"),
    [
        (["a/1.jpg", "a/2.jpg", "a/1.json", "a/2.json"], "a/1.jpg", "a/1.json"),
        (["1.json", "2.json", "1.jpg", "2.jpg"], "1.jpg", "1.json"),
        (["1.txt", "2.jpg", "2.txt", "1.jpg"], "1.jpg", "1.txt"),
        (["1.cls", "2.jpg", "2.json", "1.jpg"], "1.jpg", "1.cls"),
        (["1.jpg", "1.txt", "2.jpg", "2.json", "1.json"], "1.jpg", "1.json"),  # the caption would be read as tags
        (["1.txt", "2.jpg", "2.json", "1.json", "3.png", "1.jpg"], "1.jpg", "1.json"),
    ],
)
def test_tags_that_do_not_stand_beside_their_picture_are_not_lost_in_silence(
    tmp_path: Path, names: list[str], picture: str, label: str
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([(name, b'{"tags": ["cat"]}') for name in names]))
    with pytest.raises(ManifestError, match=r"^data '.*a\.tar': .* do not stand together; .* --sort=name") as caught:
        list(iter_manifest(str(tmp_path / "a.tar")))
    assert f"'{picture}' and '{label}' are of one sample" in str(caught.value)
    [table] = iter_tables(str(tmp_path / "a.tar"), needs_tags=False)
    assert len(table) == sum(name.endswith(("jpg", "png")) for name in names)


@pytest.mark.parametrize(
    "names",
    [
        ["1.jpg", "1.json", "2.jpg", "2.json", "1.txt", "2.cls"],  # what comes late would not have been asked
        ["1.jpg", "1.json", "lonely.json", "2.jpg", "2.json", "other.cls"],
        ["._1.jpg", "1.jpg", "._1.json", "1.json", "._2.jpg", "2.jpg", "._2.json", "2.json"],  # as on a Mac
    ],
)
def test_members_that_no_picture_misses_may_stand_anywhere(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([(name, b'{"tags": ["cat"]}') for name in names]))
    assert [tags for *_, tags in _rows(tmp_path / "a.tar")] == [["cat"], ["cat"]]


def test_where_no_tags_are_needed_those_that_are_there_are_read(tmp_path: Path) -> None:
    members = [
        ("1.jpg", b"x"),
        ("1.json", TOLD),
        ("2.jpg", b"x"),
        ("2.txt", b"A caption."),
        ("3.jpg", b"x"),
        ("3.txt", b"\xff no UTF-8"),
        ("3.cls", b"5"),
        ("4.jpg", b"x"),
        ("5.jpg", b"x"),
        ("4.json", b'{"tags": ["cat"], "image_id": 18}'),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    [table] = iter_tables(str(tmp_path / "a.tar"), needs_tags=False)
    assert table.column("image_id").to_pylist() == ["17", *(f"a.tar/{number}.jpg" for number in (2, 3, 4, 5))]
    assert table.column("tags").to_pylist() == [["cat"], ["A caption."], [], [], []]


@pytest.mark.parametrize("needs_tags", [True, False])
@pytest.mark.parametrize(
    ("names", "hidden"),
    [
        (["IMG.2020.jpg", "IMG.2020.json"], "IMG.2020.jpg"),
        (["1.jpg", "1.json", "a/IMG.2020.JPEG", "a/IMG.2021.JPEG"], "a/IMG.20"),
    ],
)
def test_picture_with_two_dots_in_its_name_does_not_vanish(
    tmp_path: Path, names: list[str], hidden: str, needs_tags: bool
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([(name, b'{"tags": ["cat"]}') for name in names]))
    with pytest.raises(ManifestError, match=r"^data '.*a\.tar': .* names may have one dot only$") as caught:
        list(iter_tables(str(tmp_path / "a.tar"), needs_tags=needs_tags))
    assert f"the picture '{hidden}" in str(caught.value)


def test_mask_beside_a_picture_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([("1.jpg", b"x"), ("1.seg.png", b"y")]))
    assert _rows(tmp_path / "a.tar") == [("a.tar/1.jpg", "a.tar/1.jpg", b"x", [])]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["1.jpg", "1.json", "1.jpg", "1.json"], "holds '1.jpg' twice in a row"),
        (["1.jpg", "1.json", "1.json"], "holds '1.json' twice in a row"),
        (["1.jpg", "1.JPG", "1.json"], "'1.jpg' and '1.JPG' are the same part of one sample"),
        (["a.jpg", "a.png", "a.json"], "'a.jpg' and 'a.png' are two pictures of one sample"),
    ],
)
@pytest.mark.parametrize("needs_tags", [True, False])
def test_sample_that_stands_twice_is_not_lost_in_silence(
    tmp_path: Path, names: list[str], sentence: str, needs_tags: bool
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([(name, TOLD) for name in names]))
    with pytest.raises(ManifestError, match=r"^data '.*a\.tar'") as caught:
        list(iter_tables(str(tmp_path / "a.tar"), needs_tags=needs_tags))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kind", ["jfif", "avif", "jpe", "jp2", "WEBP"])
def test_pictures_of_every_ending_are_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([(f"1.{kind}", b"x"), ("1.json", b'{"tags": "cat"}')]))
    assert _rows(tmp_path / "a.tar") == [(f"a.tar/1.{kind}", f"a.tar/1.{kind}", b"x", ["cat"])]


def test_samples_without_a_picture_are_counted(tmp_path: Path) -> None:
    members = [("1.jpg", b"x"), ("1.json", TOLD), ("2.mp4", b"x"), ("2.json", TOLD), ("3.heic", b"x"), ("3.json", TOLD)]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    notes: dict[str, None] = {}
    assert sum(len(table) for table in iter_tables(str(tmp_path / "a.tar"), notes=notes)) == 1
    assert list(notes) == ["2 samples have no picture (such as '2.mp4') and are left out"]


def test_tars_whose_pictures_have_other_endings_are_refused_with_those_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([("1.img", b"x"), ("1.cap", b"a cat"), ("2.img", b"x")]))
    with pytest.raises(ManifestError, match=r"has no sample with a picture \(such as '1\.img'\); .* end with \.jpg, "):
        list(iter_manifest(str(tmp_path / "a.tar")))


def test_dots_in_folders_and_capitals_in_endings_belong_to_no_key(tmp_path: Path) -> None:
    members = [
        ("v22.0/1.PNG", b"x"),
        ("v22.0/1.JSON", b'{"tags": ["cat"]}'),
        ("v22.1/1.PNG", b"y"),
        ("v22.1/1.TXT", b"dog"),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    assert [(image, tags) for _, image, _, tags in _rows(tmp_path / "a.tar")] == [
        ("a.tar/v22.0/1.PNG", ["cat"]),
        ("a.tar/v22.1/1.PNG", ["dog"]),
    ]


def test_tars_of_one_name_in_several_folders_keep_apart(tmp_path: Path) -> None:
    for folder in "xy":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.tar").write_bytes(tar_bytes([("1.jpg", folder.encode())]))
    assert [row[1:3] for row in _rows(tmp_path / "{x,y}" / "0.tar")] == [
        ("x/0.tar/1.jpg", b"x"),
        ("y/0.tar/1.jpg", b"y"),
    ]


def test_another_entry_and_another_separator_are_taken(tmp_path: Path) -> None:
    told = b'{"caption": "a cat on a mat", "labels": "cat/dog"}'
    (tmp_path / "a.tar").write_bytes(tar_bytes([("1.jpg", b"x"), ("1.json", told)]))
    with pytest.raises(ManifestError, match=r"no entry 'tags' \(it has: caption, labels; tags_column names another\)"):
        list(iter_manifest(str(tmp_path / "a.tar")))
    [batch] = iter_manifest(str(tmp_path / "a.tar"), TableForm(tags_column=("labels",), tag_separator="/"))
    assert batch["tags"] == [["cat", "dog"]]


class _Counted:
    """A file that knows how often it was read."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.num_reads = 0

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read_at(self, *arguments: int) -> bytes:
        self.num_reads += 1
        return bytes(self.file.read_at(*arguments))

    def read(self, *arguments: int) -> bytes:
        self.num_reads += 1
        return bytes(self.file.read(*arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param((tar._NEAR_BYTES, tar._NEAR_BYTES), id="disk"),
        pytest.param((tar._FAR_BYTES, tar._LONGEST_BYTES), id="bucket"),
    ],
)
def test_headers_of_every_format_are_read_ahead(
    tmp_path: Path, lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = samples(100)
    long = [(f"{'x' * 110}{name}", data, tags) for name, data, tags in some]
    contents = {
        "ustar": webdataset(some),
        "pax": webdataset(some, format=tarfile.PAX_FORMAT, mtime=1700000000.25),  # as Ray's write_webdataset
        "gnu": webdataset(long, format=tarfile.GNU_FORMAT),
    }
    opened: list[_Counted] = []

    def open_counted(location: str) -> _Counted:
        opened.append(_Counted(open_source_file(location)))
        return opened[-1]

    window = tar._Window
    monkeypatch.setattr(tar, "open_source_file", open_counted)
    monkeypatch.setattr(tar, "_Window", lambda file, *_: window(file, *lengths))
    rows, num_reads = {}, {}
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tar").write_bytes(content)
        rows[name] = _rows(tmp_path / name / "a.tar")
        [file] = opened
        num_reads[name] = file.num_reads
        opened.clear()
    assert rows["pax"] == rows["ustar"]
    assert [row[2:] for row in rows["gnu"]] == [row[2:] for row in rows["ustar"]]
    assert max(num_reads.values()) <= 5 * num_reads["ustar"], num_reads


def test_size_and_path_of_a_pax_record_come_before_those_of_the_header(tmp_path: Path) -> None:
    records = [{"size": "700", "path": "ünï/1.jpg"}, {"path": "ünï/1.json"}, {}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for data, record in zip((b"x" * 700, TOLD, b"y"), records, strict=True):
            info = tarfile.TarInfo("2.jpg")
            info.size, info.pax_headers = len(data), record
            archive.addfile(info, io.BytesIO(data))
    content = bytearray(buffer.getvalue())
    content[1024 + 124 : 1024 + 136] = b"00000000000 "  # the size of the first file stands in its record alone
    content[1024 + 148 : 1024 + 156] = b" " * 8
    content[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(content[1024:1536])
    (tmp_path / "a.tar").write_bytes(content)
    assert _rows(tmp_path / "a.tar") == [
        ("17", "a.tar/ünï/1.jpg", b"x" * 700, ["cat"]),
        ("a.tar/2.jpg", "a.tar/2.jpg", b"y", []),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no tar at all" * 100, "is not a readable tar"),
        (b"", "holds no image"),
        (webdataset(samples(3))[:4000], "is cut off at byte 4000"),
        (webdataset(samples(3), format=tarfile.PAX_FORMAT, mtime=0.5)[:4000], "is not a readable tar: truncated"),
        (webdataset(samples(3), format=tarfile.PAX_FORMAT, mtime=0.5)[:2000], "is not a readable tar: unexpected end"),
        (webdataset(samples(3), format=tarfile.PAX_FORMAT, mtime=0.5)[:3000], "is cut off at byte 3000"),
        (webdataset(samples(3)).replace(b"0001.jpg", b"0001.jpX"), "is damaged at byte 3584"),
        (tar_bytes([("1.jpg", b"x"), ("1.cls", b"5")]), "'1.cls' says no tags"),
        (tar_bytes([("1.jpg", b"x"), ("1.json", b"{")]), "'1.json' is not JSON"),
        (tar_bytes([("1.jpg", b"x"), ("1.json", b"[]")]), "'1.json' is not a JSON object"),
        (tar_bytes([("1.jpg", b"x"), ("1.json", b'{"caption": "a cat"}')]), "'1.json' has no entry 'tags'"),
        (tar_bytes([("1.jpg", b"x"), ("1.txt", b"\xff")]), "'1.txt' is not UTF-8"),
        (tar_bytes([("1.jpg", b"x"), ("1.json", b'{"tags": 5}')]), "has tags 5"),
    ],
)
def test_tar_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"^data") as caught:
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
