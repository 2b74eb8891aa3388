"""What one image says about a whole slice of configurations, without labeling it again.

Three facts make it cheap. One Chebyshev basis of the walk gives every number of steps (engine.ops.random_walk). The
walk is linear and works on each map alone, so another alpha adds one background map to the same products. And a larger
alpha makes every value of the background map smaller, before the walk as after it; so the alphas at which a pixel is
background are the first few of them, and one histogram of how many serves them all.

The order of work, and the rounding to float16 on the way, are those of jobs.label without dCRF.

Letters: A alphas, S numbers of steps, C classes, K classes present, (H, W) pixels, (h, w) grid cells, O offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.ops.affinity import affinity_planes
from engine.ops.cam import background_map
from engine.ops.mask import upsample
from engine.ops.random_walk import chebyshev_basis, chebyshev_degree, transition_matrix, walk_from_basis
from tune.space import Slice

INTERSECTION, PREDICTED = 0, 1
"""Rows of the counts: pixels where mask and truth agree on the class, pixels that the mask gives to the class."""


def pair_distances(features: Tensor, radius: int) -> Tensor:
    """``-log W``: what is kept of the affinities; ``W^(beta) = exp(-beta d)``.

    In float16 a distance keeps its relative accuracy, where an affinity near 1 would lose all of it.

    Args:
        features: (D, h, w) float32.
        radius: cells.

    Returns:
        (O, h, w) float32 >= 0; infinite where a pair leaves the grid.
    """
    return -affinity_planes(features[None].float(), radius)[0].log()


def refined_maps(
    cam: Tensor, distances: Tensor, part: Slice, *, radius: int, tolerance: float
) -> Iterator[tuple[int, Tensor]]:
    """The background map of every alpha and the classes after every number of steps.

    Args:
        cam: (K, h', w') float32 in [0, 1], K at least 1.
        distances: (O, h, w) float32 of :func:`pair_distances`.
        part: beta, alphas and steps.
        tolerance: of the walk; 0 takes the whole expansion.

    Yields:
        number of steps and (A+K, h, w) float32, rounded to float16; on the grid of ``cam`` for 0 steps.
    """
    maps = torch.cat([torch.stack([background_map(cam, alpha) for alpha in part.alphas]), cam])
    longest = part.steps[-1]
    if part.steps[0] == 0:
        yield 0, maps.half().float()
    if longest == 0:
        return
    on_grid = functional.interpolate(maps[None], size=distances.shape[-2:], mode="bilinear", align_corners=False)[0]
    transition = transition_matrix(distances.mul(-part.beta).exp(), radius=radius, beta=1.0)
    degree = longest
    if tolerance > 0:  # maps lie in [0, 1]: half their range is at most 1/2
        degree = chebyshev_degree(longest, 2 * tolerance, num_entries=transition.values().numel())
    basis = chebyshev_basis(on_grid, transition, degree=degree)
    for num_steps in part.steps:
        if num_steps > 0:
            yield num_steps, walk_from_basis(basis, num_steps).half().float()


@torch.no_grad()
def slice_counts(
    cam: Tensor,
    distances: Tensor,
    truth: NDArray[np.integer[Any]],
    class_ids: Sequence[int],
    part: Slice,
    *,
    num_classes: int,
    ignore: int,
    radius: int,
    tolerance: float,
) -> NDArray[np.int64]:
    """What the masks of a slice's configurations have in common with the truth.

    Args:
        cam: (K, h', w') float32 in [0, 1].
        distances: (O, h, w) float32 of :func:`pair_distances`; not looked at when K is 0.
        truth: (H, W) ids or ``ignore``.
        class_ids: (K,) ids of the channels of ``cam``.
        num_classes: C.

    Returns:
        (S, A, 2, C+1) int64: pixels by :data:`INTERSECTION` and :data:`PREDICTED` and class.
    """
    shape = (len(part.steps), len(part.alphas), 2, num_classes + 1)
    if len(class_ids) == 0:
        return np.broadcast_to(background_counts(truth, num_classes=num_classes, ignore=ignore), shape).copy()
    counts = np.zeros(shape, dtype=np.int64)
    num_alphas, num_present = len(part.alphas), len(class_ids)
    true_ids = torch.from_numpy(truth.astype(np.int64))
    valid = true_ids != ignore
    ids = torch.tensor(class_ids, dtype=torch.int64)
    for index, (_, maps) in enumerate(refined_maps(cam, distances, part, radius=radius, tolerance=tolerance)):
        scores = upsample(maps, (truth.shape[0], truth.shape[1]))
        strongest, channel = scores[num_alphas:].max(dim=0)
        # A tie goes to the background, as in pseudo_mask. Alphas rise, so this is also the first alpha that loses.
        num_background = (scores[:num_alphas] >= strongest).sum(dim=0)
        agrees = torch.where(true_ids == 0, 1, torch.where(true_ids == ids[channel], 2, 0))
        codes = ((num_background * num_present + channel) * 3 + agrees)[valid]
        histogram = torch.bincount(codes, minlength=(num_alphas + 1) * num_present * 3)
        table = histogram.view(num_alphas + 1, num_present, 3).numpy()
        foreground = table.cumsum(axis=0)[:num_alphas]  # pixels that are foreground at alpha a: num_background <= a
        background = table.sum(axis=0) - foreground
        counts[index, :, INTERSECTION, 0] = background[:, :, 1].sum(axis=1)
        counts[index, :, PREDICTED, 0] = background.sum(axis=(1, 2))
        counts[index][:, INTERSECTION, class_ids] = foreground[:, :, 2]
        counts[index][:, PREDICTED, class_ids] = foreground.sum(axis=2)
    return counts


def mask_counts(
    truth: NDArray[np.integer[Any]], mask: NDArray[np.integer[Any]], *, num_classes: int, ignore: int
) -> NDArray[np.int64]:
    """The same of one mask that is there already: (2, C+1) int64."""
    valid = truth != ignore
    true_ids, ids = truth[valid], mask[valid]
    size = num_classes + 1
    return np.stack([np.bincount(ids[ids == true_ids], minlength=size), np.bincount(ids, minlength=size)])


def background_counts(truth: NDArray[np.integer[Any]], *, num_classes: int, ignore: int) -> NDArray[np.int64]:
    """The same of a mask that is background everywhere: an image without tags, or with an error."""
    return mask_counts(truth, np.zeros_like(truth), num_classes=num_classes, ignore=ignore)
