"""Training objectives of the three networks: architecture, initial weights and loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from engine.config import AffinityConfig, NetworkConfig, SegmentationConfig
from engine.networks import Architecture, build_pretrained
from engine.ops.affinity import balanced_loss
from engine.ops.losses import Terms, affinity_terms, mean_loss, segmentation_terms, tag_terms
from engine.ops.scores import mask_scores, mask_table, pair_scores, pair_table, tag_scores, tag_table
from engine.records import ignore_value
from engine.storage.weights import absolute_source


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """A network, its loss and its scores."""

    architecture: Architecture
    weights: str
    """Source of the backbone's initial weights."""
    terms: Callable[[Tensor, Tensor, Tensor], Terms]
    """Sums and counts of the loss, from the network's output, the target and the weights of the images."""
    combine: Callable[[Tensor, Tensor], Tensor]
    """The loss, from sums and the counts of all workers."""
    table: Callable[[Tensor, Tensor], Tensor]
    """Counts to score from, from output and target; they are summed over batches and workers."""
    scores: Callable[[Tensor], dict[str, float]]
    """Scores by name, from the summed counts; the first one selects the best weights."""

    @classmethod
    def of(cls, config: NetworkConfig, class_names: tuple[str, ...]) -> Objective:
        """The objective of a network's settings."""
        ignore = ignore_value(len(class_names))
        objective = partial(
            cls, architecture=Architecture.of(config, class_names), weights=absolute_source(config.weights)
        )
        match config:
            case AffinityConfig(radius=radius):
                return objective(
                    terms=partial(_unweighted, terms=partial(affinity_terms, radius=radius, ignore=ignore)),
                    combine=balanced_loss,
                    table=partial(pair_table, radius=radius, ignore=ignore),
                    scores=pair_scores,
                )
            case SegmentationConfig():
                return objective(
                    terms=partial(segmentation_terms, ignore=ignore),
                    combine=mean_loss,
                    table=partial(mask_table, ignore=ignore),
                    scores=mask_scores,
                )
            case _:
                return objective(
                    terms=partial(_unweighted, terms=tag_terms), combine=mean_loss, table=tag_table, scores=tag_scores
                )

    def build(self) -> nn.Module:
        """Build the network with its initial weights.

        Raises:
            ConfigError: the backbone does not support the settings.
            WeightsError: the initial weights cannot be loaded.
        """
        return build_pretrained(self.architecture, self.weights)


def _unweighted(output: Tensor, target: Tensor, _weight: Tensor, *, terms: Callable[[Tensor, Tensor], Terms]) -> Terms:
    return terms(output, target)


def parameter_groups(network: nn.Module, *, learning_rate: float, head_learning_rate: float) -> list[dict[str, Any]]:
    """Split the trainable parameters: the pretrained backbone, and the new layers with their own learning rate."""
    backbone = {id(parameter) for parameter in cast(nn.Module, network.backbone).parameters()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in backbone], "lr": learning_rate, "initial_lr": learning_rate},
        {
            "params": [p for p in trained if id(p) not in backbone],
            "lr": head_learning_rate,
            "initial_lr": head_learning_rate,
        },
    ]
