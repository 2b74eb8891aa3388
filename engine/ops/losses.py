"""The losses of the three networks, as sums and counts.

Sums and counts are kept apart so that several workers add their counts before they divide: two workers with half a
batch each then give the gradient of one with the whole, however the terms fall on them. A set without terms contributes
0. AffinityNet's three sets are put together by :func:`engine.ops.affinity.balanced_loss`, the others' by
:func:`mean_loss`.

Source: sections 3.1, 3.2 (eq. 7) and 3.4 of the paper.
Letters: B batch, C classes, (H, W) pixels, (h, w) grid cells, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.ops.affinity import affinity_loss_sums, affinity_planes, label_planes

Terms = tuple[Tensor, Tensor]
"""Sums (S,) float32 with gradient, and counts (S,), of a loss's S sets of terms."""


def tag_terms(logits: Tensor, image_labels: Tensor) -> Terms:
    """Multi-label soft margin loss: one set, a term an image.

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
        seed: (B, h, w) integer class ids, 0 for sure background, ``ignore`` where not sure.
        radius: pairs closer than this are learned, cells.
    """
    planes = affinity_planes(features.float(), radius)
    return affinity_loss_sums(planes, label_planes(seed, radius, ignore))


def segmentation_terms(logits: Tensor, mask: Tensor, weight: Tensor, *, ignore: int) -> Terms:
    """Cross entropy: one set, a term a pixel that counts, as much as its image does.

    Args:
        logits: (B, C+1, H, W) float, background first.
        mask: (B, H, W) integer class ids.
        weight: (B,) float32, 0 or more; 1 is an image's usual weight.
    """
    losses = functional.cross_entropy(logits.float(), mask.long(), ignore_index=ignore, reduction="none")
    counts = (mask != ignore).sum(dim=(1, 2))
    return (losses.sum(dim=(1, 2)) * weight).sum()[None], (counts * weight).sum()[None]


def mean_loss(sums: Tensor, counts: Tensor) -> Tensor:
    """The loss of a single set: () float from sums (1,) and the counts (1,) of all workers."""
    return (sums / counts.clamp(min=1)).sum()
