"""Presets: named sets of values for the settings tree. A leaf, like :mod:`engine.config`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.config import (
    AffinityConfig,
    AffinityInferenceConfig,
    CamConfig,
    CamInferenceConfig,
    CrfConfig,
    InferenceConfig,
    RoundsConfig,
    SeedConfig,
    SegmentationConfig,
    Settings,
    ShardConfig,
    TrainingConfig,
    WalkConfig,
)
from engine.errors import ConfigError
from engine.resources import ResourceConfig

MILD_CRF = CrfConfig(bilateral_weight=4.0, bilateral_sigma_px=30.0, bilateral_sigma_rgb=8.0)
"""Weaker than the authors' dCRF, which erases whole objects from the softer maps of small networks
(docs/decisions.md)."""


def _small() -> Settings:
    crops = TrainingConfig(
        num_epochs=6, batch_size=16, crop_px=256, long_side_px=(256, 420), learning_rate=2e-4, head_learning_rate=2e-3
    )
    return Settings(
        cam=CamConfig(
            training=replace(crops, crop_px=384, long_side_px=(320, 560)),
            inference=CamInferenceConfig(long_side_px=512, scales=(0.5, 1.0, 1.5)),
        ),
        walk=WalkConfig(alpha=3.0, num_steps=32),
        crf=MILD_CRF,
        affinity=AffinityConfig(
            training=replace(crops, num_epochs=3, batch_size=8, learning_rate=1e-4, head_learning_rate=1e-3),
            inference=AffinityInferenceConfig(),
        ),
        segmentation=SegmentationConfig(
            training=replace(crops, num_epochs=8, ema_decay=0.99),
            inference=InferenceConfig(long_side_px=384, scales=(1.0,)),
            confidence_power=2.0,
        ),
        shards=ShardConfig(rows_per_shard=32),
    )


def _tiny() -> Settings:
    small = _small()

    def shrunk(training: TrainingConfig) -> TrainingConfig:
        return replace(training, crop_px=160, long_side_px=(160, 260))

    return replace(
        small,
        cam=replace(small.cam, training=shrunk(small.cam.training), inference=CamInferenceConfig(long_side_px=240)),
        walk=WalkConfig(num_steps=64),
        later_maps=InferenceConfig(long_side_px=240),
        seed=replace(small.seed, long_side_px=240),
        affinity=replace(
            small.affinity,
            training=shrunk(small.affinity.training),
            inference=replace(small.affinity.inference, long_side_px=240),
        ),
        segmentation=replace(
            small.segmentation,
            training=shrunk(small.segmentation.training),
            inference=replace(small.segmentation.inference, long_side_px=240),
        ),
        rounds=RoundsConfig(num_rounds=2),
        shards=ShardConfig(rows_per_shard=16),
    )


def _default() -> Settings:
    crops = TrainingConfig(
        num_epochs=10,
        batch_size=32,
        crop_px=384,
        long_side_px=(320, 640),
        learning_rate=1e-4,
        head_learning_rate=1e-3,
        precision="bfloat16",
    )
    resnet: dict[str, Any] = dict(backbone="resnet50", weights="hub", stride=16)
    inference: dict[str, Any] = dict(long_side_px=512, precision="bfloat16")
    return Settings(
        cam=CamConfig(training=crops, inference=CamInferenceConfig(scales=(0.5, 1.0, 1.5), **inference), **resnet),
        seed=SeedConfig(long_side_px=0),
        later_maps=InferenceConfig(scales=(0.5, 1.0, 1.5), **inference),
        crf=MILD_CRF,
        affinity=AffinityConfig(
            training=replace(crops, num_epochs=4, batch_size=16),
            inference=AffinityInferenceConfig(**inference),
            **resnet,
        ),
        segmentation=SegmentationConfig(
            training=replace(crops, num_epochs=20),
            inference=InferenceConfig(scales=(0.75, 1.0, 1.25), **inference),
            head_channels=256,
            confidence_power=2.0,
            **resnet,
        ),
        shards=ShardConfig(rows_per_shard=256),
        resources=ResourceConfig(num_gpus=1, threads_per_actor=4, images_per_pass=16, max_loader_actors=8),
    )


def _paper() -> Settings:
    default = _default()
    crops = TrainingConfig(
        num_epochs=15,
        batch_size=16,
        crop_px=448,
        long_side_px=(256, 512),
        learning_rate=0.1,
        head_learning_rate=1.0,
        optimizer="sgd",
        momentum=0.0,
        weight_decay=5e-4,
        clip_norm=1e9,
    )
    resnet: dict[str, Any] = dict(backbone="resnet50", weights="hub", stride=8)
    inference: dict[str, Any] = dict(long_side_px=0, scales=(1.0, 0.5, 1.5, 2.0))
    return replace(
        default,
        cam=CamConfig(training=crops, inference=CamInferenceConfig(**inference), **resnet),
        seed=SeedConfig(alpha_low=4.0, alpha_high=32.0, long_side_px=0),
        affinity=AffinityConfig(
            training=replace(crops, num_epochs=8, batch_size=8),
            inference=AffinityInferenceConfig(long_side_px=0),
            **resnet,
        ),
        walk=WalkConfig(alpha=16.0, beta=8.0, num_steps=256),
        later_maps=InferenceConfig(**inference),
        crf=CrfConfig(),
        segmentation=SegmentationConfig(
            training=crops, inference=InferenceConfig(**inference), head_channels=256, **resnet
        ),
        rounds=RoundsConfig(num_rounds=1, start="imagenet"),
    )


PRESETS = {"tiny": _tiny, "small": _small, "default": _default, "paper": _paper}


def preset(name: str) -> Settings:
    """The settings of a preset.

    Args:
        name: ``tiny`` (the demo's scenes), ``small`` (two cores), ``default`` (GPU cluster), ``paper`` (the authors').

    Raises:
        ConfigError: no preset has that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"must be one of {', '.join(PRESETS)}, got {name!r}", thing="preset")
    return PRESETS[name]()
