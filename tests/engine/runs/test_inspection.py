"""Data sets that are inspected before a run: what is written, said and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import ManifestError
from engine.runs.images import ImageSet
from engine.runs.inspection import RESULT, inspect_images, lines_of
from engine.runs.options import DataOptions
from engine.storage.run_record import read_json
from tests.jobs.small_runs import small_settings


def _options(folder: Path, *tags: str) -> DataOptions:
    for number in range(len(tags)):
        values = np.random.default_rng(number).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    rows = "".join(f"{number}.png,{value}\n" for number, value in enumerate(tags))
    (folder / "manifest.csv").write_text(f"image,tags\n{rows}")
    (folder / "classes.txt").write_text("cat\ndog\n")
    return DataOptions(data=str(folder / "manifest.csv"), out=str(folder / "out"), settings=small_settings())


def test_result_is_written_and_kept(tmp_path: Path) -> None:
    options = _options(tmp_path, "cat", "dog;cat", "", "dog")
    result = inspect_images(options, ImageSet(options), predict=False)
    assert result == read_json(str(tmp_path / "out" / RESULT))
    assert (result["images"], result["classes"], result["tag_histogram"]) == (
        4,
        {"cat": 2, "dog": 2},
        {"0": 1, "1": 2, "2": 1},
    )
    assert lines_of(result)[0] == "4 images, 2 classes, 1.0 tags per image (1 with 0, 2 with 1, 1 with 2): cat 2, dog 2"
    assert [line.partition(":")[0] for line in lines_of(result)[2:]] == ["warning"]  # few images
    assert inspect_images(options, ImageSet(options), predict=False) == result


def test_what_cannot_work_is_refused_and_leaves_the_folder_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(tmp_path, "", "")
    with pytest.raises(ManifestError, match=r"manifest\.csv': no image has a tag"):
        inspect_images(options, ImageSet(options), predict=False)
    assert not list((tmp_path / "out").iterdir())
    options = _options(tmp_path, "cat", "dog")
    for picture in tmp_path.glob("*.png"):
        picture.write_text("no picture")
    with pytest.raises(ManifestError, match="2 of 2 sampled images are unusable"):
        inspect_images(options, ImageSet(options), predict=False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # its nodes may read them
    (found,) = (
        one
        for one in inspect_images(options, ImageSet(options), predict=False)["findings"]
        if one["severity"] == "error"
    )
    assert found["kind"] == "unreadable images"


def test_run_is_estimated_unless_its_gpu_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = _options(tmp_path, "cat", "dog", "cat")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    gpus = replace(options.settings, resources=replace(options.settings.resources, num_gpus=1.0))
    options = replace(options, settings=gpus)
    result = inspect_images(options, ImageSet(options), predict=True)
    assert (result["forecast"], result["preset"]) == (None, "small")
    assert "a run cannot be estimated" in "\n".join(lines_of(result))


@pytest.mark.slow
def test_estimate_is_measured_in_another_process(tmp_path: Path) -> None:
    options = _options(tmp_path, "cat", "dog", "cat")
    result = inspect_images(options, ImageSet(options), predict=True)
    assert result["forecast"]["total_s"] > 0
    assert lines_of(result)[-2].startswith("estimate for jobs.run on this machine: ")
