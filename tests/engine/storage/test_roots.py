"""engine/storage/roots.py: a manifest leads to no file but those beside it, unless the user says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ManifestError
from engine.storage.manifest import Manifest, freeze_manifest
from engine.storage.roots import lies_outside


@pytest.mark.parametrize(
    ("image", "folder"),
    [
        ("a.jpg", "/data/set"),
        ("./a/../b.jpg", "/data/set"),
        ("..a.jpg", "/data/set"),
        ("/data/set/a.jpg", "/data/set"),
        ("file:///data/set/a%20b.jpg", "/data/set"),
        ("s3://other/a.jpg", "/data/set"),
        ("../../a.jpg", "s3://bucket/set"),
        ("a.jpg", "/"),
        ("tar://0+100//data/set/a.tar", "/data/set"),
        ("parquet://0@4+100/s3://bucket/a.parquet", "/data/set"),
    ],
)
def test_path_below_the_folder_or_in_a_store_is_inside(image: str, folder: str) -> None:
    assert not lies_outside(image, folder)


@pytest.mark.parametrize(
    ("image", "folder"),
    [
        ("../a.jpg", "/data/set"),
        ("a/../../a.jpg", "/data/set"),
        ("/etc/passwd", "/data/set"),
        ("/data/set/../a.jpg", "/data/set"),
        ("/data/set2/a.jpg", "/data/set"),
        ("file:///etc/passwd", "/data/set"),
        ("file:///data/set/..%2Fa.jpg", "/data/set"),
        ("file://etc/passwd", "/data/set"),
        ("/etc/passwd", "s3://bucket/set"),
        ("file:///etc/passwd", "s3://bucket/set"),
        ("tar://0+100//etc/passwd", "/data/set"),
        ("tar://0+100/file:///etc/passwd", "s3://bucket/set"),
        ("parquet://0@4+100//etc/a.parquet", "/data/set"),
        ("parquet://0@4+100/a.parquet", "/data/set"),  # read from the folder that the job runs in
        ("tar://0+10//etc/passwd", "/data/set"),
        ("parquet://0@4+100//etc/passwd", "/data/set"),
    ],
)
def test_path_that_leaves_the_folder_is_outside(image: str, folder: str) -> None:
    assert lies_outside(image, folder)


def _freeze(folder: Path, *images: str, allow_outside: bool = False) -> Manifest:
    (folder / "m.csv").write_text("image,tags\n" + "".join(f"{image},cat\n" for image in images))
    return freeze_manifest(
        str(folder / "m.csv"), str(folder / "out"), rows_per_shard=9, class_names=("cat",), allow_outside=allow_outside
    )


def test_image_outside_is_an_error_row_unless_it_is_allowed(tmp_path: Path) -> None:
    rows = _freeze(tmp_path, "a.jpg", "../b.jpg", "/c.jpg").read_shard(0)
    assert rows["error"][0] is None
    for image, error in zip(rows["image"][1:], rows["error"][1:], strict=True):
        assert error == f"manifest: '{image}' lies outside the manifest's folder, and allow_outside is not set"
    rows = _freeze(tmp_path, "a.jpg", "../b.jpg", "/c.jpg", allow_outside=True).read_shard(0)
    assert rows["error"] == [None] * 3
    assert rows["uri"] == [str(tmp_path / "a.jpg"), str(tmp_path.parent / "b.jpg"), "/c.jpg"]


def test_manifest_whose_images_all_lie_outside_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"only has images outside its folder"):
        _freeze(tmp_path, "../b.jpg", "/c.jpg")
    assert not (tmp_path / "out" / "manifest").exists()
