"""Train a network with Ray Train; Ray Data actors load the samples.

Each worker reads its own part of each step's batch (:mod:`engine.fitting.sample_order`), so the samples of a run do not
depend on the number of workers, and a resumed run continues with the next sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from torch import Tensor

from engine.config import TrainingConfig
from engine.distributed.cluster import Cluster
from engine.distributed.progress import Event, forwarded, progress_actor
from engine.distributed.ray_internals import restored_sigint
from engine.distributed.training_worker import LOADER_CPUS, Job, Journal, read_state, train
from engine.errors import ConfigError, StorageError, StoreUnavailableError, TooManyErrors, UserError
from engine.fitting.events import TrainingDiverged, TrainingEvent, TrainingStarted
from engine.fitting.learner import kept_weights
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource, steps_of
from engine.resources import ResourceConfig
from engine.storage.filesystem import open_filesystem


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The weights that scored best on the held-out images."""

    step: int
    score: float
    weights: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The result of a training."""

    weights: dict[str, Tensor]
    """After the last step."""
    best: Best | None
    """None without held-out images."""
    curve: list[dict[str, float]]
    """Some hundred points of step, loss, learning rate, images per second and the fraction of time spent waiting."""
    validation: list[dict[str, float]]
    """Step and scores on the held-out images, after each epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """Checkpoint location and resources of a training."""

    folder: str
    """Folder of the checkpoints, a path or URI."""
    name: str
    """Name of this run in the folder; a new name starts from scratch."""
    resources: ResourceConfig
    cluster: Cluster


def fit(
    objective: Objective,
    source: SampleSource,
    config: TrainingConfig,
    run: TrainingRun,
    *,
    on_event: Callable[[TrainingEvent], None],
) -> Trained:
    """Train a network; the same call after a crash resumes from the last checkpoint.

    Args:
        on_event: called in a thread of this process with the progress.

    Raises:
        ConfigError: the loss became NaN, or this machine has too few resources for the workers.
        StorageError: a store stays unavailable or refuses the credentials.
        UserError: a worker met another user error, such as a missing weight file.
        TooManyErrors: many images in a row cannot be used.
        ray.train.TrainingFailedError: workers kept failing for another reason.
    """
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    resources = run.resources
    _check_room(resources, run.cluster)
    progress = progress_actor()
    job = Job(objective=objective, source=source, config=config, resources=resources, progress=progress)
    workers: Any = resources.num_workers  # ScalingConfig's annotation lacks the range
    if 0 < resources.min_workers < resources.num_workers:
        workers = (resources.min_workers, resources.num_workers)
    # Ray would parse '#', '%' and spaces of a URI differently
    filesystem, path = open_filesystem(run.folder)
    trainer = ray.train.torch.TorchTrainer(
        train,
        train_loop_config={"job": job},
        # NCCL refuses two workers on one GPU
        torch_config=TorchConfig(backend="gloo" if resources.num_gpus < 1 else "nccl"),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=resources.num_gpus > 0,
            resources_per_worker={"CPU": 1, "GPU": resources.num_gpus} if resources.num_gpus > 0 else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=resources.max_worker_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    diverged: list[TrainingDiverged] = []
    starts: list[int] = []

    def forward(event: Event) -> None:
        if isinstance(event, TrainingDiverged):
            diverged.append(event)
            return
        if isinstance(event, TrainingStarted):
            starts.append(event.step)
        on_event(event)

    while True:
        starts.clear()
        try:
            with forwarded(progress, forward), restored_sigint():
                result = trainer.fit()
            break
        except ray.train.WorkerGroupError as error:
            # Ray counts failures from the start of fit(); the next fit() resumes from the last checkpoint
            if (cause := _cause(error)) is not error or not starts or starts[-1] <= starts[0]:
                raise cause from error
    state = read_state(result.checkpoint) if result.checkpoint is not None else {"journal": {}}
    journal = Journal(**state["journal"])
    if journal.step < steps_of(source, config):  # even if the event was lost
        raise ConfigError(
            f"{config.learning_rate:g} and training.head_learning_rate {config.head_learning_rate:g}: the loss became "
            f"NaN at step {diverged[0].step if diverged else journal.step + 1}; use a lower learning rate",
            thing="training.learning_rate",
        )
    return Trained(
        weights=kept_weights(state),
        best=None if journal.best is None else Best(**journal.best),
        curve=journal.curve,
        validation=journal.validation,
    )


def _cause(error: ray.train.WorkerGroupError) -> Exception:
    """The user-facing error that ended the training, if a worker raised one; others may have failed because of it."""
    for failure in error.worker_failures.values():
        if isinstance(failure, StoreUnavailableError):
            return StorageError(f"{failure}; checkpoints are kept; rerun the command to resume")
        if isinstance(failure, UserError | TooManyErrors):
            return failure
    return error


def _check_room(resources: ResourceConfig, cluster: Cluster) -> None:
    """Refuse more workers than a Ray started here can hold: it cannot grow, so they would wait forever."""
    name = "min_workers" if resources.min_workers else "num_workers"
    least = resources.min_workers or resources.num_workers
    most = int(cluster.num_cpus / (1 + LOADER_CPUS))
    if resources.num_gpus > 0:
        most = min(most, int(cluster.num_gpus / resources.num_gpus))
    if cluster.started_here and least > most:
        raise ConfigError(
            f"must be at most {most} on this machine, got {least}; use fewer workers or run on a cluster",
            thing=f"resources.{name}",
        )
