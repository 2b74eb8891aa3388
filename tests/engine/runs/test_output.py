"""Whose output a folder is, and what a job accepts as the output of an earlier one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import OtherRunError, StorageError, UserError
from engine.runs.images import ImageSet
from engine.runs.options import DataOptions
from engine.runs.output import Claimed, claim, earlier_output
from tests.engine.runs.examples import options_for, write_data, write_output


def _earlier(folder: Path, data: str) -> Claimed:
    images = ImageSet(options_for(data, folder))
    return earlier_output(str(folder), ("make_seeds",), thing="seeds", images=images)


def _claim(options: DataOptions) -> Claimed:
    return claim("label", options, ImageSet(options), uses=("walk",), inputs={}, rows_per_shard=2)


def test_complete_output_is_accepted_and_says_what_it_was_made_from(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    claimed = write_output(tmp_path / "seeds", data, "make_seeds")
    made = _earlier(tmp_path / "seeds", data)
    assert made.hash == claimed.hash
    assert (made.manifest.rows_of_shards, made.manifest.class_names) == ((2, 2, 1), ("cat",))


@pytest.mark.parametrize(
    ("shards", "words"),
    [(2, "is incomplete: 1 of 3 shards are missing; rerun jobs.make_seeds"), (-1, "has no run.json")],
)
def test_output_that_is_not_complete_is_refused(shards: int, words: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    if shards >= 0:
        write_output(tmp_path / "seeds", data, "make_seeds", shards=shards)
    with pytest.raises(StorageError, match=r"^seeds '") as refused:
        _earlier(tmp_path / "seeds", data)
    assert words in str(refused.value)


def test_shards_of_other_images_are_refused(tmp_path: Path) -> None:
    write_output(tmp_path / "seeds", write_data(tmp_path / "data"), "make_seeds")
    other = write_data(tmp_path / "more", num_images=6)
    with pytest.raises(StorageError, match=r"^seeds '.*' was made from a manifest other than data"):
        _earlier(tmp_path / "seeds", other)


def test_output_of_another_job_is_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    write_output(tmp_path / "masks", data, "label")
    with pytest.raises(UserError, match=r"^seeds '.*' was written by jobs\.label; .*jobs\.make_seeds"):
        _earlier(tmp_path / "masks", data)


def test_manifest_that_cannot_be_used_leaves_the_output_folder_free(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    Path(data).write_text("image,tags\na.png,cat\na.png,cat\n")  # the same image_id twice
    with pytest.raises(UserError, match=r"a\.png"):
        _claim(options_for(data, tmp_path / "out"))
    Path(data).write_text("image,tags\na.png,cat\nb.png,cat\n")
    assert _claim(options_for(data, tmp_path / "out")).manifest.num_rows == 2


def test_only_the_settings_that_a_job_uses_decide_whose_folder_it_is(tmp_path: Path) -> None:
    options = options_for(write_data(tmp_path / "data"), tmp_path / "out")
    settings = options.settings
    claimed = _claim(options)
    other_crf = replace(settings, crf=replace(settings.crf, num_iterations=1))
    assert _claim(replace(options, settings=other_crf)).hash == claimed.hash
    (tmp_path / "out" / "weights.safetensors").touch()  # a folder without results has no claim
    other_walk = replace(settings, walk=replace(settings.walk, alpha=3.0))
    with pytest.raises(OtherRunError, match=r"settings\.walk\.alpha: 2\.0 -> 3\.0") as refused:
        _claim(replace(options, settings=other_walk))
    assert refused.value.thing == "out"
