"""Every kind of source gives the same pictures and tags, on a disk and in a bucket."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import ManifestError
from engine.stages.fetch import FetchImages
from engine.stages.load_shard import LoadShard
from engine.storage.class_names import read_class_names
from engine.storage.manifest import freeze_manifest
from engine.storage.pictures import read_picture
from engine.storage.sources.columns import TableForm
from engine.storage.sources.find import source_hash
from engine.storage.user_manifest import iter_manifest
from tests.engine.storage.sources.examples import Sample, samples, write_sources
from tests.s3_server import S3Server


def _labeled_rows(data: str, folder: str) -> list[tuple[str, bytes | None, list[str], str | None]]:
    """Image, picture, tags and error of every row, as the first two stages of a job leave them."""
    manifest = freeze_manifest(data, folder, rows_per_shard=2, class_names=read_class_names(data))
    load, fetch = LoadShard(manifest), FetchImages(threads=2)
    rows = []
    for shard in range(manifest.num_shards):
        batch = fetch(load({"shard": [shard]}))
        assert batch["image_id"] == batch["image"]
        rows += list(zip(batch["image"], batch["encoded"], batch["tags"], batch["error"], strict=True))
    return rows


def _check_all_alike(folder: str, some: list[Sample]) -> None:
    sources = write_sources(folder, some)
    names = {
        "manifest": [f"files/{name}" for name, *_ in some],
        "tars": [f"{number // 3 and 1:05d}.tar/{name}" for number, (name, *_) in enumerate(some)],
        "parquet": [f"train-{number // 3 and 1}.parquet/{name}" for number, (name, *_) in enumerate(some)],
        "binary": [f"plain.parquet/{number}" for number in range(len(some))],
    }
    names["folder of tars"] = names["tars"]
    for kind, data in sources.items():
        rows = _labeled_rows(data, f"{folder}/frozen/{kind}")
        expected = [(image, picture, tags, None) for image, (_, picture, tags) in zip(names[kind], some, strict=True)]
        assert rows == expected, kind


def test_every_source_gives_the_same_pictures_and_tags(tmp_path: Path) -> None:
    _check_all_alike(str(tmp_path), samples())


@pytest.mark.s3
def test_every_source_in_a_bucket_gives_the_same_pictures_and_tags(s3: S3Server) -> None:
    _check_all_alike(f"{s3.make_bucket(f'sources-{uuid.uuid4().hex[:12]}')}/a b", samples())


def test_each_picture_is_read_by_itself_too(tmp_path: Path) -> None:
    some = samples()
    for data in write_sources(tmp_path, some).values():
        uris = [uri for batch in iter_manifest(data) for uri in batch["uri"]]
        assert [read_picture(uri) for uri in uris] == [picture for _, picture, _ in some]


def test_hash_of_a_source_tells_other_rows_and_ignores_where_they_lie(tmp_path: Path) -> None:
    some = samples()
    first, moved = write_sources(tmp_path / "a", some), write_sources(tmp_path / "b", some)
    other = write_sources(tmp_path / "c", [*some[:-1], ("9999.jpg", b"longer" * 1000, ["dog"])])
    for kind in first:
        assert source_hash(first[kind]) == source_hash(moved[kind]) != source_hash(other[kind])


def _write_table(folder: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), folder / "p.parquet")
    return str(folder / "p.parquet")


def test_rows_of_parquet_whose_paths_repeat_are_named_by_their_numbers(tmp_path: Path) -> None:
    paths = ["a.jpg", "image.jpg", None, "image.jpg", ""]
    image = [{"bytes": bytes([row]), "path": path} for row, path in enumerate(paths)]
    [batch] = iter_manifest(_write_table(tmp_path, image=image, tags=[["cat"]] * 5))
    names = ["p.parquet/a.jpg", "p.parquet/1", "p.parquet/2", "p.parquet/3", "p.parquet/4"]
    assert batch["image_id"] == batch["image"] == names
    assert [read_picture(uri) for uri in batch["uri"]] == [bytes([row]) for row in range(5)]


def test_pictures_in_a_column_of_another_name_are_found(tmp_path: Path) -> None:
    location = _write_table(tmp_path, img=[b"one", b"two"], other=[b"three", b"four"], label=["cat", "dog"])
    for column, pictures in (("", [b"one", b"two"]), ("other", [b"three", b"four"])):
        [batch] = iter_manifest(location, TableForm(image_column=column))
        assert [read_picture(uri) for uri in batch["uri"]] == pictures
        assert batch["tags"] == [["cat"], ["dog"]]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"image": [[{"bytes": b"x" * 5000}]], "tags": ["cat"]},
            "its column 'image' holds lists; a row is one picture",
        ),
        (
            {"image": [b"x"], "label": [b"y" * 5000]},
            "its column 'label' holds pictures; tags are names. Masks are truth",
        ),
        (
            {"image": ["a.jpg"], "tags": ["cat"], "image_id": [1.0]},
            r"row 1 has image_id 1\.0; give text or whole numbers",
        ),
        (
            {"image": ["a.jpg"], "tags": [[{"name": "cat" * 99}]]},
            r"row 1 has a tag \{'name': 'cat.{,60}\.\.\.; give a list",
        ),
        ({"image": [{"bytes": b"x", "path": "a"}], "label": [7]}, "row 1 has tags 7; give a list of names"),
    ],
)
def test_column_of_parquet_that_cannot_be_read_is_one_short_line(
    tmp_path: Path, columns: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ManifestError, match=sentence) as caught:
        list(iter_manifest(_write_table(tmp_path, **columns)))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_ids_of_pandas_may_be_missing(tmp_path: Path) -> None:
    for ids in ([7, None], ["7", None]):
        [batch] = iter_manifest(_write_table(tmp_path, image=["a.jpg", "b.jpg"], tags=["cat", "dog"], image_id=ids))
        assert batch["image_id"] == ["7", "b.jpg"]
