"""What is said of odd data, from manifests and images on a disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.inspection.findings import Finding, describe_pictures, overview, picture_findings, tag_findings
from engine.inspection.pictures import picture_statistics
from engine.inspection.tags import tag_statistics
from engine.resources import Decoding
from tests.engine.inspection.data_sets import Row, frozen, rows_of


def _of_tags(folder: Path, tags: Sequence[Sequence[str]], class_names: Sequence[str] = ()) -> dict[str, Finding]:
    names = class_names or sorted({tag for one in tags for tag in one})
    return {one.kind: one for one in tag_findings(tag_statistics(frozen(folder, rows_of(*tags), names)))}


ENOUGH = 50


@pytest.mark.parametrize(
    ("tags", "class_names", "kind", "severity", "words"),
    [
        ([[]] * 3, ["cat"], "no tags", "error", "no image has a tag"),
        ([["dgo"]] * 3, ["dog"], "unknown tags", "error", "3 of 3 images have tags that are no classes: dgo 3"),
        (
            [["dgo"]] * 3 + [["dog"]] * ENOUGH,
            ["dog"],
            "unknown tags",
            "warning",
            f"3 of {ENOUGH + 3} images have tags that are no classes: dgo 3",
        ),
        ([["dog", "cat"]] * 50 + [["dog"]] * 50, (), "class in every image", "warning", "dog 100"),
        ([["dog"]] * 60 + [[]] * 40, (), "one class", "note", "one class, and 40 images without it"),
        ([[f"{n} x"] for n in "abcdefghijkl"], (), "as many classes as images", "warning", "12 classes in 12 images"),
        ([["dog"]] * 7 + [["cat"]] * 60, (), "few images", "warning", "fewer than 50 images: dog 7"),
        ([["sofa", "room"]] * 50 + [["cat"]] * 50, (), "tags together", "warning", "room with sofa (100%)"),
        ([["dog"]] * 50 + [["Dogs"]] * 50, (), "same names", "warning", "Dogs = dog"),
        ([["giraffe"]] * 50 + [["girafe"]] * 50, (), "similar names", "note", "girafe / giraffe"),
        ([["dog, cat"]] * 50 + [["fox"]] * 50, (), "odd names", "warning", "'dog, cat'"),
    ],
)
def test_odd_tags_are_found(
    tags: list[list[str]], class_names: Sequence[str], kind: str, severity: str, words: str, tmp_path: Path
) -> None:
    found = _of_tags(tmp_path, tags, class_names)[kind]
    assert found.severity == severity
    assert words in found.seen
    assert str(found) == f"{severity}: {found.seen}; {found.advice}"


def test_nothing_is_said_of_good_tags(tmp_path: Path) -> None:
    tags = [["dog"]] * ENOUGH + [["cat"]] * ENOUGH + [["cat", "dog"]] * 10 + [[]] * 10
    assert _of_tags(tmp_path, tags) == {}


def test_thousands_of_classes_are_not_all_listed(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(1000)]
    line = overview(tag_statistics(frozen(tmp_path, rows_of(["class 7"], ["class 7", "class 8"], []), names)))
    assert line.startswith("3 images, 1000 classes, 1.0 tags per image (1 with 0, 1 with 1, 1 with 2): class 7 2, ")
    assert line.endswith(" and 988 more")


def _picture(path: Path, shape: tuple[int, ...], most: int = 256, dtype: type = np.uint8) -> None:
    values = np.random.default_rng(len(path.name) + shape[1]).integers(0, most, shape)
    Image.fromarray(values.astype(dtype)).save(path)


def test_odd_images_are_found_in_a_sample(tmp_path: Path) -> None:
    _picture(tmp_path / "good.png", (70, 90, 3))
    shutil.copy(tmp_path / "good.png", tmp_path / "copy.png")
    _picture(tmp_path / "small.png", (20, 30, 3))
    _picture(tmp_path / "long.png", (10, 70, 3))
    _picture(tmp_path / "gray.png", (70, 80))
    Image.new("RGB", (70, 70)).save(tmp_path / "blank.png")
    (tmp_path / "text.png").write_text("no picture")
    rows: list[Row] = [(path.name, ["unknown"]) for path in sorted(tmp_path.glob("*.png"))]
    rows.append(("gone.png", []))
    sample = picture_statistics(frozen(tmp_path, rows, ["cat"]), Decoding())
    found = {one.kind: one for one in picture_findings(sample, bands=(), value_range=())}
    assert {kind: one.seen.split(" sampled")[0] for kind, one in found.items() if kind != "identical images"} == {
        "unreadable images": "2 of 8",
        "small images": "1 of 8",
        "long images": "1 of 8",
        "blank images": "1 of 8",
        "gray and color": "1 of 8",
    }
    assert found["unreadable images"].severity == "warning"
    assert found["identical images"].seen == "1 of 8 files are copies of another, such as 'good.png' of 'copy.png'"
    assert describe_pictures(sample).startswith("sample of 8 images: long side 30 to 90 pixels, median 80; ")


def test_bands_and_value_ranges_are_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        values = np.random.default_rng(0).integers(0, 255, (70, 70, 4), dtype=np.uint8)
        Image.fromarray(values, "RGBX").save(tmp_path / f"{name}.tif")
    sample = picture_statistics(frozen(tmp_path, [("a.tif", []), ("b.tif", ["cat"])], ["cat"]), Decoding())
    found = {one.kind for one in picture_findings(sample, bands=(), value_range=(0.0, 4095.0))}
    assert {"extra bands", "value range"} <= found
    assert "extra bands" not in {one.kind for one in picture_findings(sample, bands=(0, 1, 2), value_range=())}


def test_images_none_of_which_can_be_read_are_an_error(tmp_path: Path) -> None:
    sample = picture_statistics(frozen(tmp_path, rows_of(["cat"], ["cat"]), ["cat"]), Decoding())
    (found,) = picture_findings(sample, bands=(), value_range=())
    assert (found.kind, found.severity) == ("unreadable images", "error")
    assert describe_pictures(sample) == "sample of 2 images: none can be read"
