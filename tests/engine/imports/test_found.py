"""The manifest that is written of a data set, and what is said of it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from engine.errors import ConfigError, ManifestError, StorageError
from engine.imports.found import Image, ImportedDataset, united, with_clean_tags, write_manifest
from engine.imports.remarks import Remarks
from tests.engine.imports.examples import write_pictures


def _found(names: tuple[str, ...], *images: tuple[str, tuple[str, ...]]) -> ImportedDataset:
    listed = [Image(image_id=location, location=location, tags=tags) for location, tags in images]
    return ImportedDataset(class_names=names, images=iter(listed), remarks=Remarks())


def test_things_of_a_kind_are_counted_with_the_first_as_an_example() -> None:
    remarks = Remarks()
    for kind, example in (("files", "a"), ("folders", "b"), ("files", "c")):
        remarks.add(kind, example)
    assert remarks.counts == {"files": 2, "folders": 1}
    assert remarks.lines == ["files: 2, such as 'a'", "folders: 1, such as 'b'"]


def test_names_lose_the_blanks_around_them_and_the_class_that_stands_for_none() -> None:
    found = _found((" cat", "none", "cat ", "dog"), ("1", ("cat ", "none", " cat")), ("2", ("none",)))
    cleaned = with_clean_tags(found, "x", background="none")
    assert cleaned.class_names == ("cat", "dog")
    assert [one.tags for one in cleaned.images] == [("cat",), ()]


@pytest.mark.parametrize(
    ("names", "background", "words"),
    [
        ((), "", "'x': there is no class"),
        (("none",), "none", "'x': there is no class"),
        (("a\nb",), "", r"'x': the class 'a\\nb' holds a line break"),
        (("background", "cat"), "", "background must be given, because 'x' has a class 'background'"),
        (("background", "cat"), "cat", "'x', line 1 names 'background'"),
        (("cat",), "dog", "background must be a class of the data set, got 'dog'"),
    ],
)
def test_names_that_no_job_would_take_are_refused(names: tuple[str, ...], background: str, words: str) -> None:
    with pytest.raises((ConfigError, ManifestError), match=words):
        with_clean_tags(_found(names), "x", background=background)


def test_entries_of_a_file_become_one_image_and_two_files_of_an_id_are_refused() -> None:
    remarks = Remarks()
    same = [Image(image_id=str(n), location="a.jpg", tags=tags) for n, tags in enumerate([("x",), ("y", "x"), ("z",)])]
    assert list(united(same, remarks)) == [Image(image_id="0", location="a.jpg", tags=("x", "y", "z"))]
    assert list(remarks.counts.values()) == [2]
    with pytest.raises(StorageError, match=r"gives the image_id '0' to both 'a\.jpg' and 'b\.jpg'"):
        list(united([same[0], Image(image_id="0", location="b.jpg", tags=())], remarks))


def test_manifest_says_what_is_odd_in_it(tmp_path: Path) -> None:
    write_pictures(tmp_path, "1.jpg", "2.jpg")
    images = ((f"{tmp_path}/1.jpg", ("cat",)), (f"{tmp_path}/2.jpg", ()), (f"{tmp_path}/3.jpg", ("cat",)))
    found = _found(("cat", "dog"), *images, ("s3://bucket/4.jpg", ("cat",)), ("https://host/5.jpg", ("cat",)))
    summary = write_manifest(found, str(tmp_path / "manifest.csv"), str(tmp_path / "classes.txt"))
    with open(tmp_path / "manifest.csv", newline="") as file:
        rows = [(row["image"], row["tags"]) for row in csv.DictReader(file)]
    addresses = [("s3://bucket/4.jpg", "cat"), ("https://host/5.jpg", "cat")]
    assert rows == [("1.jpg", "cat"), ("2.jpg", ""), ("3.jpg", "cat"), *addresses]
    assert summary == {
        "images": 5,
        "classes": 2,
        "outside": 0,
        "remarks": {
            "images without tags (all background)": 1,
            "images that do not exist, or are in no known store": 1,
            "classes that no image is tagged with": 1,
        },
    }
