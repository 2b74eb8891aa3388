"""Settings: presets, what a run.json may change, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from engine.config import CrfConfig, InferenceConfig, SeedConfig, ShardConfig, WalkConfig
from engine.errors import ConfigError
from engine.plain_settings import differences, merged, to_dict
from engine.presets import PRESETS, preset
from engine.resources import ResourceConfig


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_the_way_through_json(name: str) -> None:
    settings = preset(name)
    changes = json.loads(json.dumps(to_dict(settings)))
    assert merged(preset("tiny"), changes, where="run.json") == settings


def test_paper_preset_has_the_authors_figures() -> None:
    settings = preset("paper")
    assert (settings.seed.alpha_low, settings.walk.alpha, settings.seed.alpha_high) == (4, 16, 32)
    assert (settings.walk.beta, settings.walk.num_steps, settings.walk.radius) == (8, 256, 5)
    assert (settings.cam.stride, settings.cam.training.crop_px) == (8, 448)
    assert set(settings.cam.inference.scales) == {0.5, 1.0, 1.5, 2.0}
    assert settings.cam.inference.flip


def test_unknown_preset_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"--preset is 'huge'; allowed: tiny, small, default, paper"):
        preset("huge")


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
    with pytest.raises(ConfigError, match=f"old.json: there is no setting '{re.escape(name)}'"):
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
    with pytest.raises(ConfigError, match=f"old.json: setting '{re.escape(name)}' is"):
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
    with pytest.raises(ConfigError, match="beta is -1"):
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


def _training(**changes: Any) -> object:
    return replace(preset("tiny").cam.training, **changes)


def _affinity(**changes: Any) -> object:
    return replace(preset("tiny").affinity, **changes)


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (_training, {"num_epochs": 0}),
        (_training, {"batch_size": 0}),
        (_training, {"crop_px": 31}),
        (_training, {"long_side_px": (300, 200)}),
        (_training, {"long_side_px": (0, 200)}),
        (_training, {"learning_rate": -1e-3}),
        (_training, {"head_learning_rate": float("nan")}),
        (_training, {"clip_norm": 0.0}),
        (_training, {"rng_seed": -1}),
        (_training, {"weight_decay": -1e-4}),
        (_training, {"poly_power": float("nan")}),
        (_training, {"color_jitter": (0.3, 0.3, 0.3, 0.6)}),
        (_training, {"color_jitter": (1.5, 0.3, 0.3, 0.1)}),
        (InferenceConfig, {"scales": ()}),
        (InferenceConfig, {"scales": (1.0, 0.0)}),
        (InferenceConfig, {"long_side_px": 31}),
        (SeedConfig, {"alpha_low": 5.0, "alpha_high": 4.0}),
        (SeedConfig, {"alpha_low": 0.0}),
        (SeedConfig, {"grid_stride": 0}),
        (_affinity, {"radius": 1}),
        (_affinity, {"radius": 33}),
        (WalkConfig, {"alpha": 0.0}),
        (WalkConfig, {"alpha": float("inf")}),
        (WalkConfig, {"beta": float("nan")}),
        (WalkConfig, {"beta": float("inf")}),
        (WalkConfig, {"num_steps": -1}),
        (WalkConfig, {"tolerance": -1e-9}),
        (CrfConfig, {"num_iterations": -1}),
        (CrfConfig, {"bilateral_sigma_rgb": 0.1}),
        (ShardConfig, {"rows_per_shard": 0}),
        (ResourceConfig, {"num_gpus": -0.5}),
        (ResourceConfig, {"num_workers": 0}),
        (ResourceConfig, {"max_crf_actors": -1}),
    ],
)
def test_value_that_is_not_allowed_is_refused_by_name(make: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(changes))} is .*; allowed: "):
        make(**changes)


def test_affinity_crop_must_be_whole_cells() -> None:
    affinity = preset("tiny").affinity
    with pytest.raises(ConfigError, match=r"training.crop_px is 100; allowed: a multiple of grid_stride 8"):
        replace(affinity, training=replace(affinity.training, crop_px=100))


def test_zero_switches_walk_and_crf_off_and_is_allowed() -> None:
    assert WalkConfig(num_steps=0).num_steps == CrfConfig(num_iterations=0).num_iterations == 0
    assert InferenceConfig(long_side_px=0).long_side_px == 0


def test_stages_run_on_the_gpu_only_where_one_is_asked_for() -> None:
    assert [ResourceConfig(num_gpus=count).device for count in (0, 0.25, 1)] == ["cpu", "cuda", "cuda"]
