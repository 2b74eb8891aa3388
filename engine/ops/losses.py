"""Losses of the three networks, as sums and counts.

Sums and counts are separate so that workers can add their counts before dividing: two workers with half a batch each
then have the gradient of one worker with the whole batch. An empty set contributes 0.
:func:`engine.ops.affinity.balanced_loss` combines the three sets of AffinityNet; :func:`mean_loss` is for the others.

Source: sections 3.1, 3.2 (eq. 7) and 3.4 of the paper.
Letters: B batch, C classes, (H, W) pixels, (h, w) grid cells, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.ops.affinity import affinity_loss_sums, affinity_planes, label_planes

Terms = tuple[Tensor, Tensor]
"""Sums (S,) float32 with gradient and counts (S,), for the S sets of terms of a loss."""


def tag_terms(logits: Tensor, image_labels: Tensor) -> Terms:
    """Multi-label soft margin loss: one set, with one term per image.

    Args:
        logits: (B, C) float.
        image_labels: (B, C) float, 0 or 1.
    """
    losses = functional.multilabel_soft_margin_loss(logits.float(), image_labels, reduction="none")
    return losses.sum()[None], torch.tensor([float(len(losses))], device=losses.device)


def affinity_terms(features: Tensor, seed: Tensor, *, radius: int, ignore: int) -> Terms:
    """The balanced loss of AffinityNet: foreground positive, background positive and negative pairs.

    Args:
        features: (B, D, h, w) float.
        seed: (B, h, w) integer class ids, 0 for confident background, ``ignore`` where uncertain.
        radius: pairs closer than this are learned, cells.
    """
    planes = affinity_planes(features.float(), radius)
    return affinity_loss_sums(planes, label_planes(seed, radius, ignore))


def segmentation_terms(logits: Tensor, mask: Tensor, weight: Tensor, *, ignore: int) -> Terms:
    """Cross entropy: one set, with one term per pixel that is not ignored, weighted by image.

    Args:
        logits: (B, C+1, H, W) float, background first.
        mask: (B, H, W) integer class ids.
        weight: (B,) float32, 0 or more; weight of each image.
    """
    losses = functional.cross_entropy(logits.float(), mask.long(), ignore_index=ignore, reduction="none")
    counts = (mask != ignore).sum(dim=(1, 2))
    return (losses.sum(dim=(1, 2)) * weight).sum()[None], (counts * weight).sum()[None]


def mean_loss(sums: Tensor, counts: Tensor) -> Tensor:
    """The loss of a single set: () float from sums (1,) and the counts (1,) of all workers."""
    return (sums / counts.clamp(min=1)).sum()
