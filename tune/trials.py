"""Run the trials of a search with Ray Tune: given slices or slices chosen by Optuna, with optional early stopping.

A trial commits its counts as shards, like a pass over all images, and the same trial of a later run resumes from them.
The search therefore needs neither Tune's checkpoints nor storage that Tune can write to.
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray.tune
from ray.tune.schedulers import ASHAScheduler

from engine.distributed.actor import PoolActor
from engine.distributed.cluster import Cluster
from engine.distributed.pipeline import ShardRun
from engine.errors import StorageError, TooManyErrors
from engine.ops.sweep_scores import miou
from engine.progress import Meter
from engine.records import to_table
from engine.resources import ResourceConfig
from engine.runs.shards import check_errors
from engine.stages.count import Slice
from engine.storage.filesystem import list_entries, name_of
from engine.storage.tally import Tally
from tune.counts import SCHEMA, Counting, stale
from tune.options import SearchOptions
from tune.space import slice_of

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they write a log folder for each trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the search like any other job
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_trials(name: str, counting: Counting, cluster: Cluster, slices: Sequence[Slice]) -> None:
    """Count each slice in a trial and stop poor ones early; counts of earlier runs are reused.

    Raises:
        StorageError: A trial cannot read or write a file.
        TooManyErrors: A trial failed, or too many images ended in an error.
    """
    if slices:
        space = {"slice": ray.tune.grid_search(list(slices))}
        _fit(name, counting, cluster, space, num_trials=len(slices), early_stopping=True)
        for part in slices:
            check_trial(counting, part)


def check_trial(counting: Counting, part: Slice) -> None:
    """Reject the counts of a trial with too many errors; the next search counts those images again.

    Raises:
        TooManyErrors: More images than ``max_error_fraction`` ended in an error.
    """
    errors = Tally(counting.masks([part]).folder).errors
    summary = {"missing_shards": [], "errors": errors, "images": counting.maps.num_rows}
    check_errors(summary, counting.config)


def run_optuna(counting: Counting, cluster: Cluster, config: SearchOptions) -> list[Slice]:
    """Let Optuna choose scales and betas, starting with those of earlier runs, whose counts are reused.

    Returns:
        The slices tried in this run and earlier ones.

    Raises:
        StorageError: A trial cannot read or write a file.
        TooManyErrors: A trial failed.
    """
    from ray.tune.search.optuna import OptunaSearch

    importlib.import_module("optuna").logging.set_verbosity(logging.ERROR)
    fixed = (counting.scale_sets, config.alphas, config.steps)

    def tried() -> list[dict[str, Any]]:
        names = list_entries(counting.folder)
        betas = sorted({float(name[5:].rpartition("-")[0]) for name in names if name.startswith("walk-")})
        choices = [{"beta": beta, "scales": index} for beta in betas for index in range(len(counting.scale_sets))]
        return [choice for choice in choices if name_of(counting.masks([_chosen(choice, *fixed)]).folder) in names]

    low, high = min(config.betas), max(config.betas)
    start = tried() or [{"beta": min(max(counting.walk.beta, low), high), "scales": 0}]
    space = {
        "beta": ray.tune.loguniform(low, high),
        "scales": ray.tune.choice(range(len(counting.scale_sets))),
        "fixed": fixed,
    }
    _fit(
        "search",
        counting,
        cluster,
        space,
        num_trials=config.num_betas,
        early_stopping=config.early_stopping,
        search_alg=OptunaSearch(points_to_evaluate=start, seed=config.rng_seed),
        num_samples=config.num_betas,
    )
    return [_chosen(choice, *fixed) for choice in tried()]


def _chosen(choice: dict[str, Any], scale_sets: Any, alphas: Sequence[float], steps: Sequence[int]) -> Slice:
    return slice_of(scale_sets[choice["scales"]], float(f"{choice['beta']:.3g}"), alphas, steps)


def _fit(
    name: str,
    counting: Counting,
    cluster: Cluster,
    space: dict[str, Any],
    *,
    num_trials: int,
    early_stopping: bool,
    **choice: Any,
) -> None:
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    num_parts = len(counting.parts())
    # half of the trials continue at 1/8, 1/4 and 1/2 of the images
    asha = ASHAScheduler(time_attr="part", max_t=num_parts, grace_period=1, reduction_factor=2)
    with (
        tempfile.TemporaryDirectory(prefix="tag2mask-tune-") as scratch,
        Meter(name, num_trials, unit="trials") as meter,
    ):
        trial = ray.tune.with_parameters(_trial, counting=counting, cluster=cluster)
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(trial, {"cpu": 1}),
            param_space=space,
            tune_config=ray.tune.TuneConfig(
                metric="miou",
                mode="max",
                scheduler=asha if early_stopping else None,
                max_concurrent_trials=cluster.num_cores if cluster.started_here else None,
                reuse_actors=True,
                **choice,
            ),
            run_config=ray.tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                callbacks=[_Watch(meter, num_parts)],
                failure_config=ray.tune.FailureConfig(max_failures=2),
            ),
        )
        errors = [str(error) for error in tuner.fit().errors]
    if errors:
        reason = errors[0].strip().rpartition("\n")[2].strip() or "no reason given"
        if "StorageError: " in reason:
            raise StorageError(reason.partition("StorageError: ")[2])
        raise TooManyErrors(f"{len(errors)} trials failed ({reason}); rerun the command to try them again")


def _trial(settings: dict[str, Any], counting: Counting, cluster: Cluster) -> None:
    """Count one slice, part by part, in a Tune worker."""
    one = counting.masks([settings.get("slice") or _chosen(settings, *settings["fixed"])])
    run = ShardRun(
        manifest=counting.maps,
        folder=one.folder,
        schema=SCHEMA,
        resources=ResourceConfig(),
        cluster=cluster,
        fetch=one.fetch,
    )
    actors = [PoolActor(pool) for pool in run.pools([one.step])]
    tally = Tally(one.folder)
    done, counted = tally.shards.difference(stale(counting.config, counting.maps, tally)), counting.empty(one)
    for number, shards in enumerate(counting.parts(), start=1):
        for shard in shards:
            if shard in done:
                continue
            table = to_table({"shard": [shard]})
            for actor in actors:
                table = actor(table)
            if failure := table.column("failure")[0].as_py():
                raise StorageError(failure)
        counting.add(counted, one, shards)
        ray.tune.report({"miou": float(np.nanmax(miou(counted.counts, counted.truth))), "part": number})


class _Watch(ray.tune.Callback):
    """Shows progress with the best mIoU so far."""

    def __init__(self, meter: Meter, num_parts: int) -> None:
        self._meter, self._num_parts = meter, num_parts
        self._done: set[str] = set()
        self._best = 0.0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if result["part"] == self._num_parts:
            self._best = max(self._best, result["miou"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._done.add(trial.trial_id)
        self._meter.update(len(self._done), f"best mIoU {100 * self._best:.2f} %" if self._best else "")
