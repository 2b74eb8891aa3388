"""Parquet of Hugging Face datasets as manifests that the jobs read."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.storage.user_manifest import iter_manifest
from jobs.cli.command import main
from tests.engine.export.examples import jpeg
from tests.engine.imports.examples import imported, job, refused, tags_of, write_pictures


@pytest.mark.parametrize("several", [False, True])
def test_parquet_that_datasets_wrote_becomes_files_and_names(several: bool, tmp_path: Path) -> None:
    import datasets

    label = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "animals": datasets.List(label) if several else label,
            "note": datasets.Value("string"),
        }
    )
    pictures = [Image.open(io.BytesIO(jpeg(8, 9))), Image.fromarray(np.zeros((5, 6, 3), np.uint8))]
    labels: list[Any] = [[1, 0], []] if several else [1, 0]
    made = datasets.Dataset.from_dict({"picture": pictures, "animals": labels, "note": ["x", "y"]}, features=features)
    made.to_parquet(str(tmp_path / "train.parquet"))
    rows, names = imported(tmp_path / "train.parquet", "parquet", tmp_path / "out")
    assert names == ["cat", "dog"]
    assert [tags for _, tags in rows.values()] == ([["dog", "cat"], []] if several else [["dog"], ["cat"]])
    sizes = [Image.open(uri).size for uri, _ in rows.values()]
    assert sizes == [(9, 8), (6, 5)]
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")  # images and manifest travel together
    for batch in iter_manifest(str(tmp_path / "elsewhere" / "manifest.csv")):
        assert all(Path(uri).is_file() for uri in batch["uri"])


def test_labels_of_parquet_that_are_none_or_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"}
    info = {"info": {"features": {"label": label}}}
    source, again = tmp_path / "source" / "a.parquet", tmp_path / "source" / "b.parquet"
    source.parent.mkdir()

    def write(labels: list[list[int]]) -> None:
        table = pa.table({"image": ["a.jpg"] * len(labels), "label": pa.array(labels, pa.list_(pa.int64()))})
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), source)

    arguments = ["--source", str(source.parent), "--format", "parquet", "--out", str(tmp_path)]
    write([[2]])
    assert main(job.Import, job.run, arguments) == 2
    assert "has the label 2; labels are 0 to 1, or -1 for none" in capsys.readouterr().err
    write([[-1]])
    write_pictures(source.parent, "a.jpg")
    rows, _ = imported(source.parent, "parquet", tmp_path / "out")
    assert [tags for _, tags in rows.values()] == [[]]
    again.write_bytes(source.read_bytes()[:-9])
    assert main(job.Import, job.run, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: --source ")
    assert not (tmp_path / "manifest.csv").exists()


@pytest.mark.parametrize("metadata", ['{"info": null}', '{"info": {"features": null}}', "null", "[]", "{"])
def test_parquet_whose_metadata_name_no_features_is_read_by_the_names_of_its_columns(
    metadata: str, tmp_path: Path
) -> None:
    table = pa.table({"image": ["a.jpg", "b.jpg"], "label": ["dog", "cat"]})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "train.parquet")
    write_pictures(tmp_path, "a.jpg", "b.jpg")
    rows, names = imported(tmp_path / "train.parquet", "parquet", tmp_path)
    assert names == ["cat", "dog"]
    assert [tags for _, tags in rows.values()] == [["dog"], ["cat"]]


def _embedded(folder: Path, name: str) -> Path:
    """A Parquet file with a picture in its only row."""
    folder.mkdir(exist_ok=True)
    table = pa.table({"image": [{"bytes": jpeg(4, 4), "path": None}], "label": ["dog"]})
    pq.write_table(table, folder / name)
    return folder / name


def test_damaged_file_of_the_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _embedded(tmp_path / "source", "a.parquet")
    damaged = _embedded(tmp_path / "source", "b.parquet")
    content = damaged.read_bytes()
    damaged.write_bytes(b"PAR1" + bytes(len(content) // 2 - 4) + content[len(content) // 2 :])
    arguments = ["--source", str(tmp_path / "source"), "--format", "parquet", "--out", str(tmp_path / "out")]
    assert main(job.Import, job.run, arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: --source '{damaged}' ")
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_picture_that_cannot_be_written_is_the_outputs_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _embedded(tmp_path / "source", "a.parquet")
    (tmp_path / "images").write_bytes(b"")
    assert main(job.Import, job.run, ["--source", str(source), "--format", "parquet", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: --out '{tmp_path}/images/00000000-")


def _table(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def _pictures(*colors: str) -> list[dict[str, Any]]:
    found = []
    for color in colors:
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), color).save(buffer, format="PNG")
        found.append({"bytes": buffer.getvalue(), "path": None})
    return found


_PICTURE = {"_type": "Image"}


def test_pictures_for_labels_are_masks_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for features in (None, {"image": _PICTURE, "label": _PICTURE}):
        columns = {"image": _pictures("red"), "label": _pictures("black")}
        line = refused(_table(tmp_path / "x.parquet", columns, features), "parquet", tmp_path, capsys)
        assert line == (
            f"error: --label-column must name a column of tags; 'label' of '{tmp_path}/x.parquet' contains "
            "images (masks are given as truth, not as tags); the columns are: image, label"
        )


def test_column_image_comes_before_other_pictures(tmp_path: Path) -> None:
    columns = {"mask": _pictures("black"), "image": _pictures("red"), "label": ["dog"]}
    rows, _ = imported(_table(tmp_path / "x.parquet", columns), "parquet", tmp_path)
    ((uri, tags),) = rows.values()
    assert (Image.open(uri).getpixel((0, 0)), tags) == ((255, 0, 0), ["dog"])


def test_one_of_several_columns_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = {"_type": "ClassLabel", "names": ["a", "b"]}
    source = _table(
        tmp_path / "x.parquet",
        {"mask": _pictures("black"), "photo": _pictures("red"), "coarse": [0], "fine": [1], "sound": _pictures("red")},
        {"mask": _PICTURE, "photo": _PICTURE, "coarse": label, "fine": label, "sound": {"_type": "Audio"}},
    )
    line = refused(source, "parquet", tmp_path, capsys)
    assert "--image-column must be one of mask, photo, because " in line
    line = refused(source, "parquet", tmp_path, capsys, "--image-column", "photo")
    assert "--label-column must be one of coarse, fine, because " in line
    rows, _ = imported(source, "parquet", tmp_path, "--image-column", "photo", "--label-column", "fine")
    ((uri, tags),) = rows.values()
    assert (Image.open(uri).getpixel((0, 0)), tags) == ((255, 0, 0), ["b"])


@pytest.mark.parametrize("column", ["image", "picture"])
def test_lists_of_pictures_are_refused_in_a_short_line(
    column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _table(tmp_path / "x.parquet", {column: [_pictures("red", "blue")], "label": ["dog"]})
    line = refused(source, "parquet", tmp_path, capsys, "--image-column", column)
    assert f"--image-column must name a column of images or paths; '{column}' of " in line
    assert len(line) < 300


def test_tags_in_text_are_split_as_in_a_manifest(tmp_path: Path) -> None:
    write_pictures(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    source = _table(tmp_path / "x.parquet", {"image": ["1.jpg", "2.jpg", "3.jpg"], "tags": ["dog; cat ;", None, ""]})
    rows, names = imported(source, "parquet", tmp_path)
    assert names == ["cat", "dog"]
    assert tags_of(rows) == {"1.jpg": ["dog", "cat"], "2.jpg": [], "3.jpg": []}


@pytest.mark.parametrize("labels", [[[0, 1, 0]], [[1.0, 0.0]], [[1]]])
def test_lists_of_0_and_1_name_no_class(labels: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _table(tmp_path / "x.parquet", {"image": ["1.jpg"], "labels": labels})
    assert "--label-column must name a column of names or of ClassLabel; 'labels' of " in refused(
        source, "parquet", tmp_path, capsys
    )


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (True, "has tags such as [True]; give names"),
        (0.5, "row 1 has a tag 0.5; give a list of names"),
        ({"bbox": [1, 2]}, "row 1 has a tag {'bbox': [1, 2]}; give a list of names"),
        ([["cat"]], "row 1 has a tag ['cat']; give a list of names"),
    ],
)
def test_labels_that_are_no_names_are_refused(
    label: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _table(tmp_path / "x.parquet", {"image": ["1.jpg"], "label": [label]})
    assert words in refused(source, "parquet", tmp_path, capsys)


def test_numbers_that_pandas_made_floats_of_are_numbers(tmp_path: Path) -> None:
    write_pictures(tmp_path, *(f"{number}.jpg" for number in range(4)))
    columns = {"image": [f"{number}.jpg" for number in range(4)], "label": [10.0, 9.0, float("nan"), None]}
    rows, names = imported(_table(tmp_path / "x.parquet", columns), "parquet", tmp_path)
    assert names == ["9", "10"]
    assert list(tags_of(rows).values()) == [["10"], ["9"], [], []]
    features = {"label": {"_type": "ClassLabel", "names": [str(number) for number in range(11)]}}
    rows, _ = imported(_table(tmp_path / "x.parquet", columns, features), "parquet", tmp_path, "--overwrite")
    assert list(tags_of(rows).values()) == [["10"], ["9"], [], []]


def test_path_of_several_rows_is_one_image_with_the_tags_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "photos", "1.jpg", "sub/2.jpg")
    columns = {"image": ["1.jpg", "sub\\2.jpg", "1.jpg"], "label": ["dog", "cat", "cat"]}
    source = _table(tmp_path / "x.parquet", columns)
    rows, _ = imported(source, "parquet", tmp_path, "--images", str(tmp_path / "photos"))
    assert tags_of(rows) == {"1.jpg": ["dog", "cat"], "sub/2.jpg": ["cat"]}
    assert "duplicate entries of a file (tags merged): 1, such as '1.jpg'" in capsys.readouterr().out


def test_rows_without_a_picture_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [None, *_pictures("red"), {"bytes": b"", "path": None}]
    source = _table(tmp_path / "x.parquet", {"image": images, "label": ["a", "b", "c"]})
    rows, _ = imported(source, "parquet", tmp_path / "out")
    assert list(tags_of(rows).values()) == [["b"]]
    assert "rows without an image (skipped): 2, such as 'x.parquet, row 1'" in capsys.readouterr().out


def test_files_that_name_other_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, names in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
        features = {"label": {"_type": "ClassLabel", "names": names}}
        _table(tmp_path / "source" / f"{file}.parquet", {"image": _pictures("red"), "label": [0]}, features)
    line = refused(tmp_path / "source", "parquet", tmp_path, capsys)
    assert line.endswith("b.parquet' has different class names in 'label' than the files before it")


def test_splits_of_a_folder_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, label in (("train-00000-of-00002", "a"), ("train-00001-of-00002", "b"), ("test-00000-of-00001", "c")):
        _table(tmp_path / f"{file}.parquet", {"image": _pictures("red"), "label": [label]})
    line = refused(tmp_path, "parquet", tmp_path / "out", capsys)
    assert f"contains the splits test, train; give one of them, such as '{tmp_path}/test-*.parquet'" in line
    rows, names = imported(tmp_path / "train-*.parquet", "parquet", tmp_path / "out")
    assert (names, len(rows)) == (["a", "b"], 2)


def test_location_that_cannot_be_opened_is_the_sources_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--source", "s3://me:secret@bucket/x.parquet", "--format", "parquet", "--out", str(tmp_path)]
    assert main(job.Import, job.run, arguments) == 2
    assert capsys.readouterr().err.startswith("error: --source has a password in a URI")
