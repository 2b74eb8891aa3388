"""One loop for the three networks: Ray Train runs it, Ray Data feeds it. The only import of ray.train.

Every worker reads its own part of each step's batch (:mod:`engine.stages.sample_order`), so the samples of a run are
the same on any number of workers, and a run that is continued at a step goes on with the sample that comes next.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import ray
import ray.data
import ray.train
import ray.train.torch
import torch
from ray.data import ActorPoolStrategy, DataContext
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from torch import Tensor, nn

from engine.cluster import Cluster
from engine.config import ResourceConfig, TrainingConfig
from engine.models.backbone import Backbone
from engine.objectives import Objective, parameter_groups
from engine.stages.sample_order import num_steps
from engine.stages.samples import LoadSamples, SampleSource

STEPS_PER_BLOCK = 4
REPORT_EVERY_S = 2.0
CHECKPOINT_FILE = "state.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingProgress:
    """Where a run is."""

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    images_per_s: float
    waiting: float
    """Fraction of the time in which the network waited for images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came of a run."""

    state_dict: dict[str, Tensor]
    curve: list[dict[str, float]]
    """Step, loss, rate, images a second and share of waiting, some hundred points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """What a worker is sent."""

    objective: Objective
    source: SampleSource
    config: TrainingConfig
    resources: ResourceConfig
    mailbox: Any


def fit(
    objective: Objective,
    source: SampleSource,
    config: TrainingConfig,
    resources: ResourceConfig,
    cluster: Cluster,
    *,
    folder: str,
    name: str,
    on_progress: Callable[[TrainingProgress], None],
) -> Trained:
    """Train a network; the same call after a crash goes on from the last checkpoint.

    Args:
        folder: where checkpoints are kept, a path or URI.
        name: of this run in it; another name starts afresh.
        on_progress: called in this process now and then.

    Raises:
        ray.train.TrainingFailedError: a worker failed again and again.
    """
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
    threads = resources.training_threads or max(1, cluster.num_cores // resources.num_workers)
    trainer = ray.train.torch.TorchTrainer(
        _train,
        train_loop_config={
            "job": _Job(objective=objective, source=source, config=config, resources=resources, mailbox=mailbox),
            "threads": threads,
        },
        scaling_config=ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.num_gpus > 0,
            resources_per_worker={"CPU": 1, "GPU": resources.num_gpus} if resources.num_gpus > 0 else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=folder,
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    with _forwarded(mailbox, on_progress):
        result = trainer.fit()
    assert result.checkpoint is not None
    state = _read_state(result.checkpoint)
    return Trained(state_dict=state["network"], curve=state["curve"])


class _Mailbox:
    """The last word of rank 0, for the driver to fetch."""

    def __init__(self) -> None:
        self._progress: TrainingProgress | None = None

    def put(self, progress: TrainingProgress) -> None:
        self._progress = progress

    def take(self) -> TrainingProgress | None:
        progress, self._progress = self._progress, None
        return progress


class _forwarded:
    """While the block runs, a thread hands on what arrives in the mailbox."""

    def __init__(self, mailbox: Any, on_progress: Callable[[TrainingProgress], None]) -> None:
        self._mailbox = mailbox
        self._on_progress = on_progress
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
        progress = ray.get(self._mailbox.take.remote())
        if progress is not None:
            self._on_progress(progress)


def _train(sent: dict[str, Any]) -> None:
    """What each worker runs."""
    job: _Job = sent["job"]
    torch.set_num_threads(sent["threads"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    config = job.config
    torch.manual_seed(config.rng_seed)
    device = ray.train.torch.get_device()

    network = job.objective.build().to(device).to(memory_format=torch.channels_last)
    if config.freeze_batch_norm:
        cast(Backbone, network.backbone).freeze_batch_norm()
    optimizer = _optimizer(network, config)
    steps = num_steps(sum(job.source.rows_of_shards), num_epochs=config.num_epochs, batch_size=config.batch_size)
    start, curve = 0, list[dict[str, float]]()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        state = _read_state(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        start, curve = state["step"], state["curve"]
    network.train()
    wrapped = ray.train.torch.prepare_model(network, move_to_device=False)

    steps_per_epoch = max(1, -(-steps // config.num_epochs))
    clock = _Clock(config.batch_size)
    loss_of_window = _Mean()
    batches = iter(_batches(job, start, steps, rank, world))
    for step in range(start, steps):
        _set_rate(optimizer, (1 - step / steps) ** config.poly_power)
        with clock.waiting():
            batch = next(batches)
        loss_of_window.add(_step(job, wrapped, network, optimizer, batch, device, world))
        done = step + 1
        if clock.is_due() or done == steps:
            progress = clock.progress(done, steps, loss_of_window.take(), optimizer.param_groups[-1]["lr"])
            if rank == 0:
                job.mailbox.put.remote(progress)
                curve.append({name: getattr(progress, name) for name in progress.__slots__})
        if done % steps_per_epoch == 0 or done == steps:
            _report(rank, network, optimizer, done, curve)


def _step(
    job: _Job,
    wrapped: nn.Module,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Any],
    device: torch.device,
    world: int,
) -> Tensor:
    images = torch.from_numpy(batch["image"]).to(device, non_blocking=True).permute(0, 3, 1, 2)
    target = torch.from_numpy(batch["target"]).to(device, non_blocking=True)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=job.config.precision == "bfloat16"):
        output = wrapped(images)
    sums, counts = job.objective.terms(output, target)
    counts = counts.to(sums.dtype)
    if world > 1:
        torch.distributed.all_reduce(counts)
    share = job.objective.combine(sums, counts)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(share * world)  # the workers' gradients are averaged; their shares of the loss add up
    nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], job.config.clip_norm)
    optimizer.step()
    loss = share.detach()
    if world > 1:
        torch.distributed.all_reduce(loss)
    return loss


def _batches(job: _Job, start: int, steps: int, rank: int, world: int) -> Any:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"step": step} for step in range(start, steps)]
    dataset = ray.data.from_items(rows, override_num_blocks=max(1, -(-len(rows) // STEPS_PER_BLOCK))).map_batches(
        LoadSamples,
        fn_constructor_kwargs={"source": job.source, "config": job.config, "rank": rank, "num_workers": world},
        batch_size=1,
        batch_format="numpy",
        num_cpus=0.5,
        compute=ActorPoolStrategy(min_size=1, max_size=job.resources.max_loader_actors),
    )
    mine = len(range(rank, job.config.batch_size, world))
    return dataset.iter_batches(batch_size=mine, batch_format="numpy", prefetch_batches=2)


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    groups = parameter_groups(network, learning_rate=config.learning_rate, head_learning_rate=config.head_learning_rate)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay)


def _set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _report(
    rank: int, network: nn.Module, optimizer: torch.optim.Optimizer, step: int, curve: list[dict[str, float]]
) -> None:
    if rank != 0:
        ray.train.report({"step": step})
        return
    with tempfile.TemporaryDirectory() as folder:
        state = {
            "network": {name: value.cpu() for name, value in network.state_dict().items()},
            "optimizer": optimizer.state_dict(),
            "step": step,
            "curve": curve,
        }
        torch.save(state, os.path.join(folder, CHECKPOINT_FILE))
        ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder))


def _read_state(checkpoint: Checkpoint) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(os.path.join(folder, CHECKPOINT_FILE), map_location="cpu", weights_only=True)
    return state


class _Mean:
    """Mean of the losses since it was last taken, without a device synchronisation a step."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []

    def add(self, value: Tensor) -> None:
        self._values.append(value)

    def take(self) -> float:
        mean = float(torch.stack(self._values).mean())
        self._values = []
        return mean


class _Clock:
    """Images a second, and the share of the time that was spent waiting for them, since the last report."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._reset()

    def _reset(self) -> None:
        self._start = time.monotonic()
        self._steps = 0
        self._waited = 0.0

    def waiting(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self._wait_start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._waited += time.monotonic() - self._wait_start
        self._steps += 1

    def is_due(self) -> bool:
        return time.monotonic() - self._start >= REPORT_EVERY_S

    def progress(self, step: int, num_steps: int, loss: float, learning_rate: float) -> TrainingProgress:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        progress = TrainingProgress(
            step=step,
            num_steps=num_steps,
            loss=loss,
            learning_rate=learning_rate,
            images_per_s=self._steps * self._batch_size / elapsed,
            waiting=min(1.0, self._waited / elapsed),
        )
        self._reset()
        return progress
