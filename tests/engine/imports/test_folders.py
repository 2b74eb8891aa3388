"""Class folders as manifests that the jobs read."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

import pytest
from PIL import Image

from engine.imports.folders import read_folders
from engine.imports.found import ReaderOptions
from engine.storage.filesystem import write_bytes
from jobs.cli.command import main
from tests.engine.export.examples import jpeg
from tests.engine.imports.examples import imported, job, refused, tags_of, write_pictures
from tests.s3_server import S3Server


def test_class_folders_tag_their_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dog/1.jpg", "dog/2.png", "big cat/1.jpg", "dog/notes.txt", ".cache/1.jpg"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"Rex" if name.endswith(".txt") else jpeg(4, 4))
    rows, names = imported(tmp_path / "data", "folders", tmp_path / "out")
    assert names == ["big cat", "dog"]
    assert tags_of(rows) == {
        "big cat/1.jpg": ["big cat"],
        "dog/1.jpg": ["dog"],
        "dog/2.png": ["dog"],
    }
    assert "--allow-outside" in capsys.readouterr().out


@pytest.mark.parametrize("file_uri", [False, True])
def test_images_at_any_depth_belong_to_the_uppermost_folder(file_uri: bool, tmp_path: Path) -> None:
    names = (
        "dog/2.jpg",
        "dog/10.pgm",
        "dog/sub/2.jpg",
        "dog/sub/.hidden/3.jpg",
        "dog/sub/deep/1.PPM",
        "cat/only/1.jpg",
    )
    for name in names:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(4, 4))
    source = f"file://{tmp_path}/data" if file_uri else f"{tmp_path}/data/"
    found = read_folders(source, ReaderOptions(out=""))
    assert found.class_names == ("cat", "dog")
    listed = list(found.images)
    assert [(one.image_id, one.tags) for one in listed] == [
        ("cat/only/1.jpg", ("cat",)),
        ("dog/10.pgm", ("dog",)),
        ("dog/2.jpg", ("dog",)),
        ("dog/sub/2.jpg", ("dog",)),
        ("dog/sub/deep/1.PPM", ("dog",)),
    ]
    assert all(one.location == f"{source.rstrip('/')}/{one.image_id}" for one in listed)
    assert all(Path(one.location.removeprefix("file://")).is_file() for one in listed)


@pytest.mark.s3
def test_images_at_any_depth_of_a_bucket_are_found(s3: S3Server) -> None:
    bucket = s3.make_bucket(f"import-{uuid.uuid4().hex[:12]}")
    for name in ("photos/dog/sub dir/2.jpg", "photos/dog/1.jpg", "photos/cat/a#b/c/1.png", "photos/list.txt"):
        write_bytes(f"{bucket}/{name}", b"x")
    found = read_folders(f"{bucket}/photos/", ReaderOptions(out=""))
    assert [(one.image_id, one.location) for one in found.images] == [
        (name, f"{bucket}/photos/{name}") for name in ("cat/a#b/c/1.png", "dog/1.jpg", "dog/sub dir/2.jpg")
    ]


def test_class_folders_without_an_image_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dog/1.jpg", "cat/sub/notes.txt", "runs/mine/run.json"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(4, 4) if name.endswith(".jpg") else b"{}")
    line = refused(tmp_path / "photos", "folders", tmp_path / "out", capsys)
    assert "has 2 folders without an image that Pillow reads ('cat', 'runs')" in line
    assert not list((tmp_path / "out").iterdir())


def test_links_of_class_folders_are_followed_but_not_round_in_circles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").write_bytes(jpeg(4, 4))
    (tmp_path / "photos" / "dog").mkdir(parents=True)
    (tmp_path / "photos" / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    rows, _ = imported(tmp_path / "photos", "folders", tmp_path / "out")
    assert list(rows) == ["dog/more/1.jpg"]
    (tmp_path / "photos" / "dog" / "round").symlink_to(tmp_path / "photos")
    arguments = ["--source", str(tmp_path / "photos"), "--format", "folders", "--out", str(tmp_path / "again")]
    assert main(job.Import, job.run, arguments) == 2
    assert "dog/round' links to one of its parent folders" in capsys.readouterr().err


def test_name_that_is_not_utf_8_is_the_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    not_utf_8 = r"--source has a name that is not valid UTF-8, in .*caf\\udce9"
    for source, name, reason in (
        ("images", b"dog/caf\xe9.jpg", not_utf_8),
        ("new-classes", b"caf\xe9/1.jpg", not_utf_8),
        ("classes", b"caf\xe9/1.jpg", "--out already contains .*"),
    ):
        path = Path(os.fsdecode(bytes(tmp_path / source) + b"/" + name))
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(4, 4))
        (tmp_path / f"{source}-out").mkdir()
        if source != "new-classes":
            (tmp_path / f"{source}-out" / "classes.txt").write_text("dog\n")
        arguments = [
            "--source",
            str(tmp_path / source),
            "--format",
            "folders",
            "--out",
            str(tmp_path / f"{source}-out"),
        ]
        assert main(job.Import, job.run, arguments) == 2
        assert re.match(f"error: {reason}", capsys.readouterr().err)


def test_what_a_mac_adds_to_an_archive_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "data", "dog/1.jpg", "dog/._1.jpg", "dog/.DS_Store", "__MACOSX/dog/._1.jpg", "list.csv")
    rows, names = imported(tmp_path / "data", "folders", tmp_path / "data")
    assert (names, tags_of(rows)) == (["dog"], {"dog/1.jpg": ["dog"]})
    said = capsys.readouterr().out
    assert "files of macOS (skipped): 3, such as '__MACOSX'" in said
    assert "files outside the class folders (skipped): 1, such as 'list.csv'" in said


def test_pictures_under_other_endings_and_none_are_known_by_their_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "dog"
    folder.mkdir(parents=True)
    kinds = {"1.jfif": "JPEG", "2.avif": "AVIF", "3.jpe": "JPEG", "4.jp2": "JPEG2000", "5": "PNG", "6.dat": "TIFF"}
    for name, kind in kinds.items():
        Image.new("RGB", (4, 4)).save(folder / name, format=kind)
    os.mkfifo(folder / "pipe")
    for name, content in (("7.txt", b"0 0.5 0.5 1 1"), ("8", b""), ("9.mp4", b"\0\0\0\x18ftypisom" + bytes(99))):
        (folder / name).write_bytes(content)
    (folder / "10.h").write_bytes(b"#define P6_WIDTH\n")  # starts as XBM does
    rows, _ = imported(tmp_path / "data", "folders", tmp_path / "data")
    assert list(rows) == [f"dog/{name}" for name in sorted(kinds)]
    assert "files that are not images (skipped): 5, such as 'dog/10.h'" in capsys.readouterr().out


def test_class_folder_background_is_refused_or_means_no_tag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path, "background/1.jpg", "dog/2.jpg")
    line = refused(tmp_path, "folders", tmp_path, capsys)
    assert line == (
        f"error: --background must be given, because '{tmp_path}' has a class 'background', which is always class 0; "
        "'background' drops it from the tags"
    )
    assert "must be a class of the data set, got 'none'" in refused(
        tmp_path, "folders", tmp_path, capsys, "--background", "none"
    )
    rows, names = imported(tmp_path, "folders", tmp_path, "--background", "background")
    assert (names, tags_of(rows)) == (["dog"], {"background/1.jpg": [], "dog/2.jpg": ["dog"]})
    assert "images without tags (all background): 1, such as 'background/1.jpg'" in capsys.readouterr().out


def test_folders_of_splits_are_not_taken_for_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path, "train/dog/1.jpg", "Test/dog/2.jpg")
    line = refused(tmp_path, "folders", tmp_path, capsys)
    assert f"contains the splits Test, train, not classes; give one of them, such as '{tmp_path}/Test'" in line
