"""Settings: what is refused, and what they add up to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.config import (
    ConfidenceConfig,
    CrfConfig,
    InferenceConfig,
    MapKind,
    RoundsConfig,
    SeedConfig,
    ShardConfig,
    WalkConfig,
    map_paths,
)
from engine.errors import ConfigError
from engine.plain_settings import part_at
from engine.presets import preset
from engine.resources import ResourceConfig


def _training(**changes: Any) -> object:
    return replace(preset("tiny").cam.training, **changes)


def _affinity(**changes: Any) -> object:
    return replace(preset("tiny").affinity, **changes)


def _segmentation(**changes: Any) -> object:
    return replace(preset("tiny").segmentation, **changes)


def _settings(**changes: Any) -> object:
    return replace(preset("tiny"), **changes)


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
        (_segmentation, {"head_channels": 12}),
        (_segmentation, {"confidence_power": -1.0}),
        (_segmentation, {"min_confidence": 1.5}),
        (_segmentation, {"min_confidence": float("nan")}),
        (RoundsConfig, {"num_rounds": 0}),
        (RoundsConfig, {"num_rounds": 10}),
        (RoundsConfig, {"last_epoch_factor": 0.0}),
        (RoundsConfig, {"last_epoch_factor": float("nan")}),
        (ConfidenceConfig, {"scale": 0.0}),
        (_settings, {"val_fraction": 1.0}),
        (_settings, {"val_fraction": -0.1}),
        (ResourceConfig, {"num_gpus": -0.5}),
        (ResourceConfig, {"num_workers": 0}),
        (ResourceConfig, {"max_crf_actors": -1}),
        (ResourceConfig, {"min_workers": 2}),
    ],
)
def test_value_that_is_not_allowed_is_refused_by_name(make: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(changes))} must be .*, got ") as refused:
        make(**changes)
    assert refused.value.thing == next(iter(changes))


def test_affinity_crop_must_be_whole_cells() -> None:
    affinity = preset("tiny").affinity
    with pytest.raises(ConfigError, match=r"^training\.crop_px must be a multiple of grid_stride 8, got 100$"):
        replace(affinity, training=replace(affinity.training, crop_px=100))


def test_zero_switches_walk_and_crf_off_and_is_allowed() -> None:
    assert WalkConfig(num_steps=0).num_steps == CrfConfig(num_iterations=0).num_iterations == 0
    assert InferenceConfig(long_side_px=0).long_side_px == 0


def test_stages_run_on_the_gpu_only_where_one_is_asked_for() -> None:
    assert [ResourceConfig(num_gpus=count).device for count in (0, 0.25, 1)] == ["cpu", "cuda", "cuda"]


def test_later_rounds_have_maps_and_a_walk_of_their_own() -> None:
    settings = preset("paper")
    first, later = settings.maps_of("cam"), settings.maps_of("segmentation")
    assert (first.inference, first.walk) == (settings.cam.inference, settings.walk)
    assert (later.inference, later.walk) == (settings.later_maps, settings.later_walk)


@pytest.mark.parametrize("kind", ["cam", "segmentation"])
def test_paths_of_maps_lead_to_them(kind: MapKind) -> None:
    settings = preset("paper")
    maps = settings.maps_of(kind)
    assert [part_at(settings, path) for path in map_paths(kind)] == [maps.inference, maps.walk]


def test_calibrations_follow_one_another() -> None:
    both = ConfidenceConfig(scale=2.0, offset=0.5).after((3.0, 0.25))
    for logit in (-1.0, 0.0, 2.0):
        assert both.scale * logit + both.offset == 2.0 * (3.0 * logit + 0.25) + 0.5
