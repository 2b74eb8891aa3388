"""The training loop that each worker runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.data import ActorPoolStrategy
from ray.exceptions import RayTaskError
from ray.train import Checkpoint

from engine.config import TrainingConfig
from engine.distributed.blocks import small_blocks
from engine.distributed.cluster import num_cores
from engine.distributed.progress import Event
from engine.distributed.ray_internals import throttled_context
from engine.errors import StoreUnavailableError, TooManyErrors, UserError
from engine.fitting.events import Clock, TrainingDiverged, TrainingStarted, TrainingValidated
from engine.fitting.learner import Learner, MeanLoss, Samples
from engine.fitting.objectives import Objective
from engine.fitting.sample_order import ends_epoch, schedule
from engine.fitting.samples import LoadSamples, SampleSource, steps_of
from engine.resources import ResourceConfig

STEPS_PER_BLOCK = 4
LOADER_CPUS = 0.5
CHECKPOINT_FILE = "state.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The job that each worker receives."""

    objective: Objective
    source: SampleSource
    config: TrainingConfig
    resources: ResourceConfig
    progress: Any
    """The progress actor."""


@dataclass(kw_only=True, slots=True)
class Journal:
    """Contents of a checkpoint besides the learner's state."""

    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    """``step``, ``score`` and ``weights`` of the best validation."""


def train(sent: dict[str, Any]) -> None:
    """Run the job in ``sent["job"]`` on this worker; user-facing errors are raised unwrapped."""
    try:
        _train(sent["job"])
    except RayTaskError as error:
        # from a loader actor; Ray Train hands the driver what is raised here, if it can be pickled
        if isinstance(error.cause, StoreUnavailableError | TooManyErrors | UserError):
            raise error.cause from error
        raise


def _train(job: Job) -> None:
    context = ray.train.get_context()
    torch.set_num_threads(job.resources.training_threads or max(1, num_cores() // context.get_local_world_size()))
    rank, world = context.get_world_rank(), context.get_world_size()
    config, source = job.config, job.source
    learner = Learner(job.objective, config, ray.train.torch.get_device(), rank=rank, num_workers=world)
    journal = Journal()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        state = read_state(checkpoint)
        learner.load_state(state)
        journal = Journal(**state["journal"])
    learner.wrap(lambda network: ray.train.torch.prepare_model(network, move_to_device=False))

    steps = steps_of(source, config)
    steps_per_epoch = max(1, -(-steps // config.num_epochs))
    held_out_steps = -(-sum(source.held_out_of_shards) // config.batch_size)
    send: Callable[[Event], object] = job.progress.put.remote if rank == 0 else lambda event: None
    send(TrainingStarted(step=journal.step, num_steps=steps, num_workers=world))
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
            send(TrainingDiverged(step=done))
            return
        if clock.is_due() or done == steps:
            progress = clock.progress(done, steps, losses.take(), learner.learning_rate)
            send(progress)
            journal.curve.append(asdict(progress))
        if epoch_ends and held_out_steps:
            send(_validated(learner, islice(batches, held_out_steps), journal))
        if is_kept:
            _report(rank, learner, journal)
            clock.reset()


def _validated(learner: Learner, batches: Iterator[Samples], journal: Journal) -> TrainingValidated:
    scores = learner.validate(batches)
    journal.validation.append({"step": journal.step, **scores})
    name, score = next(iter(scores.items()))
    if name == "loss":  # as when the held-out images have no pairs or tags to score
        score = -score
    is_best = journal.best is None or score > journal.best["score"]
    if is_best:
        journal.best = {"step": journal.step, "score": score, "weights": learner.weights()}
    return TrainingValidated(step=journal.step, scores=scores, is_best=is_best)


def _batches(job: Job, order: list[tuple[int, bool]], rank: int, world: int) -> Iterator[Samples]:
    context = throttled_context()
    context.execution_options.preserve_order = True
    context.max_errored_blocks = 0  # without a block, all later samples would be taken for those of earlier steps
    context.raise_original_map_exception = True
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


def _report(rank: int, learner: Learner, journal: Journal) -> None:
    if rank != 0:
        ray.train.report({"step": journal.step})
        return
    with tempfile.TemporaryDirectory() as folder:
        state = {**learner.state(), "journal": asdict(journal)}
        torch.save(state, os.path.join(folder, CHECKPOINT_FILE))
        ray.train.report({"step": journal.step}, checkpoint=Checkpoint.from_directory(folder))


def read_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """The learner's state, with the fields of the :class:`Journal` under ``journal``."""
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(os.path.join(folder, CHECKPOINT_FILE), map_location="cpu", weights_only=True)
    return state
