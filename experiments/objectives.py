"""Training objectives of the experiments, in place of :meth:`engine.fitting.objectives.Objective.of`.

The authors leave out the pairs whose first cell lies in the grid's margin, in the loss and in the walk.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor
from torch.nn import functional

from engine.config import AffinityConfig, NetworkConfig
from engine.fitting.objectives import Objective
from engine.imaging.codecs import decode_map, encode_map
from engine.ops.affinity import PairSets, affinity_loss_sums, affinity_planes, label_planes
from engine.ops.losses import Terms, segmentation_terms
from engine.records import Batch, ignore_value
from engine.step import Step

BAND_PX = 4
"""Half the width of the ignored band along the borders of the masks, pixels of the crop."""


def without_margin(config: NetworkConfig, class_names: tuple[str, ...]) -> Objective:
    """Train AffinityNet without the pairs at the grid's margin; other networks as by default."""
    objective = Objective.of(config, class_names)
    if not isinstance(config, AffinityConfig):
        return objective
    ignore = ignore_value(len(class_names))
    return replace(objective, terms=partial(margin_free_terms, radius=config.radius, ignore=ignore))


def without_borders(config: NetworkConfig, class_names: tuple[str, ...]) -> Objective:
    """Train the segmentation network while ignoring the borders of the masks."""
    ignore = ignore_value(len(class_names))
    return replace(Objective.of(config, class_names), terms=partial(border_free_terms, ignore=ignore))


def margin_free(h: int, w: int, radius: int) -> tuple[slice, slice]:
    """Return the first cells of the pairs that the authors' code keeps (psa, ``get_indices_of_pairs``)."""
    margin = radius - 1
    return slice(0, max(h - margin, 0)), slice(margin, max(w - margin, margin))


def margin_free_terms(features: Tensor, seed: Tensor, _weight: Tensor, *, radius: int, ignore: int) -> Terms:
    """As :func:`engine.ops.losses.affinity_terms`, over the pairs of :func:`margin_free`."""
    rows, columns = margin_free(seed.shape[1], seed.shape[2], radius)
    kept = [chosen[:, :, rows, columns] for chosen in label_planes(seed, radius, ignore)]
    planes = affinity_planes(features.float(), radius)[:, :, rows, columns]
    return affinity_loss_sums(planes, PairSets(*kept))


class DropMargin:
    """Reads ``distances`` (O, h, w), the ``-log`` of affinities; pairs at the grid's margin get no affinity."""

    def __init__(self, radius: int) -> None:
        self._radius = radius

    def __call__(self, batch: Batch) -> Batch:
        return {**batch, "distances": [encoded and self._dropped(encoded) for encoded in batch["distances"]]}

    def _dropped(self, encoded: bytes) -> bytes:
        planes = decode_map(encoded)
        kept = np.full_like(planes, np.inf)
        place = (slice(None), *margin_free(planes.shape[1], planes.shape[2], self._radius))
        kept[place] = planes[place]
        return encode_map(kept)


def drop_margin(radius: int) -> Step:
    """Create the stage for a search."""
    return Step(name="walk", build=partial(DropMargin, radius), on="network")


def border_free(mask: Tensor, width: int, ignore: int) -> Tensor:
    """Set every pixel less than ``width`` pixels from another class to ``ignore``.

    Args:
        mask: (B, H, W) integer class ids.
        width: Width in pixels.
        ignore: Value of ignored pixels.
    """
    values = mask.float()[:, None]
    size = 2 * width - 1
    highest = functional.max_pool2d(values, size, stride=1, padding=width - 1)
    lowest = -functional.max_pool2d(-values, size, stride=1, padding=width - 1)
    return mask.masked_fill((highest != lowest)[:, 0], ignore)


def border_free_terms(logits: Tensor, mask: Tensor, weight: Tensor, *, ignore: int) -> Terms:
    """As :func:`engine.ops.losses.segmentation_terms`, of :func:`border_free`."""
    return segmentation_terms(logits, border_free(mask, BAND_PX, ignore), weight, ignore=ignore)
