"""Count the pixels of the masks of many alphas and numbers of steps at once, without making the masks.

Three properties make this cheap. The Chebyshev vectors of a map give every number of steps
(:mod:`engine.ops.random_walk`). The walk is linear and treats each map separately, so another alpha only adds one
background map to the same products. And a larger alpha decreases every value of the background map, before and after
the walk, so the alphas at which a pixel is background are the first few, and one histogram over their number serves all
alphas.

The order of operations, and the rounding to float16 in between, are those of labeling without dCRF.

Letters: A alphas, S numbers of steps, C classes, K classes present, (H, W) pixels, (h, w) grid cells, O offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.ops.affinity import affinity_planes, flat_shifts, half_plane_offsets
from engine.ops.bands import chebyshev_walk
from engine.ops.cam import background_map
from engine.ops.random_walk import SMALLEST_WEIGHT, chebyshev_coefficients, chebyshev_degree
from engine.ops.sweep_kernels import IGNORED, OTHER, count_pixels

INTERSECTION, PREDICTED = 0, 1
"""Rows of the counts: pixels where mask and truth agree on the class, pixels that the mask assigns to the class."""


class WalkGrid(NamedTuple):
    """Walks that share a beta: every pair of these alphas and numbers of steps."""

    beta: float
    alphas: tuple[float, ...]
    """Ascending."""
    steps: tuple[int, ...]
    """Ascending; 0 skips the walk."""
    radius: int
    tolerance: float
    """Maximum error of the walk; 0 computes the whole expansion."""


def pair_distances(features: Tensor, radius: int) -> Tensor:
    """Compute affinities as distances ``d = -log W``, so that ``W^beta = exp(-beta d)``.

    A distance keeps its relative accuracy in float16; an affinity near 1 would lose all of it.

    Args:
        features: (D, h, w) float32.
        radius: cells.

    Returns:
        (O, h, w) float32 >= 0; infinite where a pair leaves the grid.
    """
    return -affinity_planes(features[None].float(), radius)[0].log()


def refined_maps(cam: Tensor, distances: Tensor, grid: WalkGrid) -> Iterator[Tensor]:
    """Yield the background map of every alpha, then the classes, after each number of steps.

    Args:
        cam: (K, h', w') float32 in [0, 1], K at least 1.
        distances: (O, h, w) float32 of :func:`pair_distances`.

    Yields:
        (A+K, h, w) float32, rounded to float16; on the grid of ``cam`` for 0 steps.
    """
    maps = torch.cat([torch.stack([background_map(cam, alpha) for alpha in grid.alphas]), cam])
    if grid.steps[0] == 0:
        yield maps.half().float()
    if grid.steps[-1] == 0:
        return
    on_grid = functional.interpolate(maps[None], size=distances.shape[-2:], mode="bilinear", align_corners=False)[0]
    yield from (walked.half().float() for walked in _walked(on_grid, distances, grid))


def _walked(maps: Tensor, distances: Tensor, grid: WalkGrid) -> Iterator[Tensor]:
    """``T^t M`` (M, h, w) in the range of each map, for each number of steps t above 0."""
    steps, tolerance = [num_steps for num_steps in grid.steps if num_steps > 0], grid.tolerance
    num_offsets, h, w = distances.shape
    weights = distances.mul(-grid.beta).exp()
    weights = weights.where(weights >= SMALLEST_WEIGHT, 0).flatten(1)
    degree = longest = max(steps)
    if tolerance > 0:  # maps lie in [0, 1]: half their range is at most 1/2
        degree = chebyshev_degree(longest, 2 * tolerance, num_entries=(2 * num_offsets + 1) * h * w)
    coefficients = np.zeros((len(steps), degree + 1))
    for row, num_steps in zip(coefficients, steps, strict=True):
        used = chebyshev_coefficients(num_steps)[: degree + 1]
        row[: len(used)] = used
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    center = (low + high) / 2  # centered, because the truncated expansion would not keep a constant map
    shifts = flat_shifts(half_plane_offsets(grid.radius), h, w)
    for summed in chebyshev_walk((maps - center).flatten(1), weights, shifts, coefficients):
        yield (summed.view_as(maps) + center).clamp(low, high)


@torch.no_grad()
def grid_counts(
    cam: Tensor,
    distances: Tensor,
    truth: NDArray[np.integer[Any]],
    class_ids: Sequence[int],
    grid: WalkGrid,
    *,
    num_classes: int,
    ignore: int,
) -> NDArray[np.int64]:
    """Pixel counts of the masks of every configuration of a grid against the truth.

    Args:
        cam: (K, h', w') float32 in [0, 1].
        distances: (O, h, w) float32 of :func:`pair_distances`; ignored if K is 0 or there is no walk.
        truth: (H, W) ids or ``ignore``.
        class_ids: (K,) ids of the channels of ``cam``.
        num_classes: C.

    Returns:
        (S, A, 2, C+1) int64 pixels: rows :data:`INTERSECTION` and :data:`PREDICTED`, by class.
    """
    shape = (len(grid.steps), len(grid.alphas), 2, num_classes + 1)
    if len(class_ids) == 0:
        return np.broadcast_to(background_counts(truth, num_classes=num_classes, ignore=ignore), shape).copy()
    counts = np.zeros(shape, dtype=np.int64)
    channel_of = np.full(int(max(truth.max(initial=0), ignore)) + 1, OTHER, dtype=np.int16)
    channel_of[0], channel_of[ignore] = 0, IGNORED
    channel_of[np.array(class_ids)] = np.arange(1, len(class_ids) + 1)
    true_channels = channel_of[truth]
    for index, maps in enumerate(refined_maps(cam, distances, grid)):
        # Ties go to the background, as in pseudo_mask. Alphas ascend, so those at which it wins are the first few.
        table = count_pixels(maps.contiguous().numpy(), len(grid.alphas), true_channels)
        foreground = table.cumsum(axis=0)[:-1]  # pixels that are foreground at alpha a: num_background <= a
        background = table.sum(axis=0) - foreground
        counts[index, :, INTERSECTION, 0] = background[:, :, 1].sum(axis=1)
        counts[index, :, PREDICTED, 0] = background.sum(axis=(1, 2))
        counts[index][:, INTERSECTION, class_ids] = foreground[:, :, 2]
        counts[index][:, PREDICTED, class_ids] = foreground.sum(axis=2)
    return counts


def mask_counts(
    truth: NDArray[np.integer[Any]], mask: NDArray[np.integer[Any]], *, num_classes: int, ignore: int
) -> NDArray[np.int64]:
    """Pixel counts of one given mask, as in :func:`grid_counts`: (2, C+1) int64."""
    valid = truth != ignore
    true_ids, ids = truth[valid], mask[valid]
    size = num_classes + 1
    return np.stack([np.bincount(ids[ids == true_ids], minlength=size), np.bincount(ids, minlength=size)])


def background_counts(truth: NDArray[np.integer[Any]], *, num_classes: int, ignore: int) -> NDArray[np.int64]:
    """Pixel counts of a mask that is all background, as in :func:`mask_counts`."""
    return mask_counts(truth, np.zeros_like(truth), num_classes=num_classes, ignore=ignore)
