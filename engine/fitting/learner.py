"""Train a network: steps, validation and checkpoint state. No Ray, no files.

Several workers (torch.distributed) act as one: counts are summed over all of them before a loss is divided.
Letters: B batch, C classes, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import TrainingConfig
from engine.errors import ConfigError
from engine.fitting.averaging import averaged
from engine.fitting.objectives import Objective, parameter_groups
from engine.models.backbone import Backbone
from engine.models.folding import fold_frozen_batch_norms

Samples = dict[str, Any]
"""Columns of :class:`engine.fitting.samples.LoadSamples`."""


class Learner:
    """A network with its optimizer and the average of its weights, on one worker."""

    def __init__(
        self, objective: Objective, config: TrainingConfig, device: torch.device, *, rank: int = 0, num_workers: int = 1
    ) -> None:
        """Build the network with the same initial weights on every worker.

        Raises:
            ConfigError: the backbone does not support the settings.
            WeightsError: the initial weights cannot be loaded.
        """
        self._objective, self._config, self._device = objective, config, device
        self._rank, self._num_workers = rank, num_workers
        torch.manual_seed(config.rng_seed)
        self._network = objective.build().to(device).to(memory_format=torch.channels_last)
        freeze_levels(self._network, config)
        if config.freeze_batch_norm:
            backbone = cast(Backbone, self._network.backbone)
            backbone.freeze_batch_norm()
            if not config.compile:  # torch.compile does the same
                fold_frozen_batch_norms(backbone)
        self._optimizer = _optimizer(self._network, config)
        self._average = averaged(self._network, config.ema_decay) if config.ema_decay else None
        if config.compile:
            self._network.compile()  # in place, which keeps the names of the weights
        self._network.train()
        self._wrapped = self._network

    def wrap(self, wrapper: Callable[[nn.Module], nn.Module]) -> None:
        """Wrap the network to average gradients over the workers; call it after :meth:`load_state`."""
        self._wrapped = wrapper(self._network)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the new layers in the last step."""
        return float(self._optimizer.param_groups[-1]["lr"])

    def step(self, step: int, num_steps: int, batch: Samples) -> Tensor:
        """Learn from this worker's part of a batch.

        Args:
            step: from 0.
            batch: ``image`` (B, H, W, 3) uint8, ``target``, ``weight`` (B,) float32.

        Returns:
            () float, the loss of the whole batch, on the device.
        """
        config = self._config
        # dropout in a resumed run is the same as in an uninterrupted one
        torch.manual_seed(int(np.random.SeedSequence([config.rng_seed, step, self._rank]).generate_state(1)[0]))
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - step / num_steps) ** config.poly_power
        (sums, counts), _, _ = self._run(self._wrapped, batch)
        counts = self._summed(counts.to(sums.dtype))
        share = self._objective.combine(sums, counts)
        self._optimizer.zero_grad(set_to_none=True)
        # gradients are averaged over the workers, but their shares of the loss sum to the loss
        torch.autograd.backward(share * self._num_workers)
        nn.utils.clip_grad_norm_([p for p in self._network.parameters() if p.requires_grad], config.clip_norm)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._network)
        return self._summed(share.detach())

    @torch.no_grad()
    def validate(self, batches: Iterable[Samples]) -> dict[str, float]:
        """Score the current result of the training on held-out samples; samples of weight 0 are ignored.

        Returns:
            The objective's scores, and ``loss``.
        """
        network = self._kept()
        network.eval()
        totals: list[Tensor] = []
        for batch in batches:
            kept = batch["weight"] > 0
            if kept.any():
                batch = {name: values[kept] for name, values in batch.items()}
            terms, output, target = self._run(network, batch)
            parts = [*terms, self._objective.table(output, target)]
            if not kept.any():  # only other workers have samples left: keep the shapes for the sum
                parts = [torch.zeros_like(part) for part in parts]
            totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
        network.train()
        sums, counts, table = totals
        loss = self._objective.combine(sums, self._summed(counts.to(sums.dtype)))
        return {**self._objective.scores(self._summed(table)), "loss": float(self._summed(loss))}

    def weights(self) -> dict[str, Tensor]:
        """Copy the weights to the CPU: the average, if there is one."""
        return _on_cpu(self._kept().state_dict())

    def state(self) -> dict[str, Any]:
        """The state that :meth:`load_state` resumes from."""
        state: dict[str, Any] = {
            "network": _on_cpu(self._network.state_dict()),
            "optimizer": self._optimizer.state_dict(),
        }
        if self._average is not None:
            state["average"] = _on_cpu(self._average.state_dict())
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from the result of :meth:`state`."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])

    def _kept(self) -> nn.Module:
        return self._network if self._average is None else self._average.module

    def _run(self, network: nn.Module, batch: Samples) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """Run the network: terms of the loss, output and target."""
        images, target, weight = (
            torch.from_numpy(batch[name]).to(self._device, non_blocking=True) for name in ("image", "target", "weight")
        )
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._config.precision == "bfloat16"):
            output = network(images.permute(0, 3, 1, 2))
        return self._objective.terms(output, target, weight), output, target

    def _summed(self, value: Tensor) -> Tensor:
        """Sum over all workers, in place."""
        if self._num_workers > 1:
            torch.distributed.all_reduce(value)
        return value


def freeze_levels(network: nn.Module, config: TrainingConfig) -> None:
    """Freeze the first levels of the network's backbone.

    Raises:
        ConfigError: ``frozen_levels`` is more than the backbone has.
    """
    if config.frozen_levels > 0:
        try:
            cast(Backbone, network.backbone).freeze_levels(config.frozen_levels)
        except ValueError as error:
            raise ConfigError(str(error), thing="training.frozen_levels") from error


def kept_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in the result of :meth:`Learner.state`: the average, if there is one."""
    weights: dict[str, Tensor] = state["network"]
    if "average" not in state:
        return weights
    return {name: state["average"][f"module.{name}"] for name in weights}


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    groups = parameter_groups(network, learning_rate=config.learning_rate, head_learning_rate=config.head_learning_rate)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay, fused=True)


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


class MeanLoss:
    """Mean loss since the last report, without synchronizing with the device in each step."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []

    def add(self, value: Tensor) -> None:
        """Add the loss of one step."""
        self._values.append(value)

    def take(self) -> float:
        """Return the mean and start over."""
        mean = float(torch.stack(self._values).mean())
        self._values = []
        return mean
