"""Search alpha, beta, walk steps and more for mIoU, without labeling again: ``python -m tune.search``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.config import CrfConfig, map_paths
from engine.distributed.cluster import connected
from engine.errors import ConfigError, about
from engine.networks import MAP_KINDS, TrainedNetwork, check_map_network, open_network
from engine.resources import PassConfig
from engine.runs.images import ImageSet
from engine.runs.output import run_record, trained_network
from engine.stages.count import Slice
from engine.step import Step
from engine.storage.filesystem import absolute, join
from engine.storage.run_record import WORK_FOLDER, claim_output
from jobs.cli.command import main
from tune.cache import Cache, TrueMasks, cached_maps, check_sizes, read_true_masks
from tune.counts import Counting
from tune.options import SearchOptions
from tune.outcome import BEST, CLASSES, HEAT_MAPS, RESULTS, SEEDS, SearchResults, write_outcome
from tune.results import Default, Scored, collect, short_lists
from tune.seeds import ScoredSeed, score_seeds
from tune.space import crfs_of, default_slice, grid_slices, pairs_of, random_slices, scales_of
from tune.trials import check_optuna, run_optuna, run_trials

Passes = tuple[list[list[Slice]], dict[str, int]]
"""The slices of each pass, and the images with an error, by stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search(SearchOptions):
    """Find the alpha, beta and number of walk steps with the best mIoU on the images that have truth; optionally also
    the scales of the CAM, the settings of the dCRF and the two alphas of the seeds."""


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
    return write_outcome(config, found, default)


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
        seeds = score_seeds(counting.read(one), counting.scale_sets, pairs, config)
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
        tried = run_optuna(counting, config)
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
