"""Data sets of other programs, made by those programs where they are installed, as manifests that the jobs read."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.imports.folders import read_folders
from engine.storage.class_names import read_class_names
from engine.storage.filesystem import write_bytes
from engine.storage.manifest import iter_manifest
from jobs.cli.command import main
from tests.engine.export.examples import CLASS_NAMES, Labeled, export, jpeg, ring
from tests.s3_server import S3Server

job: Any = importlib.import_module("jobs.import")


def _import(
    source: Path, kind: str, out: Path, *options: str, manifest: str = "csv"
) -> tuple[dict[str, Any], list[str]]:
    """What a job sees of the imported data: for each id its file and tags; and the classes."""
    arguments = ["--source", str(source), "--format", kind, "--out", str(out), "--manifest", manifest, *options]
    assert main(job.Import, job.run, arguments) == 0
    location = str(out / f"manifest.{manifest}")
    rows = {
        image_id: (uri, tags)
        for batch in iter_manifest(location)
        for image_id, uri, tags in zip(batch["image_id"], batch["uri"], batch["tags"], strict=True)
    }
    return rows, list(read_class_names(location))


def _items() -> list[Labeled]:
    return [
        Labeled(image_id="images/a.jpg", mask=ring(), encoded=jpeg(40, 60)),
        Labeled(image_id="images/b ü.jpg", mask=np.zeros((40, 60), np.uint8), encoded=jpeg(40, 60), tags=()),
    ]


def test_voc_folder_that_was_exported_comes_back(tmp_path: Path) -> None:
    export(str(tmp_path), "voc", _items())
    root = tmp_path / "VOCdevkit" / "VOC2012"
    rows, names = _import(root, "voc", root)
    assert names == list(CLASS_NAMES)
    assert {image_id: tags for image_id, (_, tags) in rows.items()} == {
        "a": ["cat", CLASS_NAMES[1]],
        "b%20%C3%BC": [],
    }
    assert all(Path(uri).is_file() for uri, _ in rows.values())
    assert "JPEGImages/a.jpg" in (root / "manifest.csv").read_text()


def test_voc_annotations_come_before_masks_and_leave_out_what_is_difficult(tmp_path: Path) -> None:
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    (tmp_path / "voc" / "JPEGImages").mkdir()
    (tmp_path / "voc" / "JPEGImages" / "1.jpg").write_bytes(jpeg(4, 4))
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult></object>"
        for name, difficult in (("dog", 0), ("dog", 0), ("cat", 1), ("person", 0))
    )
    (tmp_path / "voc" / "Annotations" / "1.xml").write_text(f"<annotation>{objects}</annotation>")
    rows, names = _import(tmp_path / "voc", "voc", tmp_path / "out")
    assert rows["1"][1] == ["dog", "person"]
    assert len(names) == 20


@pytest.mark.parametrize("manifest", ["csv", "jsonl", "parquet"])
def test_coco_file_that_was_exported_comes_back(manifest: str, tmp_path: Path) -> None:
    export(str(tmp_path), "coco", _items())
    source = tmp_path / "annotations" / "instances_train.json"
    rows, names = _import(source, "coco", tmp_path, "--images", str(tmp_path / "images"), manifest=manifest)
    assert names == list(CLASS_NAMES)
    assert {image_id: tags for image_id, (_, tags) in rows.items()} == {
        "images/a.jpg": ["cat", CLASS_NAMES[1]],
        "images/b ü.jpg": [],
    }
    assert all(Path(uri).is_file() for uri, _ in rows.values())


def test_class_folders_tag_their_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dog/1.jpg", "dog/2.png", "big cat/1.jpg", "dog/notes.txt", ".cache/1.jpg"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(4, 4))
    rows, names = _import(tmp_path / "data", "folders", tmp_path / "out")
    assert names == ["big cat", "dog"]
    assert {image_id: tags for image_id, (_, tags) in rows.items()} == {
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
    found = read_folders(source, images="", out="")
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
    found = read_folders(f"{bucket}/photos/", images="", out="")
    assert [(one.image_id, one.location) for one in found.images] == [
        (name, f"{bucket}/photos/{name}") for name in ("cat/a#b/c/1.png", "dog/1.jpg", "dog/sub dir/2.jpg")
    ]


def test_class_folders_without_an_image_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dog/1.jpg", "cat/sub/notes.txt", "runs/mine/run.json"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(4, 4))
    arguments = ["--source", str(tmp_path / "photos"), "--format", "folders", "--out", str(tmp_path / "out")]
    assert main(job.Import, job.run, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds folders without an image (2: 'cat', 'runs')" in line
    assert not list((tmp_path / "out").iterdir())


def test_links_of_class_folders_are_followed_but_not_round_in_circles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").write_bytes(jpeg(4, 4))
    (tmp_path / "photos" / "dog").mkdir(parents=True)
    (tmp_path / "photos" / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    rows, _ = _import(tmp_path / "photos", "folders", tmp_path / "out")
    assert list(rows) == ["dog/more/1.jpg"]
    (tmp_path / "photos" / "dog" / "round").symlink_to(tmp_path / "photos")
    arguments = ["--source", str(tmp_path / "photos"), "--format", "folders", "--out", str(tmp_path / "again")]
    assert main(job.Import, job.run, arguments) == 2
    assert "dog/round' links to a folder above it" in capsys.readouterr().err


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
    rows, names = _import(tmp_path / "instances.json", "coco", tmp_path)
    assert names == ["1", "dog"]
    assert rows == {
        "s3://bucket/a b.jpg": ("s3://bucket/a b.jpg", ["1", "dog"]),
        "/data/b.jpg": ("/data/b.jpg", []),
        "sub/c.jpg": (str(tmp_path / "sub" / "c.jpg"), []),
        "17": (str(tmp_path / "17"), []),
    }


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
    rows, names = _import(tmp_path / "train.parquet", "parquet", tmp_path / "out")
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
    rows, _ = _import(source.parent, "parquet", tmp_path / "out")
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
    rows, names = _import(tmp_path / "train.parquet", "parquet", tmp_path)
    assert names == ["cat", "dog"]
    assert [tags for _, tags in rows.values()] == [["dog"], ["cat"]]


def test_name_that_is_not_utf_8_is_the_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    not_utf_8 = r"--source has a name that is not UTF-8, in .*caf\\udce9"
    for source, name, reason in (
        ("images", b"dog/caf\xe9.jpg", not_utf_8),
        ("new-classes", b"caf\xe9/1.jpg", not_utf_8),
        ("classes", b"caf\xe9/1.jpg", "--out holds .* already"),
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


def test_mask_that_cannot_be_read_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / name).mkdir()
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(jpeg(4, 4))
    mask = tmp_path / "SegmentationClass" / "a.png"
    arguments = ["--source", str(tmp_path), "--format", "voc", "--out", str(tmp_path / "out")]
    mask.write_bytes(b"no picture")
    assert main(job.Import, job.run, arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: --source '{mask}' is not a readable mask: ")
    mask.unlink()
    mask.symlink_to(tmp_path / "nowhere")
    assert main(job.Import, job.run, arguments) == 2
    assert capsys.readouterr().err == f"error: --source '{mask}' does not exist\n"
