"""Settings as plain values: what a run.json may change, and what differs between two."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.plain_settings import differences, merged, part_at, parts_to_dict, to_dict, with_part
from engine.presets import preset


def test_part_at_a_path_is_read_and_replaced_alone() -> None:
    settings = preset("small")
    inference = replace(settings.cam.inference, flip=False)
    changed = with_part(settings, "cam.inference", inference)
    assert part_at(changed, "cam.inference") == changed.cam.inference == inference
    assert replace(changed, cam=settings.cam) == settings
    assert with_part(settings, "val_fraction", 0.5) == replace(settings, val_fraction=0.5)


def test_parts_as_plain_values_keep_their_place_in_the_tree() -> None:
    settings = preset("small")
    parts = parts_to_dict(settings, ("cam.inference", "cam.stride", "walk", "val_fraction"))
    whole = to_dict(settings)
    cam = {name: whole["cam"][name] for name in ("inference", "stride")}
    assert parts == {"cam": cam, "walk": whole["walk"], "val_fraction": 0.0}
    assert merged(preset("paper"), parts, where="run.json").walk == settings.walk


def test_merged_takes_nested_changes_and_leaves_the_rest() -> None:
    settings = preset("small")
    new = merged(settings, {"walk": {"beta": 5}, "cam": {"inference": {"scales": [1.0, 2]}}}, where="run.json")
    assert new.walk == replace(settings.walk, beta=5.0)
    assert isinstance(new.walk.beta, float)
    assert new.cam == replace(settings.cam, inference=replace(settings.cam.inference, scales=(1.0, 2)))
    assert new.segmentation == settings.segmentation


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"walks": {}}, "walks"),
        ({"walk": {"gamma": 5}}, "walk.gamma"),
        ({"cam": {"training": {"epochs": 5}}}, "cam.training.epochs"),
    ],
)
def test_merged_refuses_an_unknown_name(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(name)} is not a setting \(old.json\); must be one of "):
        merged(preset("small"), changes, where="old.json")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"walk": {"beta": "8"}}, "walk.beta"),
        ({"walk": {"beta": None}}, "walk.beta"),
        ({"walk": {"num_steps": 2.5}}, "walk.num_steps"),
        ({"walk": {"num_steps": True}}, "walk.num_steps"),
        ({"cam": {"inference": {"flip": 1}}}, "cam.inference.flip"),
        ({"cam": {"inference": {"scales": 1.0}}}, "cam.inference.scales"),
        ({"cam": {"backbone": 50}}, "cam.backbone"),
        ({"walk": 8}, "walk"),
        ({"crf": [1, 2]}, "crf"),
    ],
)
def test_merged_refuses_a_value_of_another_type(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(name)} must be .*, got .* \(old.json\)$"):
        merged(preset("small"), changes, where="old.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"cam": {"inference": {"scales": ["big"]}}},
        {"cam": {"training": {"long_side_px": [256]}}},
        {"cam": {"training": {"long_side_px": [256, 300, 400]}}},
        {"cam": {"training": {"color_jitter": [0.1]}}},
        {"cam": {"stride": 7}},
        {"cam": {"inference": {"precision": "float8"}}},
        {"crf": {"backend": "gpu"}},
    ],
)
def test_merged_refuses_what_the_command_line_would_refuse(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        merged(preset("small"), changes, where="old.json")


def test_merged_applies_the_checks_of_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"^walk\.beta must be above 0, got -1\.0 \(old\.json\)$"):
        merged(preset("small"), {"walk": {"beta": -1.0}}, where="old.json")


def test_differences_name_what_changed_appeared_and_went() -> None:
    old = {"walk": {"beta": 8.0, "alpha": 1.0}, "gone": 1}
    new = {"walk": {"beta": 5.0, "alpha": 1.0}, "came": {"a": 2}}
    assert differences(old, new) == ["came: None -> {'a': 2}", "gone: 1 -> None", "walk.beta: 8.0 -> 5.0"]
    assert differences(old, old) == []


def test_a_setting_that_older_versions_did_not_have_and_that_is_off_is_no_difference() -> None:
    assert differences({"walk": {"beta": 8.0}}, {"walk": {"beta": 8.0, "later": 0, "other": False}}) == []
    assert differences({"walk": {}}, {"walk": {"later": 2}}) == ["walk.later: None -> 2"]
    assert differences({"walk": {"later": 2}}, {"walk": {"later": 0}}) == ["walk.later: 2 -> 0"]
