"""Validation scores of the networks, from tables of counts that can be added over workers.

Source: average precision as in information retrieval, the mean of the precision at each image with the tag (PASCAL VOC
interpolates precision, so its value is the same or higher); pairs as in section 3.2 of the paper.
Letters: B batch, C classes, (H, W) pixels, (h, w) grid cells, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.ops.affinity import affinity_planes, label_planes
from engine.ops.metrics import mean_iou

NUM_BINS = 4096
BINS_PER_UNIT = 64
"""Logits are rounded down to multiples of 1/64 and clipped to [-32, 32), which is precise enough for ranking."""


def tag_table(logits: Tensor, image_labels: Tensor) -> Tensor:
    """Compute histograms of the logits of images with and without each tag.

    Args:
        logits: (B, C) float.
        image_labels: (B, C) float, 0 or 1.

    Returns:
        (C, 2, 4096) int64: class, without or with the tag, bin in ascending order.
    """
    num_classes = logits.shape[1]
    bins = (logits.float() * BINS_PER_UNIT + NUM_BINS / 2).floor().clamp(0, NUM_BINS - 1).long()
    cells = (torch.arange(num_classes, device=logits.device) * 2 + image_labels.long()) * NUM_BINS + bins
    return torch.bincount(cells.flatten(), minlength=2 * num_classes * NUM_BINS).view(num_classes, 2, NUM_BINS)


def tag_scores(table: Tensor) -> dict[str, float]:
    """Compute ``mean_ap``, the mean average precision over the classes that occur; empty if there are none.

    Args:
        table: (C, 2, 4096) int64 of :func:`tag_table`, summed over batches and workers.
    """
    without, with_tag = table.double().flip(-1).unbind(dim=1)
    true, found = with_tag.cumsum(-1), (with_tag + without).cumsum(-1)
    num_true = with_tag.sum(-1)
    precision = (with_tag * true / found.clamp(min=1)).sum(-1)[num_true > 0] / num_true[num_true > 0]
    return {"mean_ap": float(precision.mean())} if len(precision) else {}


def pair_table(features: Tensor, seed: Tensor, *, radius: int, ignore: int) -> Tensor:
    """Count the pairs of confident cells that a threshold of 1/2 on the affinity classifies correctly.

    Args:
        features: (B, D, h, w) float.
        seed: (B, h, w) integer class ids, 0 for confident background, ``ignore`` where uncertain.
        radius: pairs closer than this are counted, cells.

    Returns:
        (3, 2) int64: foreground, background, negative pairs; total and correct.
    """
    alike = affinity_planes(features.float(), radius) > 0.5
    foreground, background, negative = label_planes(seed, radius, ignore)
    right = (foreground & alike, background & alike, negative & ~alike)
    counts = [
        torch.stack([every.sum(), good.sum()])
        for every, good in zip((foreground, background, negative), right, strict=True)
    ]
    return torch.stack(counts)


def pair_scores(table: Tensor) -> dict[str, float]:
    """Compute the accuracy of positive and negative pairs, and its mean ``pair_accuracy``; empty if a kind is missing.

    Args:
        table: (3, 2) of :func:`pair_table`, summed over batches and workers.
    """
    foreground, background, negative = table.double()
    positive = foreground + background
    if not (positive[0] and negative[0]):
        return {}
    accuracies = [float(kind[1] / kind[0]) for kind in (positive, negative)]
    return {
        "pair_accuracy": sum(accuracies) / 2,
        "positive_pair_accuracy": accuracies[0],
        "negative_pair_accuracy": accuracies[1],
    }


def mask_table(logits: Tensor, mask: Tensor, *, ignore: int) -> Tensor:
    """Compute the confusion matrix of a batch.

    Args:
        logits: (B, C+1, H, W) float, background first.
        mask: (B, H, W) integer class ids; ``ignore`` is skipped.

    Returns:
        (C+1, C+1) int64, rows mask, columns network.
    """
    size, counts = logits.shape[1], mask != ignore
    cells = mask[counts].long() * size + logits.argmax(dim=1)[counts]
    return torch.bincount(cells, minlength=size * size).view(size, size)


def mask_scores(table: Tensor) -> dict[str, float]:
    """Compute ``miou`` against the masks; empty if every pixel is ignored.

    Args:
        table: (C+1, C+1) of :func:`mask_table`, summed over batches and workers.
    """
    return {"miou": mean_iou(table.cpu().numpy())[1]} if bool(table.any()) else {}
