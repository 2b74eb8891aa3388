"""Search alpha, beta, walk steps and more for mIoU, without labeling again: ``python -m tune.search``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from engine.checks import require_fractions
from engine.config import CrfConfig, Settings, map_paths
from engine.distributed.cluster import Cluster, connected
from engine.errors import ConfigError
from engine.networks import MAP_KINDS, check_map_network, open_network
from engine.runs.images import ImageSet
from engine.runs.options import DataOptions, Uses
from engine.runs.output import run_record, trained_network
from engine.step import Step
from engine.storage.filesystem import absolute, join
from engine.storage.run_record import WORK_FOLDER, claim_output
from jobs.cli.command import main
from tune.cache import Look, TrueMasks, check_errors, fill_cache, missing_shards, open_cache, read_true_masks
from tune.outcome import BEST, CLASSES, HEAT_MAPS, RESULTS, SEEDS, Judging, SearchResults, write_outcome
from tune.results import Default, Scored, collect, short_lists
from tune.seeds import pairs_of, score_seeds, seed_parts
from tune.space import Scales, SearchName, Slice, crfs_of, default_slice, grid_slices, random_slices, scales_of
from tune.trial import Context, read_state
from tune.tuner import check_optuna, run_optuna, run_seeds, run_trials

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a folder of logs for each trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ctrl-c ends the search as it ends any job
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Search(DataOptions):
    """Find the alpha, beta and number of walk steps with the best mIoU on the images that have truth; and, if asked to,
    the scales of the CAM, the constants of the dCRF and the two alphas of the seeds."""

    truth: str
    """True masks, of all images or of some: a folder of PNGs named by image stem, or a folder of mask shards."""
    cam: str
    """Folder that jobs.train_cam wrote; or jobs.train_segmentation, for the maps of a second round (--recam and
    --rewalk)."""
    affinity: str = ""
    """Folder that jobs.train_affinity wrote; not needed with --steps 0 --walk.num-steps 0, or, where --cam is a
    segmentation network, with --steps 0 --rewalk.num-steps 0."""
    cache: str = ""
    """Folder or URI for what the networks say, which later searches use again; 'cache' in --out by default."""
    search: SearchName = "grid"
    """grid: every combination. random: --num-betas betas between the least and the greatest, each with as many alphas
    and steps as are given and a set of scales, drawn too. optuna: a model chooses betas and scales; every alpha and
    number of steps with each."""
    alphas: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
    """Background exponents."""
    betas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0)
    """Exponents of the affinities."""
    steps: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128, 192, 256, 512, 1024)
    """Numbers of steps; 0 leaves out the walk."""
    cam_scales: tuple[str, ...] = ()
    """Sets of scales to try beside --cam.inference.scales (or --recam.scales), each joined by commas: 1 0.5,1,1.5,2.
    The network looks at the images once for each set."""
    num_betas: int = 10
    """Betas that random and optuna try."""
    early_stopping: bool = False
    """Stop betas that look poor on a share of the images (ASHA); their figures are over that share alone."""
    top_k_crf: int = 0
    """Give the dCRF too to this many of the best configurations, of all images and of those outside of each fold, and
    to the default, and rank them by the mIoU with it; 0 leaves it out."""
    crf_values: tuple[str, ...] = ()
    """Other constants for that dCRF, every combination with each configuration: bilateral-weight=4,10
    bilateral-sigma-px=30,80."""
    num_crfs: int = 0
    """Draw this many of the combinations at random; 0 takes all."""
    seed_alphas_low: tuple[float, ...] = ()
    """Score seeds with these alphas for the foreground, each with each of --seed-alphas-high; none leaves it out."""
    seed_alphas_high: tuple[float, ...] = ()
    """The same for the background."""
    seed_coverage: float = 0.4
    """Share of the truth's foreground, and of its background, that a seed must be sure of; other seeds come last."""
    folds: int = 5
    """Parts of the images for the cross-validated figure; 0 leaves it out."""
    bootstrap: int = 1000
    """Draws for the confidence intervals; 0 leaves them out."""
    max_error_fraction: float = 0.05
    """The search ends with status 1 before it begins when more of the images with truth than this fraction ended in an
    error; fewer count as all background."""
    rng_seed: int = 0
    """Seed of the order of the images, of random configurations and of the bootstrap."""
    settings: Annotated[
        Settings, Uses("cam.inference", "affinity.inference", "walk", "later_maps", "later_walk", "crf", "seed")
    ]

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        for name, values in (("alphas", self.alphas), ("betas", self.betas)):
            if not values:
                raise ConfigError("is empty; give one or more numbers above 0", thing=name)
            _check_positive(name, values)
        if not self.steps or not all(0 <= count <= 100_000 for count in self.steps):
            raise ConfigError(f"must be one or more of 0 to 100000, got {self.steps}", thing="steps")
        _check_positive("seed_alphas_low", self.seed_alphas_low)
        _check_positive("seed_alphas_high", self.seed_alphas_high)
        if bool(self.seed_alphas_low) != bool(self.seed_alphas_high):
            missing = "seed_alphas_high" if self.seed_alphas_low else "seed_alphas_low"
            raise ConfigError("is empty; the alphas of the seeds are searched in pairs of low and high", thing=missing)
        require_fractions(seed_coverage=self.seed_coverage)
        require_fractions(max_error_fraction=self.max_error_fraction)
        counts = {"top_k_crf": self.top_k_crf, "num_crfs": self.num_crfs, "bootstrap": self.bootstrap}
        for name, value, least in (("num_betas", self.num_betas, 1), *((*item, 0) for item in counts.items())):
            if value < least:
                raise ConfigError(f"must be {least} or more, got {value}", thing=name)
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(f"must be 0 (none), or 2 or more, got {self.folds}", thing="folds")
        if self.search == "optuna" and min(self.betas) == max(self.betas):
            raise ConfigError("holds one number; optuna needs a least and a greatest", thing="betas")
        if self.crf_values and not self.top_k_crf:
            raise ConfigError("has no effect while top_k_crf is 0", thing="crf_values")


def _check_positive(name: str, values: Sequence[float]) -> None:
    for value in values:
        if not 0 < value < 1e6:
            raise ConfigError(f"must be above 0, got {value:g}", thing=name)


def run(config: Search, *, after_affinity: Sequence[Step] = ()) -> dict[str, Any]:
    """Search; writes ``results.parquet``, ``best.json``, ``miou.svg`` and ``classes.svg`` under ``--out``.

    Args:
        after_affinity: steps that change the affinities (column ``distances``) before walks are taken.

    Returns:
        What ``best.json`` holds.

    Raises:
        UserError: an option, a file or the truth cannot be used.
        TooManyErrors: networks or trials failed.
    """
    if config.top_k_crf and config.settings.crf.num_iterations == 0:
        raise ConfigError("must be 1 or more with top_k_crf, got 0", thing="crf.num_iterations")
    if config.search == "optuna":
        check_optuna()
    settings = config.settings
    cam = trained_network(config.cam, MAP_KINDS, ImageSet(config), thing="cam")
    default = Default(settings=settings, kind=cam.map_kind)
    walk = default.walk
    check_map_network(cam, default.inference)
    walks = max(config.steps) > 0 or walk.num_steps > 0
    if walks and not config.affinity:
        without = f"set steps and {map_paths(cam.map_kind)[1]}.num_steps to 0"
        raise ConfigError(f"is missing; give the output folder of jobs.train_affinity, or {without}", thing="affinity")
    crfs = crfs_of(settings.crf, config.crf_values, num_draws=config.num_crfs, rng_seed=config.rng_seed)
    scale_sets = list(dict.fromkeys([default.scales, *map(scales_of, config.cam_scales)]))
    looks = _looks(config, default, scale_sets)
    class_names = cam.class_names
    if walks:
        affinity = open_network(config.affinity, "affinity")
        looks.append(
            Look(network="affinity", weights=config.affinity, inference=settings.affinity.inference, walk=walk)
        )
    true_masks = read_true_masks(
        config.data,
        config.truth,
        class_names=class_names,
        rng_seed=config.rng_seed,
        allow_outside=config.allow_outside,
    )
    _claim(config, default, true_masks, class_names, {"cam": cam.hash, "affinity": affinity.hash if walks else ""})
    cache = config.cache or join(config.out, "cache")
    places = []
    for look in looks:
        key = look.key(true_masks, class_names=class_names, max_pixels=config.max_pixels)
        place, manifest = open_cache(cache, look, true_masks, key)
        places.append(place)
    context = Context(
        cams=dict(zip(scale_sets, places, strict=False)),
        distances=places[-1] if walks else "",
        manifest=manifest,
        true_masks=true_masks.masks,
        states=absolute(join(config.out, WORK_FOLDER, "trials")),
        walk=walk,
        max_pixels=config.max_pixels,
    )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    pairs = pairs_of(config.seed_alphas_low, config.seed_alphas_high, settings.seed)
    parts = seed_parts(context, scale_sets, pairs, settings.seed) if config.seed_alphas_low else []
    with connected(settings.resources) as cluster:
        for look, place in zip(looks, places, strict=True):
            if missing_shards(place, manifest):
                fill_cache(
                    place,
                    manifest,
                    look,
                    resources=settings.resources,
                    max_pixels=config.max_pixels,
                    cluster=cluster,
                    after_affinity=after_affinity,
                )
        errors = check_errors(places, manifest, max_error_fraction=config.max_error_fraction)
        run_seeds(context, parts, cluster)
        slices = _sweep(config, default, scale_sets, context, cluster)
        plain = collect(context, slices)
        few = short_lists(plain, most=config.top_k_crf, num_folds=config.folds)
        with_crf = _crf_slices(default, few, crfs) if config.top_k_crf else []
        if with_crf:
            run_trials("default", context, with_crf[:1], cluster, early_stopping=False)
            run_trials("dCRF", context, with_crf[1:], cluster, early_stopping=config.early_stopping)
    judging = Judging(
        num_folds=config.folds,
        num_draws=config.bootstrap,
        rng_seed=config.rng_seed,
        seed_coverage=config.seed_coverage,
    )
    seeds = (
        score_seeds(context, parts, coverage=config.seed_coverage, num_draws=config.bootstrap, rng_seed=config.rng_seed)
        if parts
        else []
    )
    cpu_s = sum(read_state(context, part).cpu_s for part in (*slices, *with_crf))
    print(f"counted in {cpu_s:.0f} s of CPU time")
    found = SearchResults(plain=plain, with_crf=collect(context, with_crf), short_lists=few[1:], seeds=seeds)
    return write_outcome(
        config.out,
        found,
        default,
        judging,
        class_names=class_names,
        num_images=manifest.num_rows,
        errors=errors,
    )


def _looks(config: Search, default: Default, scale_sets: Sequence[Scales]) -> list[Look]:
    """What --cam has to say with each set of scales."""
    return [
        Look(
            network="cam",
            weights=config.cam,
            inference=replace(default.inference, scales=scales),
            walk=default.walk,
        )
        for scales in scale_sets
    ]


def _crf_slices(default: Default, few: Sequence[Sequence[Scored]], crfs: Sequence[CrfConfig]) -> list[Slice]:
    """The default with the dCRF, then the best few without one with each dCRF."""
    first = replace(default_slice(default.scales, default.walk), crf=default.crf)
    best = list({one.walk: one for some in few for one in some}.values())
    others = [
        Slice(scales=one.scales, beta=one.beta, alphas=(one.alpha,), steps=(one.num_steps,), crf=crf)
        for crf in crfs
        for one in best
    ]
    return list({part.name: part for part in (first, *others)}.values())


def _claim(
    config: Search,
    default: Default,
    true_masks: TrueMasks,
    class_names: tuple[str, ...],
    inputs: dict[str, str],
) -> None:
    searched = ("search", "alphas", "betas", "steps", "cam_scales", "num_betas", "early_stopping", "rng_seed")
    inputs |= {name: _plain(getattr(config, name)) for name in searched}
    inputs |= {"images": true_masks.images_hash, "truth": true_masks.hash}
    record = run_record(
        "search",
        config,
        uses=[*map_paths(default.kind), "affinity.inference", "crf"],
        inputs=inputs,
        class_names=class_names,
        writes=[RESULTS, BEST, HEAT_MAPS, CLASSES, SEEDS],
    )
    claim_output(config.out, record, overwrite=config.overwrite)


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _sweep(
    config: Search, default: Default, scale_sets: Sequence[Scales], context: Context, cluster: Cluster
) -> list[Slice]:
    """Do all trials without dCRF; gives the slices that were tried."""
    first = default_slice(default.scales, default.walk)
    if config.search == "optuna" or config.early_stopping:  # what all is compared with is never stopped
        run_trials("default", context, [first], cluster, early_stopping=False)
    if config.search == "optuna":
        tried = run_optuna(
            context,
            cluster,
            scale_sets=scale_sets,
            alphas=config.alphas,
            betas=config.betas,
            steps=config.steps,
            num_betas=config.num_betas,
            early_stopping=config.early_stopping,
            rng_seed=config.rng_seed,
        )
        return [first, *tried]
    if config.search == "grid":
        slices = grid_slices(scale_sets, config.alphas, config.betas, config.steps)
    else:
        slices = random_slices(
            scale_sets,
            config.alphas,
            config.betas,
            config.steps,
            num_betas=config.num_betas,
            rng_seed=config.rng_seed,
        )
    others = list({part.name: part for part in slices if part != first}.values())
    todo = others if config.early_stopping else [first, *others]
    run_trials("search", context, todo, cluster, early_stopping=config.early_stopping)
    return [first, *others]


if __name__ == "__main__":
    sys.exit(main(Search, run))
