"""From the record of an earlier job to the settings that a later one starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config import Settings
from engine.errors import ConfigError, OutputError
from engine.plain_settings import with_part
from engine.presets import preset
from engine.runs.images import ImageSet
from engine.runs.options import DataOptions
from engine.runs.output import claim, run_record
from engine.storage.recorded_settings import recorded_settings, recorded_synonyms
from engine.storage.run_record import write_json

MINE: Settings = with_part(with_part(preset("paper"), "walk.beta", 3.0), "affinity.inference.long_side_px", 200)


def _folder(place: Path, settings: Settings, *uses: str) -> str:
    options = DataOptions(out=str(place), data="m.csv", settings=settings)
    write_json(str(place / "run.json"), run_record("train_cam", options, uses=uses, inputs={}, class_names=["cat"]))
    return str(place)


def test_whole_tree_comes_back_from_what_decided_the_result_and_the_rest(tmp_path: Path) -> None:
    folder = _folder(tmp_path, MINE, "cam.backbone", "cam.training", "val_fraction")
    assert recorded_settings({"cam": (folder, ())}) == MINE
    assert recorded_settings({"cam": (f"{folder}/best-weights.safetensors", ())}) == MINE


def test_second_network_decides_its_own_part_alone(tmp_path: Path) -> None:
    tiny = preset("tiny")
    cam, affinity = _folder(tmp_path / "cam", tiny, "cam"), _folder(tmp_path / "affinity", MINE, "affinity")
    found = recorded_settings({"cam": (cam, ()), "affinity": (affinity, ("affinity.inference",))})
    assert found == replace(tiny, affinity=replace(tiny.affinity, inference=MINE.affinity.inference))


def test_record_of_version_0_1_names_its_preset(tmp_path: Path) -> None:
    record = {"settings": {"cam": {"stride": 32}}, "options": {"preset": "tiny"}}
    write_json(str(tmp_path / "run.json"), record)
    assert recorded_settings({"cam": (str(tmp_path), ())}) == with_part(preset("tiny"), "cam.stride", 32)


def test_folder_without_a_record_has_no_settings(tmp_path: Path) -> None:
    assert recorded_settings({"cam": (str(tmp_path), ()), "affinity": (str(tmp_path / "nowhere"), ("walk",))}) is None


def test_range_that_was_measured_and_other_names_come_with_the_network(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).uniform(0, 4095, (40, 50)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("dog: puppy\n")
    (tmp_path / "m.csv").write_text("image,tags\na.png,puppy\n")
    options = DataOptions(out=str(tmp_path / "cam"), data=str(tmp_path / "m.csv"), settings=preset("tiny"))
    for _ in range(2):  # resumed
        claim("train_cam", options, ImageSet(options), uses=(), inputs={}, rows_per_shard=9)
        found = recorded_settings({"cam": (options.out, ())})
        assert found is not None
        assert found.value_range == pytest.approx((0, 4095), abs=50)
        assert replace(found, value_range=()) == preset("tiny")
        assert recorded_synonyms(f"{options.out}/weights.safetensors") == {"puppy": "dog"}
    assert recorded_synonyms(str(tmp_path / "nowhere")) == {}


def test_record_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match=r"cam '.*run.json' is damaged"):
        recorded_settings({"cam": (str(tmp_path), ())})
    write_json(str(tmp_path / "run.json"), {"settings": {"walk": {"gamma": 1}}})
    with pytest.raises(ConfigError, match=r"^walk\.gamma is not a setting \(the record of '.*'\)"):
        recorded_settings({"cam": (str(tmp_path), ())})
