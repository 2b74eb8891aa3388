"""engine/storage/sources/columns.py and long_form.py: tables with other columns than image and tags."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import ManifestError
from engine.storage.class_names import read_class_names
from engine.storage.manifest import freeze_manifest
from engine.storage.sources.columns import TableForm
from engine.storage.user_manifest import iter_tables, manifest_hash

Rows = list[tuple[str, list[str]]]


def _write(folder: Path, columns: dict[str, list[Any]]) -> list[str]:
    """The same table as every kind of manifest."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with (folder / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.table(columns), folder / "m.parquet")
    return [str(folder / name) for name in ("m.csv", "m.jsonl", "m.parquet")]


def _rows(location: str, form: TableForm = TableForm(), **options: Any) -> tuple[Rows, list[str]]:  # noqa: B008
    notes: dict[str, None] = {}
    tables = list(iter_tables(location, form, notes=notes, **options))
    return [(row["image"], row["tags"]) for table in tables for row in table.to_pylist()], list(notes)


@pytest.mark.parametrize("image", ["file_name", "path", "Filename", "image_path", "img"])
@pytest.mark.parametrize("tags", ["label", "labels", "Tags", "class", "category", "choice"])
def test_usual_names_of_columns_are_found(tmp_path: Path, image: str, tags: str) -> None:
    for location in _write(tmp_path, {"id": [7, 8], image: ["a.jpg", "b.jpg"], "width": [5, 6], tags: ["cat", "dog"]}):
        assert _rows(location)[0] == [("a.jpg", ["cat"]), ("b.jpg", ["dog"])]


def test_named_columns_come_before_usual_ones_and_image_and_tags_before_others(tmp_path: Path) -> None:
    columns = {"image": ["a.jpg"], "path": ["b.jpg"], "tags": ["cat"], "label": ["dog"], "what": ["cow"]}
    for location in _write(tmp_path, columns):
        assert _rows(location)[0] == [("a.jpg", ["cat"])]
        assert _rows(location, TableForm(image_column="path", tags_column=("what",)))[0] == [("b.jpg", ["cow"])]


@pytest.mark.parametrize(
    ("columns", "form", "sentence"),
    [
        (["path", "file_name", "tags"], {}, r"no column 'image', but 'path' and 'file_name'; name one .* image_column"),
        (
            ["image", "label", "class"],
            {},
            r"no column 'tags', but 'label' and 'class'; name one of them as tags_column",
        ),
        (["image", "tags"], {"image_column": "img"}, r"^image_column 'img' is no column of .* \(it has: image, tags\)"),
        (["image", "tags"], {"tags_column": ("a", "b")}, r"^tags_column 'a' is no column of "),
        (
            ["image", "note"],
            {},
            r"has no column 'tags' .*it needs image and tags, optionally image_id, or image_column",
        ),
    ],
)
def test_columns_that_are_not_plain_are_asked_for(
    tmp_path: Path, columns: list[str], form: dict[str, Any], sentence: str
) -> None:
    for location in _write(tmp_path, {name: ["x"] for name in columns}):
        with pytest.raises(ManifestError, match=sentence):
            _rows(location, TableForm(**form))


def test_two_columns_of_tags_are_no_matter_where_none_are_needed(tmp_path: Path) -> None:
    for location in _write(tmp_path, {"image": ["a.jpg"], "label": ["cat"], "class": ["dog"]}):
        assert _rows(location, needs_tags=False)[0] == [("a.jpg", [])]


@pytest.mark.parametrize("one", [1, 1.0, True, "1"])
def test_columns_of_0_and_1_are_classes(tmp_path: Path, one: Any) -> None:
    none = type(one)(0)
    columns = {
        "image": ["a.jpg", "b.jpg", "c.jpg"],
        "cat": [one, none, none],
        "width": [640, 480, 640],
        "dog": [one, one, none],
    }
    expected = [("a.jpg", ["cat", "dog"]), ("b.jpg", ["dog"]), ("c.jpg", [])]
    for location in _write(tmp_path, columns):
        if isinstance(one, str) and location.endswith("parquet"):
            continue
        assert _rows(location)[0] == expected
        chosen = TableForm(tags_column=("dog", "cat"))
        assert _rows(location, chosen)[0] == [("a.jpg", ["dog", "cat"]), *expected[1:]]
        assert read_class_names(location) == ("cat", "dog")


def test_columns_that_are_taken_are_named(tmp_path: Path) -> None:
    """A column such as ``verified`` would be one class more in silence."""
    columns: dict[str, list[Any]] = {"path": ["a.jpg", "b.jpg"], "cat": [0, 1], "verified": [1, 1]}
    listed = "columns of 0 and 1 are the classes (tags_column chooses others): "
    for location in _write(tmp_path, columns):
        assert _rows(location)[1] == ["images are in the column 'path'", f"{listed}cat, verified"]
        chosen = TableForm(tags_column=("cat",))
        rows, notes = _rows(location, chosen)
        assert rows == [("a.jpg", []), ("b.jpg", ["cat"])]
        assert notes == ["images are in the column 'path'", f"{listed}cat"]
    for location in _write(tmp_path, {"image": ["a.jpg"], "tags": ["1"]}):
        assert _rows(location) == ([("a.jpg", ["1"])], [])


def test_column_of_a_class_with_another_value_is_refused(tmp_path: Path) -> None:
    for location in _write(tmp_path, {"image": ["a.jpg", "b.jpg"], "cat": [0, 1], "dog": [1, -1]}):
        with pytest.raises(ManifestError, match=r", row 2 has '?-1'? in the column 'dog' of a class; give 0 or 1"):
            _rows(location, TableForm(tags_column=("cat", "dog")))


def test_a_row_for_each_image_and_tag_becomes_a_row_for_each_image(tmp_path: Path) -> None:
    columns = {"image": ["b.jpg", "a.jpg", "b.jpg", "c.jpg", "b.jpg"], "label": ["dog", "cat", "cat", "", "dog"]}
    for location in _write(tmp_path, columns):
        rows, notes = _rows(location)
        assert rows == [("b.jpg", ["dog", "cat"]), ("a.jpg", ["cat"]), ("c.jpg", [])]
        assert notes == ["tags are in the column 'label'", "5 rows, one for each image and tag, are 3 images"]
        manifest = freeze_manifest(location, str(tmp_path / "out"), rows_per_shard=9, class_names=("cat", "dog"))
        assert manifest.read_shard(0)["class_ids"] == [[2, 1], [1], []]


def test_rows_that_are_there_twice_are_no_long_form(tmp_path: Path) -> None:
    for columns in (
        {"image": ["a.jpg", "a.jpg", "b.jpg"], "tags": ["cat", "cat", "dog"]},
        {"image": ["a.jpg", "a.jpg"], "tags": ["cat;dog", "cat"]},
        {"image": ["a.jpg", "b.jpg"], "image_id": ["1", "1"], "tags": ["cat", "dog"]},
    ):
        for location in _write(tmp_path, columns):
            with pytest.raises(ManifestError, match=r"has the image_id '.*' more than once"):
                freeze_manifest(location, str(tmp_path / "out"), rows_per_shard=9, class_names=("cat", "dog"))


def test_label_that_open_images_denies_is_no_tag(tmp_path: Path) -> None:
    columns = {
        "ImageID": ["a", "a", "b", "b"],
        "Source": ["verification"] * 4,
        "LabelName": ["/m/cat", "/m/dog", "/m/cat", "/m/dog"],
        "Confidence": ["1", "0", "0", "1"],
    }
    for location in _write(tmp_path, columns):
        assert _rows(location)[0] == [("a", ["/m/cat"]), ("b", ["/m/dog"])]


def test_another_form_of_the_same_file_is_another_manifest(tmp_path: Path) -> None:
    location = _write(tmp_path, {"image": ["a.jpg"], "tags": ["cat|dog"]})[0]
    hashes = {manifest_hash(location), *(manifest_hash(location, TableForm(tag_separator=one)) for one in ";|")}
    assert len(hashes) == 3
