"""COCO files as manifests that the jobs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.export.examples import CLASS_NAMES, export
from tests.engine.imports.examples import imported, labeled_items, refused, tags_of, write_pictures


@pytest.mark.parametrize("manifest", ["csv", "jsonl", "parquet"])
def test_coco_file_that_was_exported_comes_back(manifest: str, tmp_path: Path) -> None:
    export(str(tmp_path), "coco", labeled_items())
    source = tmp_path / "annotations" / "instances_train.json"
    rows, names = imported(source, "coco", tmp_path, "--images", str(tmp_path / "images"), manifest=manifest)
    assert names == list(CLASS_NAMES)
    assert tags_of(rows) == {
        "images/a.jpg": ["cat", CLASS_NAMES[1]],
        "images/b ü.jpg": [],
    }
    assert all(Path(uri).is_file() for uri, _ in rows.values())


def test_coco_names_that_are_uris_absolute_paths_or_numbers(tmp_path: Path) -> None:
    values = {
        "images": [
            {"id": 1, "file_name": "s3://bucket/a b.jpg"},
            {"id": 2, "file_name": "/data/b.jpg"},
            {"id": 3, "file_name": "sub/c.jpg"},
            {"id": 4, "file_name": 17},
        ],
        "annotations": [{"image_id": 1, "category_id": 2}, {"image_id": 1, "category_id": 1}],
        "categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": 1}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(values))
    write_pictures(tmp_path, "sub/c.jpg", "17")
    rows, names = imported(tmp_path / "instances.json", "coco", tmp_path)
    assert names == ["1", "dog"]
    assert rows == {
        "s3://bucket/a b.jpg": ("s3://bucket/a b.jpg", ["1", "dog"]),
        "/data/b.jpg": ("/data/b.jpg", []),
        "sub/c.jpg": (str(tmp_path / "sub" / "c.jpg"), []),
        "17": (str(tmp_path / "17"), []),
    }


def _write(path: Path, images: list[Any], annotations: list[Any], categories: list[Any] | None = None) -> Path:
    """A COCO file, and small pictures where its images say."""
    categories = categories or [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    write_pictures(path.parent, *(item["file_name"].replace("\\", "/") for item in images if item.get("file_name")))
    return path


@pytest.mark.parametrize(("listed", "annotated"), [(7, "7"), ("7", 7), (7, 7.0), ("a", " a")])
def test_ids_are_the_same_as_numbers_and_as_text(listed: Any, annotated: Any, tmp_path: Path) -> None:
    source = _write(
        tmp_path / "x.json",
        [{"id": listed, "file_name": "1.jpg"}],
        [{"image_id": annotated, "category_id": annotated}],
        [{"id": listed, "name": "dog"}],
    )
    rows, names = imported(source, "coco", tmp_path)
    assert tags_of(rows) == {"1.jpg": ["dog"]}
    assert names == ["dog"]


def test_categories_stand_in_the_order_of_their_ids_as_numbers(tmp_path: Path) -> None:
    categories = [{"id": number, "name": f"c{number}"} for number in ("10", 9, "2")]
    source = _write(tmp_path / "x.json", [{"id": 1, "file_name": "1.jpg"}], [], categories)
    assert imported(source, "coco", tmp_path)[1] == ["c2", "c9", "c10"]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"image_id": "x7", "category_id": 1}, "has 2 annotations with an unknown image_id, such as 'x7'"),
        ({"image_id": 1, "category_id": 3}, "has 2 annotations with an unknown category_id, such as 3"),
    ],
)
def test_annotations_of_unknown_images_or_categories_are_counted_and_refused(
    annotation: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _write(tmp_path / "x.json", [{"id": 1, "file_name": "1.jpg"}], [annotation, annotation])
    assert words in refused(source, "coco", tmp_path, capsys)


@pytest.mark.parametrize("other", [{"file_name": None}, {"file_name": ""}, {}])
def test_file_of_lvis_is_named_by_its_url(other: dict[str, Any], tmp_path: Path) -> None:
    write_pictures(tmp_path / "coco", "val2017/0001.jpg")
    image = {"id": 1, "coco_url": "http://images.cocodataset.org/val2017/0001.jpg", **other}
    source = _write(tmp_path / "lvis.json", [image], [{"image_id": 1, "category_id": 2}])
    rows, _ = imported(source, "coco", tmp_path / "coco", "--images", str(tmp_path / "coco"))
    assert rows == {"val2017/0001.jpg": (str(tmp_path / "coco/val2017/0001.jpg"), ["dog"])}


def test_file_under_two_ids_has_the_tags_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}, {"id": 3, "file_name": "./1.jpg"}]
    annotations = [{"image_id": 3, "category_id": 1}, {"image_id": 1, "category_id": 2}]
    rows, _ = imported(_write(tmp_path / "x.json", images, annotations), "coco", tmp_path)
    assert {image_id: sorted(tags) for image_id, tags in tags_of(rows).items()} == {
        "1.jpg": ["cat", "dog"],
        "2.jpg": [],
    }
    assert "duplicate entries of a file (tags merged): 1, such as './1.jpg'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "categories", "words"),
    [
        ([(1, "a.jpg"), ("1", "b.jpg")], [(1, "cat")], "gives the image id 1 to both 'a.jpg' and 'b.jpg'"),
        ([(1, "a.jpg")], [(1, "cat"), (1, "dog")], "gives the category id 1 to both 'cat' and 'dog'"),
    ],
)
def test_id_of_two_things_is_refused_with_both(
    images: list[Any], categories: list[Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _write(
        tmp_path / "x.json",
        [{"id": number, "file_name": name} for number, name in images],
        [{"image_id": 1, "category_id": 1}],
        [{"id": number, "name": name} for number, name in categories],
    )
    assert words in refused(source, "coco", tmp_path, capsys)


def test_own_image_id_of_two_files_is_refused_with_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "image_id": "same"} for n in (1, 2)]
    line = refused(_write(tmp_path / "x.json", images, []), "coco", tmp_path, capsys)
    assert f"gives the image_id 'same' to both '{tmp_path}/1.jpg' and '{tmp_path}/2.jpg'" in line


def test_separators_of_windows_are_turned_unless_a_file_is_called_so(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "sub\\3.jpg"}, {"id": 2, "file_name": "a\\b.jpg"}]
    source = _write(tmp_path / "x.json", images, [])
    write_pictures(tmp_path, "a\\b.jpg")
    rows, _ = imported(source, "coco", tmp_path)
    assert [uri for uri, _ in rows.values()] == [f"{tmp_path}/sub/3.jpg", f"{tmp_path}/a\\b.jpg"]


def test_category_background_is_refused_or_means_no_tag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    categories = [{"id": 0, "name": "background"}, {"id": 1, "name": "cat"}]
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}]
    annotations = [{"image_id": 1, "category_id": 0}, {"image_id": 2, "category_id": 0}]
    source = _write(tmp_path / "x.json", images, [*annotations, {"image_id": 2, "category_id": 1}], categories)
    assert refused(source, "coco", tmp_path, capsys).startswith("error: --background must be given, because ")
    rows, names = imported(source, "coco", tmp_path, "--background", "background")
    assert (names, tags_of(rows)) == (["cat"], {"1.jpg": [], "2.jpg": ["cat"]})


@pytest.mark.parametrize("names", [("cat", "cat"), (" cat", "cat ")])
def test_categories_of_one_name_are_one_class(names: tuple[str, str], tmp_path: Path) -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    annotations = [{"image_id": 1, "category_id": 2}]
    source = _write(tmp_path / "x.json", [{"id": 1, "file_name": "1.jpg"}], annotations, categories)
    rows, classes = imported(source, "coco", tmp_path)
    assert (classes, tags_of(rows)) == (["cat"], {"1.jpg": ["cat"]})


def test_panoptic_annotations_name_the_categories_of_their_segments(tmp_path: Path) -> None:
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 5, "category_id": n} for n in (2, 1)]}
    source = _write(tmp_path / "panoptic.json", [{"id": 1, "file_name": "1.jpg"}], [annotation])
    assert tags_of(imported(source, "coco", tmp_path)[0]) == {"1.jpg": ["cat", "dog"]}


def test_images_of_another_folder_are_refused_if_none_exists_and_counted_if_some_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)]
    source = _write(tmp_path / "annotations" / "x.json", images, [])
    (tmp_path / "annotations" / "1.jpg").rename(tmp_path / "1.jpg")
    (tmp_path / "annotations" / "2.jpg").unlink()
    line = refused(source, "coco", tmp_path, capsys)
    assert f"lists 2 images, but none of them exists (the last is '{tmp_path}/annotations/2.jpg')" in line
    imported(source, "coco", tmp_path, "--images", str(tmp_path))
    assert f"images that do not exist, or are in no known store: 1, such as '{tmp_path}/2.jpg'" in (
        capsys.readouterr().out
    )


def test_addresses_of_unknown_stores_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "ftp://example.org/1.jpg"}],
                "annotations": [],
                "categories": [{"id": 1, "name": "cat"}],
            }
        )
    )
    assert "none of them exists" in refused(tmp_path / "x.json", "coco", tmp_path, capsys)


def test_json_that_is_nested_too_deep_is_the_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    assert "is not a COCO instances file (RecursionError" in refused(tmp_path / "x.json", "coco", tmp_path, capsys)


@pytest.mark.parametrize("number", [0, -1, 10**12])
def test_category_of_any_id_has_its_name(number: int, tmp_path: Path) -> None:
    categories = [{"id": number, "name": "dog"}, {"id": number + 7, "name": "cat"}]
    annotations = [{"image_id": 1, "category_id": number}]
    source = _write(tmp_path / "x.json", [{"id": 1, "file_name": "1.jpg"}], annotations, categories)
    rows, names = imported(source, "coco", tmp_path)
    assert (names, tags_of(rows)) == (["dog", "cat"], {"1.jpg": ["dog"]})


def test_annotations_that_share_an_id_all_count(tmp_path: Path) -> None:
    annotations = [{"id": 1, "image_id": 1, "category_id": category} for category in (1, 2)]
    source = _write(tmp_path / "x.json", [{"id": 1, "file_name": "1.jpg"}], annotations)
    assert tags_of(imported(source, "coco", tmp_path)[0]) == {"1.jpg": ["cat", "dog"]}


def test_files_of_one_name_in_several_folders_keep_apart(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "train/é 1.jpg"}, {"id": 2, "file_name": "val/é 1.jpg"}]
    source = _write(tmp_path / "x.json", images, [{"image_id": 2, "category_id": 1}])
    rows, _ = imported(source, "coco", tmp_path)
    assert rows == {
        "train/é 1.jpg": (f"{tmp_path}/train/é 1.jpg", []),
        "val/é 1.jpg": (f"{tmp_path}/val/é 1.jpg", ["cat"]),
    }


@pytest.mark.parametrize("name", ["..\\..\\media\\upload\\4\\a.png", "images\\1/a.png", "..\\label\\12.jpg"])
def test_paths_that_labeling_tools_write_on_windows_are_read(name: str, tmp_path: Path) -> None:
    source = _write(tmp_path / "project" / "export" / "x.json", [{"id": 1, "file_name": name}], [])
    ((uri, _),) = imported(source, "coco", tmp_path)[0].values()
    assert Path(uri) == (source.parent / name.replace("\\", "/")).resolve()
