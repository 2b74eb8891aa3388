"""The trials of a search on Ray Tune: slices of configurations, given or chosen by a model, and seeds."""

from __future__ import annotations

import importlib
import logging
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import ray.tune
from ray.tune.schedulers import ASHAScheduler

from engine.distributed.cluster import Cluster
from engine.errors import ConfigError, StorageError, TooManyErrors
from engine.runs.progress import Meter
from engine.storage.filesystem import list_names
from tune.seeds import SeedPart, count_seeds, seeds_counted
from tune.space import Scales, Slice, slice_of
from tune.trial import Context, read_state, run_slice


def run_trials(name: str, context: Context, slices: Sequence[Slice], cluster: Cluster, *, early_stopping: bool) -> None:
    """Do the trials that no earlier run has finished.

    Raises:
        StorageError: a trial met a file that cannot be used.
        TooManyErrors: a trial failed.
    """
    todo = [part for part in slices if early_stopping or read_state(context, part).num_images < _num_images(context)]
    if not todo:
        return
    total = sum(part.num_configurations for part in slices)
    done = total - sum(part.num_configurations for part in todo)
    with Meter(name, total, unit="configurations", done=done) as meter:
        _fit(
            _trial,
            context,
            {"slice": ray.tune.grid_search(todo)},
            cluster,
            _Watch(meter, done, len(context.parts())),
            scheduler=_asha(context) if early_stopping else None,
        )


def run_seeds(context: Context, parts: Sequence[SeedPart], cluster: Cluster) -> None:
    """Count the seeds of the parts of the images that no earlier run has counted.

    Raises:
        StorageError: a trial met a file that cannot be used.
        TooManyErrors: a trial failed.
    """
    todo = [part for part in parts if not seeds_counted(context, part)]
    if not todo:
        return
    with Meter("seeds", len(parts), unit="parts", done=len(parts) - len(todo)) as meter:
        watch = _Watch(meter, len(parts) - len(todo), 1)
        _fit(_seed_trial, context, {"part": ray.tune.grid_search(todo)}, cluster, watch, scheduler=None)


def run_optuna(
    context: Context,
    cluster: Cluster,
    *,
    scale_sets: Sequence[Scales],
    alphas: tuple[float, ...],
    betas: tuple[float, ...],
    steps: tuple[int, ...],
    num_betas: int,
    early_stopping: bool,
    rng_seed: int,
) -> list[Slice]:
    """Let a model choose scales and betas; those that an earlier run has tried are told to it first, at no cost.

    Returns:
        The slices that were tried, now or before.

    Raises:
        StorageError: a trial met a file that cannot be used.
        TooManyErrors: a trial failed.
    """
    from ray.tune.search.optuna import OptunaSearch

    optuna = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def part_of(choice: dict[str, Any]) -> Slice:
        return _chosen(choice, scale_sets, alphas, steps)

    def tried() -> list[dict[str, Any]]:
        names = list_names(context.states, prefix="walk-", suffix=".npz")
        betas = {float(match[1]) for match in (re.match(r"walk-(.+)-[0-9a-f]+\.npz$", name) for name in names) if match}
        choices = [{"beta": beta, "scales": index} for beta in sorted(betas) for index in range(len(scale_sets))]
        return [choice for choice in choices if f"{part_of(choice).name}.npz" in names]

    low, high = min(betas), max(betas)
    assert low < high, betas
    start = tried() or [{"beta": min(max(context.walk.beta, low), high), "scales": 0}]
    per_trial = part_of(start[0]).num_configurations
    algorithm = OptunaSearch(points_to_evaluate=start, seed=rng_seed)
    with Meter("search", num_betas * per_trial, unit="configurations") as meter:
        _fit(
            _trial,
            context,
            {
                "beta": ray.tune.loguniform(low, high),
                "scales": ray.tune.choice(range(len(scale_sets))),
                "fixed": (tuple(scale_sets), alphas, steps),
            },
            cluster,
            _Watch(meter, 0, len(context.parts())),
            scheduler=_asha(context) if early_stopping else None,
            search_alg=algorithm,
            num_samples=num_betas,
        )
    return [part_of(choice) for choice in tried()]


def _chosen(choice: dict[str, Any], scale_sets: Sequence[Scales], alphas: Any, steps: Any) -> Slice:
    return slice_of(scale_sets[choice["scales"]], float(f"{choice['beta']:.3g}"), alphas, steps)


def check_optuna() -> None:
    """Raises:
    ConfigError: the package optuna is not installed.
    """
    try:
        importlib.import_module("optuna")
    except ImportError as error:
        raise ConfigError("is optuna, which is not installed; pip install optuna", thing="search") from error


def _asha(context: Context) -> Any:
    """Half of the betas go on at 1/8, 1/4 and 1/2 of the images."""
    return ASHAScheduler(time_attr="part", max_t=len(context.parts()), grace_period=1, reduction_factor=2)


def _num_images(context: Context) -> int:
    return context.manifest.num_rows


def _fit(
    trial: Callable[..., None],
    context: Context,
    space: dict[str, Any],
    cluster: Cluster,
    watch: _Watch,
    *,
    scheduler: Any,
    **choice: Any,
) -> None:
    """Hand the trials to Tune.

    Raises:
        StorageError: a trial met a file that cannot be used.
        TooManyErrors: a trial failed.
    """
    trainable = ray.tune.with_resources(ray.tune.with_parameters(trial, context=context), {"cpu": 1})
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="tag2mask-tune-") as scratch:
        tuner = ray.tune.Tuner(
            trainable,
            param_space=space,
            tune_config=ray.tune.TuneConfig(
                metric="miou",
                mode="max",
                scheduler=scheduler,
                max_concurrent_trials=cluster.num_cores if cluster.started_here else None,
                reuse_actors=True,
                **choice,
            ),
            run_config=ray.tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                callbacks=[watch],
                failure_config=ray.tune.FailureConfig(max_failures=2),
            ),
        )
        grid = tuner.fit()
    errors = [str(error) for error in grid.errors]
    if errors:
        lines = [line.strip() for line in errors[0].strip().splitlines() if line.strip()]
        reason = lines[-1] if lines else "no reason given"
        if "StorageError: " in reason:
            raise StorageError(reason.partition("StorageError: ")[2])
        raise TooManyErrors(f"{len(errors)} trials failed ({reason}); the same command tries them again")


def _trial(settings: dict[str, Any], context: Context) -> None:
    """What a worker runs: one slice."""
    part = settings.get("slice")
    if part is None:
        part = _chosen(settings, *settings["fixed"])
    for number, state in enumerate(run_slice(context, part), start=1):
        ray.tune.report({"miou": state.history[-1], "part": number, "configurations": part.num_configurations})


def _seed_trial(settings: dict[str, Any], context: Context) -> None:
    """What a worker runs: the seeds of one part of the images."""
    count_seeds(context, settings["part"])
    ray.tune.report({"miou": 0.0, "part": 1, "configurations": 1})


class _Watch(ray.tune.Callback):
    """Live progress with the best so far."""

    def __init__(self, meter: Meter, done: int, num_parts: int) -> None:
        self._meter, self._before, self._num_parts = meter, done, num_parts
        self._done: dict[str, float] = {}
        self._size: dict[str, int] = {}
        self._best = 0.0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self._size[trial.trial_id] = result["configurations"]
        self._done[trial.trial_id] = result["configurations"] * result["part"] / self._num_parts
        if result["part"] == self._num_parts:
            self._best = max(self._best, result["miou"])
        self._say()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._done[trial.trial_id] = self._size.get(trial.trial_id, 0)  # also when it was stopped early
        self._say()

    def _say(self) -> None:
        note = f"best mIoU {100 * self._best:.2f} %" if self._best else ""
        self._meter.update(self._before + round(sum(self._done.values())), note)
