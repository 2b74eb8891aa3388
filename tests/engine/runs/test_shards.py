"""Whose output a folder is, where the data lies elsewhere the next time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.errors import OtherRunError
from engine.runs.options import DataOptions
from engine.runs.shards import Claimed, claim
from tests.engine.storage.sources.examples import tar_bytes

ROWS = "image,tags\na.jpg,cat\nb.jpg,\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.csv").write_text(ROWS)
    return tmp_path / "data"


def _claim(data: Path, out: Path) -> Claimed:
    options = DataOptions(data=str(data / "manifest.csv"), out=str(out))
    return claim("label", options, {}, {}, rows_per_shard=2)


def test_same_rows_of_another_folder_are_other_images(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = _claim(data, out)
    assert _claim(data, out).manifest == first.manifest
    shutil.copytree(data, tmp_path / "other")
    with pytest.raises(OtherRunError, match=rf"images below '{data}', and --data names the same ones below '.*other'"):
        _claim(tmp_path / "other", out)
    (tmp_path / "link").symlink_to(data)  # the same folder by another name
    assert _claim(tmp_path / "link", out).manifest == first.manifest


def test_so_are_the_same_tars_of_another_folder(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        members = [("a.jpg", b"x"), ("a.txt", b"cat")]
        (tmp_path / name / "0.tar").write_bytes(tar_bytes(members))

    def begin(name: str) -> Claimed:
        options = DataOptions(data=str(tmp_path / name), out=str(tmp_path / "out"))
        return claim("label", options, {}, {}, rows_per_shard=2)

    begin("one")
    with pytest.raises(OtherRunError, match=r"names the same ones below '.*other'"):
        begin("other")
    (tmp_path / "one").rename(tmp_path / "moved")
    assert begin("moved").manifest.read_shard(0)["uri"][0].endswith("moved/0.tar")


def test_data_that_was_moved_is_found_in_its_new_place(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _claim(data, out)
    data.rename(tmp_path / "moved")
    for _ in range(2):
        rows = _claim(tmp_path / "moved", out).manifest.read_shard(0)
        assert rows["uri"] == [str(tmp_path / "moved" / name) for name in ("a.jpg", "b.jpg")]
        assert rows["error"] == [None, None]


def test_manifest_of_images_that_lie_anywhere_may_be_copied(data: Path, tmp_path: Path) -> None:
    (data / "manifest.csv").write_text("image,tags\ns3://bucket/a.jpg,cat\n")
    first = _claim(data, tmp_path / "out")
    shutil.copytree(data, tmp_path / "other")
    assert _claim(tmp_path / "other", tmp_path / "out").manifest == first.manifest
