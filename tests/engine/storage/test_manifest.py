"""engine/storage/manifest.py: manifests as users write them, good and bad."""

from __future__ import annotations

import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import LocationError, ManifestError, MissingError, StorageError, UserError
from engine.storage import filesystem
from engine.storage.class_names import read_class_names
from engine.storage.manifest import Manifest, freeze_manifest, open_manifest
from engine.storage.user_manifest import iter_manifest
from tests.engine.storage.sources.examples import tar_bytes
from tests.s3_server import S3Server

CSV = "image,tags\nimages/a.jpg,cat;dog\nimages/b.jpg,\nimages/c.jpg, dog ;;cat;dog\n"


def write(folder: Path, name: str, content: str | bytes) -> str:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder / name)


def rows_of(location: str) -> list[tuple[str, str, list[str]]]:
    rows: list[tuple[str, str, list[str]]] = []
    for batch in iter_manifest(location):
        rows += list(zip(batch["image_id"], batch["image"], batch["tags"], strict=True))
    return rows


def freeze(location: str, folder: Path, rows_per_shard: int = 2) -> Manifest:
    return freeze_manifest(
        location, str(folder / "out"), rows_per_shard=rows_per_shard, class_names=read_class_names(location)
    )


def all_rows(manifest: Manifest) -> dict[str, list[Any]]:
    shards = [manifest.read_shard(shard) for shard in range(manifest.num_shards)]
    return {name: [value for shard in shards for value in shard[name]] for name in shards[0]}


def test_every_kind_of_manifest_gives_the_same_rows(tmp_path: Path) -> None:
    expected = [("7", "a.jpg", ["cat", "dog"]), ("00000", "b.jpg", []), ("c.jpg", "c.jpg", ["dog"])]
    write(tmp_path, "m.csv", "image_id,image,tags,more\n7,a.jpg,cat;dog,x\n00000,b.jpg,,y\n,c.jpg,dog,z\n")
    lines = [
        {"image": "a.jpg", "tags": ["cat", "dog"], "image_id": 7},
        {"image": "b.jpg", "tags": None, "image_id": "00000"},
        {"image": "c.jpg", "tags": "dog", "more": 1.5},
    ]
    write(tmp_path, "m.jsonl", "\n".join(json.dumps(line) for line in lines) + "\n\n")
    table = {"image": ["a.jpg", "b.jpg", "c.jpg"], "image_id": ["7", "00000", None]}
    tags = pa.array([["cat", "dog"], None, ["dog"]])
    pq.write_table(pa.table({**table, "tags": tags}), tmp_path / "list.parquet")
    pq.write_table(pa.table({**table, "tags": ["cat;dog", "", "dog"]}), tmp_path / "text.parquet")
    for name in ("m.csv", "m.jsonl", "list.parquet", "text.parquet"):
        assert rows_of(str(tmp_path / name)) == expected, name


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + CSV.encode(),
        CSV.replace("\n", "\r\n").encode(),
        CSV.rstrip("\n").encode(),
        CSV.replace("\n", "\n\n").encode(),
        b'"image", "tags"\n"images/a.jpg", "cat;dog"\nimages/b.jpg,""\nimages/c.jpg,"dog;cat"\n',
    ],
)
def test_csv_of_any_program_is_read(tmp_path: Path, content: bytes) -> None:
    assert rows_of(write(tmp_path, "m.csv", content)) == [
        ("images/a.jpg", "images/a.jpg", ["cat", "dog"]),
        ("images/b.jpg", "images/b.jpg", []),
        ("images/c.jpg", "images/c.jpg", ["dog", "cat"]),
    ]


def test_names_with_commas_quotes_and_line_breaks_survive(tmp_path: Path) -> None:
    location = write(tmp_path, "m.csv", 'image,tags\n"a, ""b""\nc.jpg",猫\n')
    assert rows_of(location) == [('a, "b"\nc.jpg', 'a, "b"\nc.jpg', ["猫"])]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("m.txt", "image,tags\n", "must be a file that ends with .csv, .jsonl, .parquet"),
        ("m.csv", "", "is empty"),
        ("m.csv", "image,tags\n", "holds no image"),
        ("m.csv", "image,note\na.jpg,cat\n", "has no column 'tags'"),
        ("m.csv", "a.jpg,cat\nb.jpg,dog\n", "has no column 'image' and 'tags'"),
        ("m.csv", "image,tags,image\na,b,c\n", "has the column 'image' twice"),
        ("m.csv", "image,tags\na.jpg,cat,dog\n", "line 2 has 3 columns where the header has 2"),
        ("m.csv", 'image,tags\n"a.jpg,cat\n', "is not CSV"),
        ("m.csv", "image,tags\né.jpg,cat\n".encode("latin-1"), "is not UTF-8"),
        ("m.csv", "image,tags\n,cat\n", "row 1 has neither an image nor an image_id"),
        ("m.jsonl", "", "holds no image"),
        ("m.jsonl", '{"image": "a.jpg", "tags": []}\n{"image"\n', "line 2 is not JSON"),
        ("m.jsonl", '["a.jpg", "cat"]\n', "line 1 is not a JSON object"),
        ("m.jsonl", '{"image": "a.jpg"}\n', "has no column 'tags'"),
        ("m.jsonl", '{"image": "a.jpg", "tags": {"cat": 1}}\n', "row 1 has tags"),
        ("m.jsonl", '{"image": ["a.jpg"], "tags": []}\n', "row 1 has image"),
        ("m.parquet", "no parquet", "is not a readable parquet file"),
        ("m.parquet", "", "is not a readable parquet file"),
    ],
)
def test_manifest_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, name: str, content: str | bytes, sentence: str
) -> None:
    location = write(tmp_path, name, content)
    with pytest.raises(UserError, match=r"^data") as caught:
        freeze(location, tmp_path)
    assert sentence in str(caught.value)
    assert location in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_images_may_come_without_tags_where_none_are_needed(tmp_path: Path) -> None:
    write(tmp_path, "m.csv", "image,note\na.jpg,cat\nb.jpg,\n")
    write(tmp_path, "m.jsonl", '{"image": "a.jpg"}\n{"image": "b.jpg"}\n')
    pq.write_table(pa.table({"image": ["a.jpg", "b.jpg"]}), tmp_path / "m.parquet")
    told = b'{"caption": "a cat"}'
    write(tmp_path, "m.tar", tar_bytes([("a.jpg", b"x"), ("a.json", told), ("b.jpg", b"y"), ("b.json", told)]))
    for name in ("m.csv", "m.jsonl", "m.parquet", "m.tar"):
        out = tmp_path / f"frozen-{name}"
        with pytest.raises(ManifestError, match="tags"):
            freeze_manifest(str(tmp_path / name), str(out), rows_per_shard=2, class_names=("cat",))
        manifest = freeze_manifest(
            str(tmp_path / name), str(out), rows_per_shard=2, class_names=("cat",), needs_tags=False
        )
        rows = manifest.read_shard(0)
        assert [Path(image).name for image in rows["image"]] == ["a.jpg", "b.jpg"]
        assert (rows["tags"], rows["class_ids"], rows["error"]) == ([[], []], [[], []], [None, None])
    location = write(tmp_path, "captions.csv", "image,tags\na.jpg,a cat on a mat\nb.jpg,cat\n")
    for needs_tags in (True, False):
        captions = str(tmp_path / f"captions-{needs_tags}")
        freeze_manifest(location, captions, rows_per_shard=2, class_names=("cat",), needs_tags=needs_tags)
        rows = open_manifest(captions).read_shard(0)
        assert (rows["error"][0] is None, rows["error"][1]) == (not needs_tags, None)
        assert rows["class_ids"] == [[], [1]]
    assert rows["tags"] == [[], ["cat"]]
    location = write(tmp_path, "other.csv", "name,tags\na.jpg,cat\n")
    with pytest.raises(ManifestError, match=r"has no column 'image' .*; it needs image, optionally tags and image_id"):
        freeze_manifest(location, str(tmp_path / "out"), rows_per_shard=2, class_names=("cat",), needs_tags=False)


def test_manifest_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, sentence in (("no.csv", "does not exist"), ("no/no.parquet", "does not exist"), ("folder.csv", "folder")):
        with pytest.raises(StorageError, match=sentence):
            freeze(str(tmp_path / name), tmp_path)
    with pytest.raises(LocationError, match="give a local path or a URI"):
        freeze("ftp://bucket/m.csv", tmp_path)


def test_rows_are_frozen_with_where_they_lie_and_their_class_ids(tmp_path: Path) -> None:
    write(tmp_path, "classes.txt", "dog\ncat\n")
    manifest = freeze(write(tmp_path, "m.csv", CSV), tmp_path)
    assert (manifest.num_rows, manifest.num_shards, manifest.class_names) == (3, 2, ("dog", "cat"))
    assert manifest.read_shard(1)["image_id"] == ["images/c.jpg"]
    assert all_rows(manifest) == {
        "image_id": ["images/a.jpg", "images/b.jpg", "images/c.jpg"],
        "image": ["images/a.jpg", "images/b.jpg", "images/c.jpg"],
        "uri": [str(tmp_path / "images" / name) for name in ("a.jpg", "b.jpg", "c.jpg")],
        "tags": [["cat", "dog"], [], ["dog", "cat"]],
        "class_ids": [[2, 1], [], [1, 2]],
        "error": [None, None, None],
    }


def test_tag_outside_the_classes_and_missing_image_are_errors_of_their_rows(tmp_path: Path) -> None:
    write(tmp_path, "classes.txt", "cat\n")
    manifest = freeze(write(tmp_path, "m.csv", "image,tags,image_id\na.jpg,cat;cow,1\n,cat,2\nb.jpg,cat,3\n"), tmp_path)
    rows = all_rows(manifest)
    assert rows["error"] == [
        "manifest: tag 'cow' is not among the classes",
        "manifest: the row names no image",
        None,
    ]
    assert rows["class_ids"] == [[], [1], [1]]
    assert rows["image"] == ["a.jpg", "", "b.jpg"]


def test_frozen_manifest_is_opened_from_its_folder_and_travels_by_pickle(tmp_path: Path) -> None:
    manifest = freeze(write(tmp_path, "m.csv", CSV), tmp_path)
    assert open_manifest(str(tmp_path / "out")) == manifest
    assert all_rows(pickle.loads(pickle.dumps(manifest))) == all_rows(manifest)
    with pytest.raises(StorageError, match="does not exist"):
        open_manifest(str(tmp_path))
    write(tmp_path, "manifest", "no parquet")
    with pytest.raises(MissingError, match="does not exist"):
        open_manifest(str(tmp_path))


def test_frozen_manifest_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    first = freeze(write(tmp_path, "m.csv", CSV), tmp_path)
    assert first.read_shard(0)["image"][0] == "images/a.jpg"
    second = freeze(write(tmp_path, "m.csv", CSV.replace("a.jpg", "z.jpg")), tmp_path)
    assert second.read_shard(0)["image"][0] == "images/z.jpg"
    assert second.data_hash != first.data_hash


@pytest.mark.parametrize("rows_per_shard", [1, 7, 4096, 100_000])
def test_shards_together_are_the_manifest_whatever_their_size(tmp_path: Path, rows_per_shard: int) -> None:
    images = [f"{number}.jpg" for number in range(20_011)]
    location = write(tmp_path, "m.csv", "image,tags\n" + "".join(f"{image},t{image[0]}\n" for image in images))
    manifest = freeze(location, tmp_path, rows_per_shard)
    assert manifest.num_shards == -(-20_011 // rows_per_shard)
    last = manifest.num_shards - 1
    for shard in {0, 1 % manifest.num_shards, last // 2, last}:
        expected = images[shard * rows_per_shard : (shard + 1) * rows_per_shard]
        assert manifest.read_shard(shard)["image"] == expected


def test_frozen_manifest_has_few_row_groups(tmp_path: Path) -> None:
    location = write(tmp_path, "m.csv", "image,tags\n" + "".join(f"{number}.jpg,cat\n" for number in range(20_000)))
    manifest = freeze(location, tmp_path, 16)
    assert pq.read_metadata(manifest.location).num_row_groups == 5


def test_image_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    images = [f"{number}.jpg" for number in range(20_000)] + ["17.jpg"]
    location = write(tmp_path, "m.csv", "image,tags\n" + "".join(f"{image},cat\n" for image in images))
    with pytest.raises(ManifestError, match=r"has the image_id '17.jpg' more than once"):
        freeze(location, tmp_path)
    assert not (tmp_path / "out" / "manifest").exists()


def test_classes_come_from_the_option_then_the_file_beside_then_the_tags(tmp_path: Path) -> None:
    location = write(tmp_path, "m.csv", CSV)
    assert read_class_names(location) == ("cat", "dog")
    write(tmp_path, "classes.txt", b"\xef\xbb\xbfdog\r\ncat \r\ncow\r\n\r\n")
    assert read_class_names(location) == ("dog", "cat", "cow")
    assert read_class_names(location, write(tmp_path, "other.txt", "cow\ncat")) == ("cow", "cat")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "there is no class"),
        ("cat\n\ndog\n", "line 2 is blank"),
        ("cat\ndog\ncat\n", "'cat' is on lines 1 and 3"),
        ("background\ncat\n", "class 0 by itself"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        ("\n".join(map(str, range(65_535))), "65535 classes are more than 65534"),
    ],
)
def test_classes_that_cannot_be_used_are_one_sentence(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    location = write(tmp_path, "m.csv", CSV)
    classes = write(tmp_path, "names.txt", content)
    with pytest.raises(ManifestError, match=sentence) as caught:
        read_class_names(location, classes)
    assert classes in str(caught.value)


def test_file_of_classes_that_is_not_there_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"^classes .*does not exist"):
        read_class_names(write(tmp_path, "m.csv", CSV), str(tmp_path / "no.txt"))


def test_manifest_without_any_tag_needs_a_file_of_classes(tmp_path: Path) -> None:
    location = write(tmp_path, "m.csv", "image,tags\na.jpg,\n")
    with pytest.raises(ManifestError, match="there is no class"):
        freeze(location, tmp_path)
    write(tmp_path, "classes.txt", "cat\n")
    assert all_rows(freeze(location, tmp_path))["class_ids"] == [[]]


@pytest.mark.s3
def test_manifest_in_a_bucket_is_frozen_into_a_bucket(s3: S3Server) -> None:
    bucket = s3.make_bucket(f"manifest-{uuid.uuid4().hex[:12]}")
    location = f"{bucket}/set 1#/m.csv"
    filesystem.write_bytes(location, CSV.encode())
    filesystem.write_bytes(f"{bucket}/set 1#/classes.txt", b"dog\ncat\n")
    manifest = freeze_manifest(location, f"{bucket}/out", rows_per_shard=2, class_names=read_class_names(location))
    assert open_manifest(f"{bucket}/out") == manifest
    assert manifest.read_shard(0)["uri"] == [f"{bucket}/set 1#/images/a.jpg", f"{bucket}/set 1#/images/b.jpg"]
    with pytest.raises(MissingError, match="does not exist"):
        freeze_manifest(f"{bucket}/no.csv", f"{bucket}/out2", rows_per_shard=2, class_names=("cat",))
    assert filesystem.list_entries(f"{bucket}/out2") == {}


@pytest.mark.real
def test_real_manifest_points_at_the_photographs(real_data: Path, tmp_path: Path) -> None:
    manifest = freeze(str(real_data / "voc12_animals" / "manifest.csv"), tmp_path, 64)
    assert manifest.num_rows == 437
    assert manifest.class_names == ("cat", "cow", "dog", "horse", "person", "sheep")
    rows = all_rows(manifest)
    assert all(Path(uri).is_file() for uri in rows["uri"])
    assert rows["error"] == [None] * 437
