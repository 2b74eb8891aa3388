"""Search for the alpha, beta and number of walk steps with the best mIoU: ``python -m tune.search``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.config import CrfConfig, map_paths
from engine.distributed.cluster import Cluster, connected
from engine.errors import ConfigError, about
from engine.networks import MAP_KINDS, TrainedNetwork, check_map_network, open_network
from engine.runs.images import ImageSet
from engine.runs.output import run_record, trained_network
from engine.stages.count import NO_CRF, Slice
from engine.step import Step
from engine.storage.filesystem import absolute, join
from engine.storage.run_record import WORK_FOLDER, claim_output
from jobs.cli.command import main
from tune.cache import Cache, TrueMasks, read_true_masks
from tune.counts import Counting
from tune.options import SearchOptions
from tune.outcome import BEST, CLASSES, HEAT_MAPS, RESULTS, SEEDS, SearchResults, write_outcome
from tune.results import Scored, collect, short_lists
from tune.seeds import ScoredSeed, score_seeds
from tune.space import crfs_of, default_slice, grid_slices, pairs_of, random_slices, scales_of
from tune.trials import run_optuna, run_trials


@dataclass(frozen=True, kw_only=True, slots=True)
class Search(SearchOptions):
    """Find the alpha, beta and number of walk steps with the best mIoU on images with true masks. Optionally also
    search the scales of the CAM, the settings of the dCRF and the two alphas of the seeds."""


def run(config: Search, *, after_affinity: Sequence[Step] = ()) -> dict[str, Any]:
    """Run the search; writes ``results.parquet``, ``best.json``, ``miou.svg`` and ``classes.svg``.

    Args:
        after_affinity: Steps that modify the affinities (column ``distances``) before the walk.

    Returns:
        The content of ``best.json``.

    Raises:
        UserError: An option, a file or the truth cannot be used.
        TooManyErrors: Too many images failed, or a trial did.
    """
    settings = config.settings
    images = ImageSet(config)
    cam = trained_network(config.cam, MAP_KINDS, images, thing="cam")
    maps = settings.maps_of(cam.map_kind)
    inference, walk = maps.inference, maps.walk
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
    truth = read_true_masks(
        config.data,
        config.truth,
        class_names=cam.class_names,
        rng_seed=config.rng_seed,
        allow_outside=config.allow_outside,
        form=config.form,
    )
    _claim(config, truth, cam, affinity)
    cache = Cache.open(config.cache or join(config.out, "cache"), config, truth, cam.class_names, images.decoding)
    with connected(settings.resources) as cluster:
        cams = [cache.cam(cam, replace(inference, scales=scales)) for scales in scale_sets]
        distances = ""
        if affinity is not None:
            distances = cache.distances(affinity, settings.affinity.inference, walk, after_affinity=after_affinity)
        counting = Counting(
            maps=cache.maps(cams, distances),
            true_pixels=truth.pixels,
            scale_sets=scale_sets,
            folder=absolute(join(config.out, WORK_FOLDER, "counts")),
            walk=walk,
            config=config,
        )
        first = replace(default_slice(inference.scales, walk), crf=settings.crf)
        found = _Sweep(config, first, counting, cluster).results(crfs)
    return write_outcome(config, found, cam.map_kind)


def _claim(config: Search, truth: TrueMasks, cam: TrainedNetwork, affinity: TrainedNetwork | None) -> None:
    inputs = {"cam": cam.hash, "affinity": "" if affinity is None else affinity.hash}
    inputs |= {"images": truth.images_hash, "truth": truth.hash}
    for name in ("search", "alphas", "betas", "steps", "cam_scales", "num_betas", "early_stopping", "rng_seed"):
        value = getattr(config, name)
        inputs[name] = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    record = run_record(
        "search",
        config,
        uses=[*map_paths(cam.map_kind), "affinity.inference", "crf"],
        inputs=inputs,
        class_names=cam.class_names,
        writes=[RESULTS, BEST, HEAT_MAPS, CLASSES, SEEDS],
    )
    claim_output(config.out, record, overwrite=config.overwrite)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Counts everything: seeds, configurations without dCRF, then the best of them with it."""

    config: Search
    first: Slice
    """The default configuration, with the dCRF of the masks."""
    counting: Counting
    cluster: Cluster

    def results(self, crfs: Sequence[CrfConfig]) -> SearchResults:
        config, counting = self.config, self.counting
        seeds = self._seeds() if config.seed_alphas_low else []
        plain, errors = self._plain(replace(self.first, crf=NO_CRF))
        few = short_lists(plain, most=config.top_k_crf, num_folds=config.folds)
        with_crf: list[Scored] = []
        if config.top_k_crf:
            best = {one.walk: one for some in few for one in some}.values()
            others = [
                Slice(scales=one.scales, beta=one.beta, alphas=(one.alpha,), steps=(one.num_steps,), crf=crf)
                for crf in crfs
                for one in best
            ]
            with_crf, errors = self._counted("dCRF", [self.first, *others])
        return SearchResults(
            plain=plain,
            with_crf=with_crf,
            short_lists=few[1:],
            seeds=seeds,
            class_names=counting.maps.class_names,
            num_images=counting.maps.num_rows,
            errors=errors,
        )

    def _seeds(self) -> list[ScoredSeed]:
        config, counting = self.config, self.counting
        pairs = pairs_of(config.seed_alphas_low, config.seed_alphas_high, config.settings.seed)
        one = counting.seeds(pairs, config.settings.seed)
        counting.finish("seeds", one)
        return score_seeds(counting.read(one), counting.scale_sets, pairs, config)

    def _plain(self, first: Slice) -> tuple[list[Scored], dict[str, int]]:
        config, counting = self.config, self.counting
        space = (counting.scale_sets, config.alphas, config.betas, config.steps)
        if config.search == "optuna":
            errors = counting.finish("default", counting.masks([first]))
            tried = run_optuna(counting, self.cluster, config)
            return self._collected([[first], *([part] for part in tried)]), errors
        if config.search == "grid":
            slices = grid_slices(*space)
        else:
            slices = random_slices(*space, num_betas=config.num_betas, rng_seed=config.rng_seed)
        return self._counted("search", [first, *slices])

    def _counted(self, name: str, slices: Sequence[Slice]) -> tuple[list[Scored], dict[str, int]]:
        """Count slices in one pass; with early stopping, only the first, and each other slice in its own trial.

        The first slice is the default, which is never stopped early.

        Returns:
            The configurations, best first, and the number of images with an error, by stage.
        """
        first, *others = dict.fromkeys(slices)
        together = [first] if self.config.early_stopping else [first, *others]
        errors = self.counting.finish(name, self.counting.masks(together))
        if not self.config.early_stopping:
            return self._collected([together]), errors
        run_trials(name, self.counting, self.cluster, others)
        return self._collected([together, *([part] for part in others)]), errors

    def _collected(self, passes: Sequence[Sequence[Slice]]) -> list[Scored]:
        counted = [(slices, self.counting.read(self.counting.masks(slices))) for slices in passes]
        return collect(counted, self.first, num_images=self.counting.maps.num_rows)


if __name__ == "__main__":
    sys.exit(main(Search, run))
