"""Search alpha, beta and the number of walk steps for mIoU, without labeling again: ``python -m tune.search``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from engine.cluster import Cluster, connected
from engine.config import AffinityInferenceConfig, CrfConfig, InferenceConfig, WalkConfig
from engine.errors import ConfigError, OutputError
from engine.plain_settings import to_dict
from engine.stages.networks import read_architecture
from engine.storage.filesystem import absolute, delete_file, join, write_bytes
from engine.storage.run_record import WORK_FOLDER, claim_output, commit, versions, write_json
from engine.storage.weights import weights_hash
from jobs.command import main
from jobs.options import DataOptions
from jobs.shard_job import network_classes
from tune.cache import TrueMasks, cache_key, fill_cache, missing_shards, open_cache, read_true_masks
from tune.plots import class_bars, heat_maps
from tune.results import Scored, collect, judged, print_table, validated, write_results
from tune.space import SearchName, Slice, default_slice, grid_slices, random_slices, single
from tune.trial import Context
from tune.tuner import check_optuna, run_optuna, run_trials

RESULTS, BEST, HEAT_MAPS, CLASSES = "results.parquet", "best.json", "miou.svg", "classes.svg"
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a folder of logs for each trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ctrl-c ends the search as it ends any job
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Search(DataOptions):
    """Find the alpha, beta and number of walk steps with the best mIoU on the images that have truth."""

    truth: str
    """True masks, of all images or of some: a folder of PNGs named by image stem, or a folder of mask shards."""
    cam: str
    """Folder that jobs.train_cam wrote."""
    affinity: str
    """Folder that jobs.train_affinity wrote."""
    cache: str = ""
    """Folder or URI for what the networks say, which later searches use again; 'cache' in --out by default."""
    search: SearchName = "grid"
    """grid: every combination. random: --num-betas betas between the least and the greatest, each with as many alphas
    and steps as are given, drawn too. optuna: a model chooses the betas; every alpha and number of steps with each."""
    alphas: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
    """Background exponents."""
    betas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0)
    """Exponents of the affinities."""
    steps: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128, 192, 256, 512, 1024)
    """Numbers of steps; 0 leaves out the walk."""
    num_betas: int = 10
    """Betas that random and optuna try."""
    early_stopping: bool = False
    """Stop betas that look poor on a share of the images (ASHA); their figures are over that share alone."""
    top_k_crf: int = 0
    """Give this many of the best configurations the dCRF too, and rank them by the mIoU with it; 0 leaves it out."""
    folds: int = 5
    """Parts of the images for the cross-validated figure; 0 leaves it out."""
    bootstrap: int = 1000
    """Draws for the confidence intervals; 0 leaves them out."""
    rng_seed: int = 0
    """Seed of the order of the images, of random configurations and of the bootstrap."""
    cam_inference: Annotated[InferenceConfig, tyro.conf.arg(name="cam.inference")]
    """How the activation maps are taken."""
    affinity_inference: Annotated[AffinityInferenceConfig, tyro.conf.arg(name="affinity.inference")]
    """How the affinities are taken."""
    walk: WalkConfig
    """alpha, beta and steps that the search is compared with; radius and tolerance of every walk."""
    crf: CrfConfig
    """The dense CRF of --top-k-crf."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        for name in ("alphas", "betas"):
            values = getattr(self, name)
            if isinstance(values, tuple) and not (values and all(0 < value < 1e6 for value in values)):
                raise ConfigError(f"--{name} is {_shown(values)}; allowed: one or more numbers above 0")
        if isinstance(self.steps, tuple) and not (self.steps and all(0 <= count <= 100_000 for count in self.steps)):
            raise ConfigError(f"--steps is {_shown(self.steps)}; allowed: one or more whole numbers, 0 to 100000")
        for name, least in (("num_betas", 1), ("top_k_crf", 0), ("bootstrap", 0), ("folds", 0)):
            value = getattr(self, name)
            if isinstance(value, int) and value < least:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; allowed: {least} or more")
        if self.folds == 1:
            raise ConfigError("--folds is 1; allowed: 0 (none), or 2 and more")


def _shown(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values) or "empty"


def run(config: Search) -> dict[str, Any]:
    """Search; writes ``results.parquet``, ``best.json``, ``miou.svg`` and ``classes.svg`` under ``--out``.

    Returns:
        What ``best.json`` holds.

    Raises:
        UserError: an option, a file or the truth cannot be used.
        TooManyErrors: networks or trials failed.
    """
    if config.top_k_crf and config.crf.num_iterations == 0:
        raise ConfigError("--crf.num-iterations is 0 with --top-k-crf; allowed: 1 or more")
    if config.search == "optuna":
        check_optuna()
    class_names = network_classes(config.cam, "cam", config)
    read_architecture(config.affinity, "affinity")
    true_masks = read_true_masks(
        config.data,
        config.truth,
        num_classes=len(class_names),
        rng_seed=config.rng_seed,
        allow_outside=config.allow_outside,
    )
    key = cache_key(
        true_masks,
        cam=config.cam,
        affinity=config.affinity,
        cam_inference=config.cam_inference,
        affinity_inference=config.affinity_inference,
        radius=config.walk.radius,
        class_names=class_names,
        max_pixels=config.max_pixels,
    )
    _claim(config, true_masks, key, class_names)
    place, manifest = open_cache(config.cache or join(config.out, "cache"), true_masks, key)
    context = Context(
        cache=place,
        manifest=manifest,
        true_masks=true_masks.masks,
        states=absolute(join(config.out, WORK_FOLDER, "trials")),
        walk=config.walk,
        crf=config.crf,
        max_pixels=config.max_pixels,
    )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with connected(config.resources) as cluster:
        if missing_shards(place, manifest):
            fill_cache(
                place,
                manifest,
                cam=config.cam,
                affinity=config.affinity,
                cam_inference=config.cam_inference,
                affinity_inference=config.affinity_inference,
                walk=config.walk,
                resources=config.resources,
                max_pixels=config.max_pixels,
                cluster=cluster,
            )
        slices = _sweep(config, context, cluster)
        plain = collect(context, slices)
        chosen = [one for one in plain if one.complete][: config.top_k_crf]
        with_crf = [single(one.alpha, one.beta, one.num_steps, crf=True) for one in chosen]
        if with_crf:
            run_trials("dCRF", context, with_crf, cluster, early_stopping=False)
    return _report(config, plain, collect(context, with_crf), manifest.num_rows)


def _claim(config: Search, true_masks: TrueMasks, key: dict[str, Any], class_names: tuple[str, ...]) -> None:
    settings = {
        "cam": {"inference": to_dict(config.cam_inference)},
        "affinity": {"inference": to_dict(config.affinity_inference)},
        "walk": to_dict(config.walk),
        "crf": to_dict(config.crf),
        "search": {
            name: getattr(config, name)
            for name in ("search", "alphas", "betas", "steps", "num_betas", "early_stopping", "rng_seed")
        },
    }
    inputs = {
        "cam": weights_hash(config.cam),
        "affinity": weights_hash(config.affinity),
        "images": key["images"],
        "truth": true_masks.hash,
    }
    record = {
        "job": "search",
        "settings": settings,
        "inputs": inputs,
        "class_names": list(class_names),
        "options": {"data": config.data, "truth": config.truth, "preset": config.preset},
        "versions": versions(),
        "commit": commit(),
    }
    claim_output(config.out, record, overwrite=config.overwrite)
    if config.overwrite:
        for name in (RESULTS, BEST, HEAT_MAPS, CLASSES):
            delete_file(join(config.out, name))


def _sweep(config: Search, context: Context, cluster: Cluster) -> list[Slice]:
    """Do all trials without dCRF; gives the slices that were tried."""
    first = default_slice(config.walk)
    if config.search == "optuna" or config.early_stopping:  # what all is compared with is never stopped
        run_trials("default", context, [first], cluster, early_stopping=False)
    if config.search == "optuna":
        tried = run_optuna(
            context,
            cluster,
            alphas=config.alphas,
            betas=config.betas,
            steps=config.steps,
            num_betas=config.num_betas,
            early_stopping=config.early_stopping,
            rng_seed=config.rng_seed,
        )
        return [first, *tried]
    if config.search == "grid":
        slices = grid_slices(config.alphas, config.betas, config.steps)
    else:
        slices = random_slices(
            config.alphas, config.betas, config.steps, num_betas=config.num_betas, rng_seed=config.rng_seed
        )
    others = list({part.name: part for part in slices if part != first}.values())
    todo = others if config.early_stopping else [first, *others]
    run_trials("search", context, todo, cluster, early_stopping=config.early_stopping)
    return [first, *others]


def _report(config: Search, plain: list[Scored], with_crf: list[Scored], num_images: int) -> dict[str, Any]:
    draws = {"num_draws": config.bootstrap, "rng_seed": config.rng_seed}
    ranked = judged([*with_crf, *plain], **draws)
    with_crf, plain = [one for one in ranked if one.crf], [one for one in ranked if not one.crf]
    default = next((one for one in plain if one.is_of(config.walk)), None)
    best = ranked[0]
    cross = validated(plain, num_folds=config.folds)
    cross_crf = validated(with_crf, num_folds=config.folds)
    settings: dict[str, Any] = {
        "cam": {"inference": to_dict(config.cam_inference)},
        "affinity": {"inference": to_dict(config.affinity_inference)},
        "walk": to_dict(
            replace(
                config.walk,
                alpha=best.alpha,
                beta=best.beta if best.num_steps else config.walk.beta,
                num_steps=best.num_steps,
            )
        ),
    }
    if best.crf:
        settings["crf"] = to_dict(config.crf)
    summary = {
        "settings": settings,
        "miou": best.miou,
        "miou_interval": None if best.low is None else [best.low, best.high],
        "miou_cross_validated": cross,
        "miou_crf_cross_validated": cross_crf,
        "miou_default": None if default is None else default.miou,
        "crf": best.crf,
        "configurations": len(plain),
        "tied_with_best": sum(one.tied for one in ranked),
        "images": num_images,
        "rng_seed": config.rng_seed,
    }
    try:
        write_results(join(config.out, RESULTS), ranked, config.walk)
        write_bytes(join(config.out, HEAT_MAPS), heat_maps(plain).encode())
        names = tuple(network_classes(config.cam, "cam", config))
        same_default = next((one for one in ranked if one.is_of(config.walk) and one.crf == best.crf), default)
        write_bytes(join(config.out, CLASSES), class_bars(best, same_default, names).encode())
    except OSError as error:
        raise OutputError(f"--out: {error}") from error
    write_json(join(config.out, BEST), summary)
    print_table(ranked, config.walk, num_images=num_images)
    for name, value in (("without dCRF", cross), ("with dCRF", cross_crf)):
        if value is not None:
            print(f"cross-validated over {config.folds} folds, {name}: mIoU {100 * value:.2f} %")
    print(f"take it with: python -m jobs.label --config {join(config.out, BEST)} ...")
    return summary


if __name__ == "__main__":
    sys.exit(main(Search, run))
