"""The options of the search."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal

from engine.checks import require, require_at_least, require_fractions
from engine.config import Settings
from engine.errors import ConfigError
from engine.runs.options import ShardOptions, StartsFrom, Uses


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOptions(ShardOptions):
    """Options of the search."""

    truth: str
    """True masks of some or all images: a folder of PNGs named by image stem, or a folder of mask shards."""
    cam: Annotated[str, StartsFrom()]
    """Output folder of jobs.train_cam, or of jobs.train_segmentation for a later round (--later-maps,
    --later-walk)."""
    affinity: Annotated[str, StartsFrom("affinity.inference")] = ""
    """Output folder of jobs.train_affinity; not needed with --steps 0 --walk.num-steps 0 (--later-walk.num-steps 0 for
    a segmentation network)."""
    cache: str = ""
    """Folder or URI for the cached maps of the networks, reused by later searches; by default 'cache' inside --out."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """grid: every combination. random: --num-betas slices, each with a random beta and set of scales and with random
    alphas and steps, as many as given and within their range. optuna: a model chooses the beta and scales of each
    slice; every alpha and number of steps is tried with each."""
    alphas: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
    """Background exponents to try."""
    betas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0)
    """Affinity exponents to try."""
    steps: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128, 192, 256, 512, 1024)
    """Numbers of walk steps to try; 0 skips the walk."""
    cam_scales: tuple[str, ...] = ()
    """Sets of CAM scales to try besides --cam.inference.scales (or --later-maps.scales), each separated by commas, e.g.
    1 0.5,1,1.5,2. Each set costs one pass of the network over the images."""
    num_betas: int = 10
    """Number of betas that random and optuna try."""
    early_stopping: bool = False
    """Stop slices that score poorly on the first part of the images (ASHA); their scores cover only that part."""
    top_k_crf: int = 0
    """Also score this many of the best configurations, and the default, with the dCRF, and rank by the mIoU with it;
    for cross-validation, the best are also chosen without each fold. 0 disables it."""
    crf_values: tuple[str, ...] = ()
    """dCRF settings to try with --top-k-crf, in every combination, e.g. bilateral-weight=4,10
    bilateral-sigma-px=30,80."""
    num_crfs: int = 0
    """Number of dCRF combinations to sample at random; 0 tries all."""
    seed_alphas_low: tuple[float, ...] = ()
    """Also score seeds with each of these foreground alphas and each of --seed-alphas-high; empty disables it."""
    seed_alphas_high: tuple[float, ...] = ()
    """Background alphas of the seeds."""
    seed_coverage: float = 0.4
    """Minimum fraction of the true foreground, and of the true background, that confident cells must cover; other
    seeds rank last."""
    folds: int = 5
    """Number of folds for the cross-validated mIoU; 0 disables it."""
    bootstrap: int = 1000
    """Number of bootstrap samples for the confidence intervals; 0 disables them."""
    rng_seed: int = 0
    """Random seed for the order of the images, random configurations and the bootstrap."""
    settings: Annotated[
        Settings, Uses("cam.inference", "affinity.inference", "walk", "later_maps", "later_walk", "crf", "seed")
    ]

    def __post_init__(self) -> None:
        ShardOptions.__post_init__(self)
        for name in ("alphas", "betas", "seed_alphas_low", "seed_alphas_high"):
            values = getattr(self, name)
            fits = all(0 < value < 1e6 for value in values) and (len(values) > 0 or name.startswith("seed"))
            require(fits, name, values, "numbers above 0")
        fits = len(self.steps) > 0 and all(0 <= count <= 100_000 for count in self.steps)
        require(fits, "steps", self.steps, "whole numbers from 0 to 100000")
        if bool(self.seed_alphas_low) != bool(self.seed_alphas_high):
            missing = "seed_alphas_high" if self.seed_alphas_low else "seed_alphas_low"
            raise ConfigError("is empty; seed_alphas_low and seed_alphas_high must be given together", thing=missing)
        require_fractions(seed_coverage=self.seed_coverage)
        require_at_least(1, num_betas=self.num_betas)
        require_at_least(0, top_k_crf=self.top_k_crf, num_crfs=self.num_crfs, bootstrap=self.bootstrap)
        require(self.folds == 0 or self.folds >= 2, "folds", self.folds, "0 (none), or 2 or more")
        if self.top_k_crf and self.settings.crf.num_iterations == 0:
            raise ConfigError("must be 1 or more with top_k_crf, got 0", thing="crf.num_iterations")
        if self.search == "optuna" and find_spec("optuna") is None:
            raise ConfigError("optuna needs the package optuna; run pip install optuna", thing="search")
        if self.search == "optuna" and min(self.betas) == max(self.betas):
            raise ConfigError("must have a minimum and a different maximum for optuna, got one value", thing="betas")
        if self.crf_values and not self.top_k_crf:
            raise ConfigError("has no effect while top_k_crf is 0", thing="crf_values")
