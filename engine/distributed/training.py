"""One loop for the three networks: Ray Train runs it, Ray Data feeds it. The only import of ray.train.

Every worker reads its own part of each step's batch (:mod:`engine.fitting.sample_order`), so the samples of a run are
the same on any number of workers, and a run that is continued at a step goes on with the sample that comes next.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.data import ActorPoolStrategy
from ray.exceptions import RayActorError
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor

from engine.config import ResourceConfig, TrainingConfig
from engine.distributed.blocks import small_blocks
from engine.distributed.cluster import Cluster, num_cores
from engine.distributed.throttled_executor import unhurried_context
from engine.errors import (
    ConfigError,
    ImageError,
    ManifestError,
    StorageError,
    StoreUnavailableError,
    TooManyErrors,
    WeightsError,
)
from engine.fitting.events import (
    REPORT_EVERY_S,
    Clock,
    MeanLoss,
    TrainingDiverged,
    TrainingEvent,
    TrainingStarted,
    TrainingValidated,
)
from engine.fitting.learner import Learner, Samples, kept_weights
from engine.fitting.objectives import Objective
from engine.fitting.sample_order import ends_epoch, schedule
from engine.fitting.samples import LoadSamples, SampleSource, steps_of
from engine.storage.filesystem import open_filesystem

_FAULTS_OF_STORES = (StoreUnavailableError, StorageError, WeightsError, ManifestError)
STEPS_PER_BLOCK = 4
LOADER_CPUS = 0.5
CHECKPOINT_FILE = "state.pt"
_Said = TrainingEvent | TrainingDiverged
_SENTENCE = re.compile(rf"\b({'|'.join(error.__name__ for error in (ImageError, *_FAULTS_OF_STORES))}): (.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The weights that scored best on the held-out images."""

    step: int
    score: float
    weights: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came of a run."""

    weights: dict[str, Tensor]
    """After the last step."""
    best: Best | None
    """None without held-out images."""
    curve: list[dict[str, float]]
    """Step, loss, rate, images a second and share of waiting, some hundred points."""
    validation: list[dict[str, float]]
    """Step and scores on the held-out images, after each epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """What a worker is sent."""

    objective: Objective
    source: SampleSource
    config: TrainingConfig
    resources: ResourceConfig
    mailbox: Any


@dataclass(kw_only=True, slots=True)
class _Journal:
    """What a checkpoint holds beside the learner."""

    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    """The fields of :class:`Best`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """Where a training keeps its checkpoints, and on what it runs."""

    folder: str
    """Of the checkpoints, a path or URI."""
    name: str
    """Of this run in it; another name starts afresh."""
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
    """Train a network; the same call after a crash goes on from the last checkpoint.

    Args:
        on_event: called in this process when something is to be said.

    Raises:
        ConfigError: the loss is no number any more; the message names the rates. Or there are more workers than a Ray
            that was started here can serve.
        StorageError: a store is away for long, refuses the account, or a file of weights is gone.
        TooManyErrors: many images in a row cannot be used.
        ray.train.TrainingFailedError: a worker failed again and again of something else.
    """
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    resources = run.resources
    _check_room(resources, run.cluster)
    # beside the driver: on another node it would go with that node
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(num_cpus=0)(_Mailbox).options(scheduling_strategy=here).remote()
    job = _Job(objective=objective, source=source, config=config, resources=resources, mailbox=mailbox)
    workers: Any = resources.num_workers  # Ray's own hint leaves out the pair
    if 0 < resources.min_workers < resources.num_workers:
        workers = (resources.min_workers, resources.num_workers)
    filesystem, path = open_filesystem(
        run.folder
    )  # Ray's own reading of a URI gives '#', '%' and blanks another meaning
    trainer = ray.train.torch.TorchTrainer(
        _train,
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

    def hand_on(event: _Said) -> None:
        if isinstance(event, TrainingDiverged):
            diverged.append(event)
        else:
            on_event(event)

    with _forwarded(mailbox, hand_on):
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _in_plain_words(error) from error
    state = _read_state(result.checkpoint) if result.checkpoint is not None else {"journal": {}}
    journal = _Journal(**state["journal"])
    if journal.step < steps_of(source, config):  # also where the word of it was lost
        raise ConfigError(
            f"training.learning-rate is {config.learning_rate:g} and training.head-learning-rate "
            f"{config.head_learning_rate:g}, with which the loss is no number any more at step "
            f"{diverged[0].step if diverged else journal.step + 1}; allowed: smaller ones"
        )
    return Trained(
        weights=kept_weights(state),
        best=None if journal.best is None else Best(**journal.best),
        curve=journal.curve,
        validation=journal.validation,
    )


def _in_plain_words(error: ray.train.TrainingFailedError) -> Exception:
    """What a worker met, where that is a sentence for a person; Ray tells of it as text in a traceback."""
    for line in reversed(str(error).splitlines()):
        told = _SENTENCE.search(line)
        if told is not None and told[1] == ImageError.__name__:
            return TooManyErrors(told[2])
        if told is not None:
            return StorageError(f"{told[2]}; what was trained stays, and the same command goes on from there")
    return error


def _check_room(resources: ResourceConfig, cluster: Cluster) -> None:
    """Refuse more workers than a Ray that was started here, and does not grow, can serve: they would wait for ever."""
    least = resources.min_workers or resources.num_workers
    most = int(cluster.num_cpus / (1 + LOADER_CPUS))
    if resources.num_gpus > 0:
        most = min(most, int(cluster.num_gpus / resources.num_gpus))
    if cluster.started_here and least > most:
        raise ConfigError(
            f"--resources.num-workers is {least}, but this machine serves {most}; "
            "allowed: no more, or run it on a cluster"
        )


class _Mailbox:
    """The words of rank 0, for the driver to fetch."""

    def __init__(self) -> None:
        self._events: list[_Said] = []

    def put(self, event: _Said) -> None:
        self._events.append(event)

    def take(self) -> list[_Said]:
        events, self._events = self._events, []
        return events


class _forwarded:
    """While the block runs, a thread hands on what arrives in the mailbox."""

    def __init__(self, mailbox: Any, on_event: Callable[[_Said], None]) -> None:
        self._mailbox = mailbox
        self._on_event = on_event
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._forward()

    def _run(self) -> None:
        while not self._stop.wait(REPORT_EVERY_S / 2):
            self._forward()

    def _forward(self) -> None:
        try:
            events = ray.get(self._mailbox.take.remote())
        except RayActorError:  # killed, for its memory or by a person: the training goes on without words
            return
        for event in events:
            self._on_event(event)


def _train(sent: dict[str, Any]) -> None:
    """What each worker runs."""
    job: _Job = sent["job"]
    context = ray.train.get_context()
    torch.set_num_threads(job.resources.training_threads or max(1, num_cores() // context.get_local_world_size()))
    rank, world = context.get_world_rank(), context.get_world_size()
    config, source = job.config, job.source
    learner = Learner(job.objective, config, ray.train.torch.get_device(), rank=rank, num_workers=world)
    journal = _Journal()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        state = _read_state(checkpoint)
        learner.load_state(state)
        journal = _Journal(**state["journal"])
    learner.wrap(lambda network: ray.train.torch.prepare_model(network, move_to_device=False))

    steps = steps_of(source, config)
    steps_per_epoch = max(1, -(-steps // config.num_epochs))
    held_out_steps = -(-sum(source.held_out_of_shards) // config.batch_size)
    say: Callable[[_Said], object] = job.mailbox.put.remote if rank == 0 else lambda event: None
    say(TrainingStarted(step=journal.step, num_steps=steps, num_workers=world))
    order = schedule(journal.step, steps, steps_per_epoch=steps_per_epoch, held_out_steps=held_out_steps)
    batches = _batches(job, list(order), rank, world)
    clock, losses = Clock(config.batch_size), MeanLoss()
    for step in range(journal.step, steps):
        with clock.waiting():
            batch = next(batches)
        loss = learner.step(step, steps, batch)
        losses.add(loss)
        journal.step = done = step + 1
        epoch_ends = ends_epoch(done, steps, steps_per_epoch)
        is_kept = epoch_ends or done % job.resources.checkpoint_every_steps == 0
        if is_kept and not loss.isfinite():  # the same on all workers, so none waits for another
            say(TrainingDiverged(step=done))
            return
        if clock.is_due() or done == steps:
            progress = clock.progress(done, steps, losses.take(), learner.learning_rate)
            say(progress)
            journal.curve.append(asdict(progress))
        if epoch_ends and held_out_steps:
            say(_validated(learner, islice(batches, held_out_steps), journal))
        if is_kept:
            _report(rank, learner, journal)
            clock.reset()


def _validated(learner: Learner, batches: Iterator[Samples], journal: _Journal) -> TrainingValidated:
    scores = learner.validate(batches)
    journal.validation.append({"step": journal.step, **scores})
    name, score = next(iter(scores.items()))
    if name == "loss":  # nothing else can be said of these images
        score = -score
    is_best = journal.best is None or score > journal.best["score"]
    if is_best:
        journal.best = {"step": journal.step, "score": score, "weights": learner.weights()}
    return TrainingValidated(step=journal.step, scores=scores, is_best=is_best)


def _batches(job: _Job, order: list[tuple[int, bool]], rank: int, world: int) -> Iterator[Samples]:
    context = unhurried_context()
    context.execution_options.preserve_order = True
    context.max_errored_blocks = 0  # without one, all that follow would be taken for earlier steps
    rows = [{"step": step, "held_out": held_out} for step, held_out in order]
    dataset = small_blocks(rows, STEPS_PER_BLOCK).map_batches(
        LoadSamples,
        fn_constructor_kwargs={"source": job.source, "config": job.config, "rank": rank, "num_workers": world},
        batch_size=1,
        batch_format="numpy",
        num_cpus=LOADER_CPUS,
        compute=ActorPoolStrategy(min_size=1, max_size=job.resources.max_loader_actors),
    )
    mine = len(range(rank, job.config.batch_size, world))
    return iter(dataset.iter_batches(batch_size=mine, batch_format="numpy", prefetch_batches=2))


def _report(rank: int, learner: Learner, journal: _Journal) -> None:
    if rank != 0:
        ray.train.report({"step": journal.step})
        return
    with tempfile.TemporaryDirectory() as folder:
        state = {**learner.state(), "journal": asdict(journal)}
        torch.save(state, os.path.join(folder, CHECKPOINT_FILE))
        ray.train.report({"step": journal.step}, checkpoint=Checkpoint.from_directory(folder))


def _read_state(checkpoint: Checkpoint) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(os.path.join(folder, CHECKPOINT_FILE), map_location="cpu", weights_only=True)
    return state
