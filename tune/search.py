"""Search alpha, beta, walk steps and more for mIoU, without labeling again: ``python -m tune.search``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from engine.checks import require, require_at_least, require_fractions
from engine.config import CrfConfig, Settings, map_paths
from engine.distributed.cluster import connected
from engine.errors import ConfigError, about
from engine.networks import MAP_KINDS, TrainedNetwork, check_map_network, open_network
from engine.resources import PassConfig
from engine.runs.images import ImageSet
from engine.runs.options import ShardOptions, Uses
from engine.runs.output import run_record, trained_network
from engine.stages.count import Slice
from engine.step import Step
from engine.storage.filesystem import absolute, join
from engine.storage.run_record import WORK_FOLDER, claim_output
from jobs.cli.command import main
from tune.cache import Cache, TrueMasks, cached_maps, check_sizes, read_true_masks
from tune.counts import Counting
from tune.outcome import BEST, CLASSES, HEAT_MAPS, RESULTS, SEEDS, Judging, SearchResults, write_outcome
from tune.results import Default, Scored, collect, short_lists
from tune.seeds import ScoredSeed, score_seeds
from tune.space import SearchName, crfs_of, default_slice, grid_slices, pairs_of, random_slices, scales_of
from tune.trials import check_optuna, run_optuna, run_trials

Passes = tuple[list[list[Slice]], dict[str, int]]
"""The slices of each pass, and the images with an error, by stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search(ShardOptions):
    """Find the alpha, beta and number of walk steps with the best mIoU on the images that have truth; and, if asked to,
    the scales of the CAM, the constants of the dCRF and the two alphas of the seeds."""

    truth: str
    """True masks, of all images or of some: a folder of PNGs named by image stem, or a folder of mask shards."""
    cam: str
    """Output folder of jobs.train_cam; or of jobs.train_segmentation, for the maps of a later round (--later-maps,
    --later-walk)."""
    affinity: str = ""
    """Output folder of jobs.train_affinity; not needed with --steps 0 --walk.num-steps 0 (--later-walk.num-steps 0 for
    a segmentation network)."""
    cache: str = ""
    """Folder or URI for the networks' maps, reused by later searches; 'cache' in --out by default."""
    search: SearchName = "grid"
    """grid: every combination. random: --num-betas slices, each with a random beta, set of scales, and as many random
    alphas and steps as are given, all within the given ranges. optuna: a model chooses beta and scales of each slice;
    every alpha and number of steps is tried with each."""
    alphas: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
    """Background exponents."""
    betas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0)
    """Exponents of the affinities."""
    steps: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128, 192, 256, 512, 1024)
    """Numbers of steps; 0 leaves out the walk."""
    cam_scales: tuple[str, ...] = ()
    """Sets of scales to try beside --cam.inference.scales (or --later-maps.scales), each joined by commas: 1
    0.5,1,1.5,2. The network runs over the images once for each set."""
    num_betas: int = 10
    """Betas that random and optuna try."""
    early_stopping: bool = False
    """Stop slices that score poorly on the first part of the images (ASHA); their figures cover only that part."""
    top_k_crf: int = 0
    """Also score this many of the best configurations with the dCRF, chosen on all images and outside of each fold, and
    the default; rank by the mIoU with it. 0 leaves it out."""
    crf_values: tuple[str, ...] = ()
    """Other settings of that dCRF, every combination with each configuration: bilateral-weight=4,10
    bilateral-sigma-px=30,80."""
    num_crfs: int = 0
    """Number of these combinations to draw at random; 0 takes all."""
    seed_alphas_low: tuple[float, ...] = ()
    """Score seeds with each of these foreground alphas and each of --seed-alphas-high; none leaves it out."""
    seed_alphas_high: tuple[float, ...] = ()
    """Background alphas of the seeds."""
    seed_coverage: float = 0.4
    """Minimum fraction of the truth's foreground, and of its background, in confident cells; other seeds come last."""
    folds: int = 5
    """Folds of the cross-validated mIoU; 0 leaves it out."""
    bootstrap: int = 1000
    """Bootstrap draws for the confidence intervals; 0 leaves them out."""
    rng_seed: int = 0
    """Seed of the order of the images, of random configurations and of the bootstrap."""
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
            raise ConfigError("is empty; the alphas of the seeds are searched in pairs of low and high", thing=missing)
        require_fractions(seed_coverage=self.seed_coverage)
        require_at_least(1, num_betas=self.num_betas)
        require_at_least(0, top_k_crf=self.top_k_crf, num_crfs=self.num_crfs, bootstrap=self.bootstrap)
        require(self.folds == 0 or self.folds >= 2, "folds", self.folds, "0 (none), or 2 or more")
        if self.search == "optuna" and min(self.betas) == max(self.betas):
            raise ConfigError("holds one number; optuna needs a least and a greatest", thing="betas")
        if self.crf_values and not self.top_k_crf:
            raise ConfigError("has no effect while top_k_crf is 0", thing="crf_values")


def run(config: Search, *, after_affinity: Sequence[Step] = ()) -> dict[str, Any]:
    """Search; writes ``results.parquet``, ``best.json``, ``miou.svg`` and ``classes.svg`` to the output folder.

    Args:
        after_affinity: steps that change the affinities (column ``distances``) before they are walked along.

    Returns:
        What ``best.json`` holds.

    Raises:
        UserError: an option, a file or the truth cannot be used.
        TooManyErrors: networks or trials failed.
    """
    settings = config.settings
    if config.top_k_crf and settings.crf.num_iterations == 0:
        raise ConfigError("must be 1 or more with top_k_crf, got 0", thing="crf.num_iterations")
    if config.search == "optuna":
        check_optuna()
    cam = trained_network(config.cam, MAP_KINDS, ImageSet(config), thing="cam")
    default = Default(settings=settings, kind=cam.map_kind)
    inference, walk = default.maps.inference, default.maps.walk
    check_map_network(cam, inference)
    affinity = None
    if max(config.steps) > 0 or walk.num_steps > 0:
        if not config.affinity:
            without = f"set steps and {map_paths(cam.map_kind)[1]}.num_steps to 0"
            reason = f"is missing; give the output folder of jobs.train_affinity, or {without}"
            raise ConfigError(reason, thing="affinity")
        with about("affinity"):
            affinity = open_network(config.affinity, "affinity")
    crfs = crfs_of(settings.crf, config.crf_values, num_draws=config.num_crfs, rng_seed=config.rng_seed)
    scale_sets = tuple(dict.fromkeys([inference.scales, *map(scales_of, config.cam_scales)]))
    inferences = [replace(inference, scales=scales) for scales in scale_sets]
    truth = read_true_masks(
        config.data,
        config.truth,
        class_names=cam.class_names,
        rng_seed=config.rng_seed,
        allow_outside=config.allow_outside,
    )
    _claim(config, default, truth, cam, affinity)
    cache = Cache(
        folder=config.cache or join(config.out, "cache"),
        true_masks=truth,
        class_names=cam.class_names,
        passes=settings.resources.passes(config.max_pixels),
    )
    cams = [cache.cam(cam, inference) for inference in inferences]
    distances = None
    if affinity is not None:
        distances = cache.distances(affinity, settings.affinity.inference, walk, after_affinity=after_affinity)
    maps = cached_maps(cams, distances, cache.truth(cams[0].manifest))
    with connected(settings.resources) as cluster:
        for step in [*cams, *([] if distances is None else [distances])]:
            step.fill(config)
        check_sizes(maps, truth)
        counting = Counting(
            maps=maps,
            true_pixels=truth.pixels,
            scale_sets=scale_sets,
            folder=absolute(join(config.out, WORK_FOLDER, "counts")),
            walk=walk,
            passes=PassConfig(max_pixels=config.max_pixels),
            config=config,
            cluster=cluster,
        )
        found = _count(config, default, counting, crfs)
    judging = Judging(
        num_folds=config.folds,
        num_draws=config.bootstrap,
        rng_seed=config.rng_seed,
        seed_coverage=config.seed_coverage,
    )
    return write_outcome(config.out, found, default, judging)


def _claim(
    config: Search, default: Default, truth: TrueMasks, cam: TrainedNetwork, affinity: TrainedNetwork | None
) -> None:
    inputs = {"cam": cam.hash, "affinity": "" if affinity is None else affinity.hash}
    inputs |= {"images": truth.images_hash, "truth": truth.hash}
    for name in ("search", "alphas", "betas", "steps", "cam_scales", "num_betas", "early_stopping", "rng_seed"):
        value = getattr(config, name)
        inputs[name] = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    record = run_record(
        "search",
        config,
        uses=[*map_paths(default.kind), "affinity.inference", "crf"],
        inputs=inputs,
        class_names=cam.class_names,
        writes=[RESULTS, BEST, HEAT_MAPS, CLASSES, SEEDS],
    )
    claim_output(config.out, record, overwrite=config.overwrite)


def _count(config: Search, default: Default, counting: Counting, crfs: Sequence[CrfConfig]) -> SearchResults:
    """Count everything: seeds, configurations without dCRF, then the best of them with it."""
    maps = counting.maps

    def collected(counted: Sequence[Sequence[Slice]]) -> list[Scored]:
        sums = [counting.read(counting.masks(slices)) for slices in counted]
        return collect(list(zip(counted, sums, strict=True)), num_images=maps.num_rows)

    seeds: list[ScoredSeed] = []
    if config.seed_alphas_low:
        pairs = pairs_of(config.seed_alphas_low, config.seed_alphas_high, default.settings.seed)
        one = counting.seeds(pairs, default.settings.seed)
        counting.finish("seeds", one)
        seeds = score_seeds(
            counting.read(one),
            counting.scale_sets,
            pairs,
            coverage=config.seed_coverage,
            num_draws=config.bootstrap,
            rng_seed=config.rng_seed,
        )
    slices, errors = _sweep(config, default, counting)
    plain = collected(slices)
    few = short_lists(plain, most=config.top_k_crf, num_folds=config.folds)
    with_crf: list[Scored] = []
    if config.top_k_crf:
        slices, errors = _sweep_crf(config, default, counting, few, crfs)
        with_crf = collected(slices)
    return SearchResults(
        plain=plain,
        with_crf=with_crf,
        short_lists=few[1:],
        seeds=seeds,
        class_names=maps.class_names,
        num_images=maps.num_rows,
        errors=errors,
    )


def _sweep(config: Search, default: Default, counting: Counting) -> Passes:
    """Count all slices without dCRF."""
    first = default_slice(default.maps.inference.scales, default.maps.walk)
    space = (config.alphas, config.betas, config.steps)
    if config.search == "optuna":
        counted, errors = _count_slices("default", counting, [first], early_stopping=False)
        tried = run_optuna(
            counting,
            *space,
            num_betas=config.num_betas,
            early_stopping=config.early_stopping,
            rng_seed=config.rng_seed,
        )
        return [*counted, *([part] for part in tried)], errors
    if config.search == "grid":
        slices = grid_slices(counting.scale_sets, *space)
    else:
        slices = random_slices(counting.scale_sets, *space, num_betas=config.num_betas, rng_seed=config.rng_seed)
    return _count_slices("search", counting, [first, *slices], early_stopping=config.early_stopping)


def _sweep_crf(
    config: Search, default: Default, counting: Counting, few: Sequence[Sequence[Scored]], crfs: Sequence[CrfConfig]
) -> Passes:
    """Count the default with the dCRF, then the best few with each dCRF."""
    first = default_slice(default.maps.inference.scales, default.maps.walk)
    best = list({one.walk: one for some in few for one in some}.values())
    others = [
        Slice(scales=one.scales, beta=one.beta, alphas=(one.alpha,), steps=(one.num_steps,), crf=crf)
        for crf in crfs
        for one in best
    ]
    slices = [replace(first, crf=default.settings.crf), *others]
    return _count_slices("dCRF", counting, slices, early_stopping=config.early_stopping)


def _count_slices(name: str, counting: Counting, slices: Sequence[Slice], *, early_stopping: bool) -> Passes:
    """Count slices in one pass; with early stopping the first, which is never stopped, and each other in a trial."""
    first, *others = dict.fromkeys(slices)
    together = [first] if early_stopping else [first, *others]
    errors = counting.finish(name, counting.masks(together))
    if not early_stopping:
        return [together], errors
    run_trials(name, counting, others)
    return [together, *([part] for part in others)], errors


if __name__ == "__main__":
    sys.exit(main(Search, run))
