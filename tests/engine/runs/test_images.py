"""The images of a job: opened once for several jobs, and found again where they lie elsewhere the next time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OtherRunError
from engine.runs import images as module
from engine.runs.images import ImageSet
from engine.runs.output import Claimed, claim
from engine.storage import manifest as storage
from engine.storage.manifest import Manifest, freeze_manifest, open_manifest
from engine.storage.sources import find
from tests.engine.runs.examples import options_for, write_data
from tests.engine.storage.sources.examples import tar_bytes

ROWS = "image,tags\na.jpg,cat\nb.jpg,\n"
NAMES = ("cat",)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.csv").write_text(ROWS)
    return tmp_path / "data"


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.num_calls = 0

    def __call__(self, *values: Any, **options: Any) -> Any:
        self.num_calls += 1
        return self.function(*values, **options)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """How often a whole manifest was hashed, and how often it was frozen, since the last call."""
    hashed, freezing = Counted(find._hash_of_bytes), Counted(freeze_manifest)
    monkeypatch.setattr(find, "_hash_of_bytes", hashed)
    monkeypatch.setattr(module, "freeze_manifest", freezing)

    def count() -> tuple[int, int]:
        found = hashed.num_calls, freezing.num_calls
        hashed.num_calls = freezing.num_calls = 0
        return found

    return count


def _begin(images: ImageSet, out: Path, *, job: str = "label", rows_per_shard: int = 2, tags: bool = True) -> Claimed:
    options = options_for(images.data, out)
    return claim(job, options, images, uses=(), inputs={}, rows_per_shard=rows_per_shard, needs_tags=tags)


def _claim(data: str | Path, out: Path) -> Claimed:
    return _begin(ImageSet(options_for(str(data), out)), out)


def _shards(manifest: Manifest) -> list[dict[str, Any]]:
    return [manifest.read_shard(shard) for shard in range(manifest.num_shards)]


def test_jobs_one_after_the_other_freeze_and_hash_the_manifest_once(
    tmp_path: Path, readings: Callable[[], tuple[int, int]]
) -> None:
    data = write_data(tmp_path / "data")

    def run_jobs() -> list[Manifest]:
        images = ImageSet(options_for(data, tmp_path))
        jobs = (("cam", 1024, True), ("seeds", 2, True), ("masks", 3, True), ("segmented", 3, False))
        return [
            _begin(images, tmp_path / job, job=job, rows_per_shard=rows, tags=tags).manifest for job, rows, tags in jobs
        ]

    first = run_jobs()
    assert readings() == (1, 1)
    assert [manifest.num_shards for manifest in first] == [1, 3, 2, 2]
    assert run_jobs() == first  # resumed
    assert readings() == (1, 0)
    shutil.rmtree(tmp_path / "masks")  # and resumed where one job did not begin
    assert run_jobs() == first
    assert readings() == (1, 0)


def test_rows_frozen_for_a_job_without_tags_are_frozen_again_for_one_with_tags(
    tmp_path: Path, readings: Callable[[], tuple[int, int]]
) -> None:
    images = ImageSet(options_for(write_data(tmp_path / "data"), tmp_path))
    _begin(images, tmp_path / "segmented", job="segment", tags=False)
    _begin(images, tmp_path / "masks")
    assert readings() == (1, 2)


@pytest.mark.parametrize("needs_tags", [True, False])
@pytest.mark.parametrize("rows_per_shard", [1, 3, 4, 5, 100])
def test_shards_of_shared_rows_are_those_of_a_manifest_frozen_for_them(
    rows_per_shard: int, needs_tags: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_ROWS_PER_GROUP", 4)  # shards of 3 and 5 rows reach over the ends of the groups
    (tmp_path / "manifest.csv").write_text(
        "image_id,image,tags\n" + "".join(f"{n},{n}.jpg,{['cat', 'dog;cat', '', 'cow'][n % 4]}\n" for n in range(11))
    )
    data, names = str(tmp_path / "manifest.csv"), ("cat", "dog")  # a cow is no class
    images = ImageSet(options_for(data, tmp_path))
    first = images.frozen_in(str(tmp_path / "first"), rows_per_shard=2, class_names=NAMES, needs_tags=True)
    shared = images.frozen_in(
        str(tmp_path / "shared"), rows_per_shard=rows_per_shard, class_names=names, needs_tags=needs_tags
    )
    alone = freeze_manifest(
        data, str(tmp_path / "alone"), rows_per_shard=rows_per_shard, class_names=names, needs_tags=needs_tags
    )
    assert shared.rows_of_shards == alone.rows_of_shards
    assert _shards(shared) == _shards(alone)
    assert open_manifest(str(tmp_path / "shared")) == shared
    assert Path(shared.location).samefile(first.location)  # one file on the disk
    rows = [row for shard in _shards(first) for row in shard["image_id"]]
    assert rows == [str(number) for number in range(11)]


def test_images_moved_between_two_runs_are_frozen_once_for_all_jobs(
    data: Path, tmp_path: Path, readings: Callable[[], tuple[int, int]]
) -> None:
    for job in ("seeds", "masks"):
        _claim(data / "manifest.csv", tmp_path / job)
    data.rename(tmp_path / "moved")
    images = ImageSet(options_for(str(tmp_path / "moved" / "manifest.csv"), tmp_path))
    readings()
    for job in ("seeds", "masks"):
        rows = _begin(images, tmp_path / job).manifest.read_shard(0)
        assert rows["uri"] == [str(tmp_path / "moved" / name) for name in ("a.jpg", "b.jpg")]
        assert rows["error"] == [None, None]
    assert readings() == (1, 1)


def test_same_rows_of_another_folder_are_other_images(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = _claim(data / "manifest.csv", out)
    assert _claim(data / "manifest.csv", out).manifest == first.manifest
    shutil.copytree(data, tmp_path / "other")
    with pytest.raises(
        OtherRunError, match=rf"^out .* images in '{data}', but data refers to images with the same names in '.*other'$"
    ):
        _claim(tmp_path / "other" / "manifest.csv", out)
    (tmp_path / "link").symlink_to(data)  # the same folder by another name
    assert _claim(tmp_path / "link" / "manifest.csv", out).manifest == first.manifest


def test_so_are_the_same_tars_of_another_folder(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        members = [("a.jpg", b"x"), ("a.txt", b"cat")]
        (tmp_path / name / "0.tar").write_bytes(tar_bytes(members))
    _claim(tmp_path / "one", tmp_path / "out")
    with pytest.raises(OtherRunError, match=r"refers to images with the same names in '.*other'"):
        _claim(tmp_path / "other", tmp_path / "out")
    (tmp_path / "one").rename(tmp_path / "moved")
    assert _claim(tmp_path / "moved", tmp_path / "out").manifest.read_shard(0)["uri"][0].endswith("moved/0.tar")


def test_data_that_was_moved_is_found_in_its_new_place(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _claim(data / "manifest.csv", out)
    data.rename(tmp_path / "moved")
    for _ in range(2):
        rows = _claim(tmp_path / "moved" / "manifest.csv", out).manifest.read_shard(0)
        assert rows["uri"] == [str(tmp_path / "moved" / name) for name in ("a.jpg", "b.jpg")]
        assert rows["error"] == [None, None]


def test_manifest_of_images_that_lie_anywhere_may_be_copied(data: Path, tmp_path: Path) -> None:
    (data / "manifest.csv").write_text("image,tags\ns3://bucket/a.jpg,cat\n")
    first = _claim(data / "manifest.csv", tmp_path / "out")
    shutil.copytree(data, tmp_path / "other")
    assert _claim(tmp_path / "other" / "manifest.csv", tmp_path / "out").manifest == first.manifest
