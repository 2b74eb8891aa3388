"""Affinities between nearby cells, their labels and their loss (paper, sections 3.2 and 3.3, equations 4 to 7).

The paper defines ``W_ij = exp(-||f_i - f_j||_1)``; the authors' code (jiwoon-ahn/psa) takes the mean over the D
features instead of the sum, and beta of the random walk depends on it. This module follows the code. The authors drop
every pair whose first cell lies in the margin of the grid; here every pair inside the grid counts, for any grid size.

Pairs are stored as *planes*, by offset and first cell: each offset is a shifted copy of the grid, so there are no index
arrays.

Letters: B batch, D features, (h, w) grid cells, N = h * w, O offsets of the half plane (34 at radius 5).
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

LOSS_EPSILON = 1e-5
"""Added inside the logarithms of the loss, as in the authors' code, so that loss and gradient are finite at 0 and 1."""

_CACHE_ELEMENTS = 1 << 21
"""Elements that :func:`affinity_planes` compares at once on a CPU."""


class PairSets(NamedTuple):
    """The three sets of labeled pairs, each (B, O, h, w) bool planes."""

    foreground: Tensor
    """Both cells confidently of the same class."""
    background: Tensor
    """Both cells confidently background."""
    negative: Tensor
    """Both cells confident, of different classes."""


def half_plane_offsets(radius: int) -> list[tuple[int, int]]:
    """List the offsets (dy, dx) from the first cell of a pair to the second, which comes later in row-major order.

    Args:
        radius: cells; pairs are strictly closer than this (gamma in the paper).

    Returns:
        O offsets, sorted by dy, then dx; none is the reverse of another.

    Raises:
        ValueError: ``radius`` is below 1.
    """
    if radius < 1:
        raise ValueError(f"radius must be 1 or more cells, got {radius!r}")
    return [
        (dy, dx)
        for dy in range(radius)
        for dx in range(1 - radius, radius)
        if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius
    ]


def affinity_planes(features: Tensor, radius: int) -> Tensor:
    """Compute the affinity of each cell to its neighbor at each offset: ``exp(-mean_D |f_i - f_j|)``.

    The backward pass recomputes the differences, so memory grows with B * D * N instead of O times that.

    Args:
        features: (B, D, h, w) float; half precision is converted to float32.
        radius: cells; pairs strictly closer than this are compared.

    Returns:
        (B, O, h, w) float32 (float64 for float64) in [0, 1]: plane o at cell i is the affinity of i and i + offset o,
        or 0 if that cell is outside the grid.
    """
    if features.dtype != torch.float64:
        features = features.float()
    return cast(Tensor, _AffinityPlanes.apply(features, radius))


class _AffinityPlanes(torch.autograd.Function):
    # Backward, the neighbor at an offset is a constant shift away in the flattened grid, so the pairs of an offset are
    # two plain slices. They also contain pairs that wrap around the edge; these have affinity 0 and so no gradient.

    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:
        b, d, h, w = features.shape
        offsets = half_plane_offsets(radius)
        cells = features.flatten(2).contiguous()
        loops = compiled_loops(cells)
        if loops is None:
            planes = _summed_differences(cells.view(features.shape), offsets).div_(-d).exp_()
        else:
            shifts = flat_shifts(offsets, h, w)
            distances = torch.stack([loops.summed_differences(one, shifts) for one in cells])
            planes = distances.div_(-d).exp_().view(b, len(offsets), h, w)
            for o, (dy, dx) in enumerate(offsets):
                planes[:, o, max(0, h - dy) :] = 0
                planes[:, o, :, max(0, w - max(0, dx)) :] = 0
                planes[:, o, :, : max(0, -dx)] = 0
        ctx.save_for_backward(cells, planes)
        ctx.offsets = offsets
        return planes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_planes: Tensor) -> tuple[Tensor, None]:
        cells, planes = ctx.saved_tensors
        h, w = planes.shape[2:]
        # d exp(-m) = -exp(-m) dm, and the mean m of D absolute differences has the slope sign / D in each of them.
        slopes = (grad_planes * planes).flatten(2).div_(-cells.shape[1])
        grad = torch.zeros_like(cells)
        for images, channels in _blocks(cells):
            block, buffer = cells[images, channels], torch.empty_like(cells[images, channels])
            for o, shift in _shifts(ctx.offsets, h, w):
                sign = _differences(block, shift, buffer).sign_()
                slope = slopes[images, o, None, : h * w - shift]
                grad[images, channels, : h * w - shift].addcmul_(sign, slope)
                grad[images, channels, shift:].addcmul_(sign, slope, value=-1)
        return grad.view(*grad.shape[:2], h, w), None


def _summed_differences(features: Tensor, offsets: list[tuple[int, int]]) -> Tensor:
    # (B, D, h, w) to (B, O, h, w): sum_D |f_i - f_j|, infinite outside the grid. Two kernels per offset on a GPU.
    b, _, h, w = features.shape
    distances = features.new_full((b, len(offsets), h, w), torch.inf)
    for o, (dy, dx) in enumerate(offsets):
        if dy < h and abs(dx) < w:
            left, right = max(0, -dx), w - max(0, dx)
            difference = features[:, :, : h - dy, left:right] - features[:, :, dy:, left + dx : right + dx]
            torch.linalg.vector_norm(difference, ord=1, dim=1, out=distances[:, o, : h - dy, left:right])
    return distances


def compiled_loops(values: Tensor) -> Any:
    """The module ``engine.ops.bands`` if numba is installed and it supports these values, otherwise None."""
    return _bands() if values.device.type == "cpu" and values.dtype == torch.float32 and values.numel() else None


@lru_cache(maxsize=1)
def _bands() -> ModuleType | None:
    try:
        from engine.ops import bands
    except ImportError:
        return None
    return bands


def flat_shifts(offsets: list[tuple[int, int]], h: int, w: int) -> list[int]:
    """Flat distance from the first cell to the second for each offset; 0 if the offset does not fit into the grid."""
    return [dy * w + dx if dy < h and abs(dx) < w else 0 for dy, dx in offsets]


def _blocks(cells: Tensor) -> list[tuple[slice, slice]]:
    # Images and channels to compare at once: as many as fit into a CPU cache; on a GPU few large kernels are faster.
    b, d, num_cells = cells.shape
    most = _CACHE_ELEMENTS if cells.device.type == "cpu" else cells.numel()
    num_channels = min(max(1, most // max(1, num_cells)), max(1, d))
    num_images = max(1, most // max(1, num_cells * num_channels))
    return [
        (slice(image, image + num_images), slice(channel, channel + num_channels))
        for image in range(0, b, num_images)
        for channel in range(0, d, num_channels)
    ]


def _shifts(offsets: list[tuple[int, int]], h: int, w: int) -> list[tuple[int, int]]:
    # Plane and flat shift of the offsets that fit into the grid.
    return [(o, shift) for o, shift in enumerate(flat_shifts(offsets, h, w)) if shift]


def _differences(block: Tensor, shift: int, buffer: Tensor) -> Tensor:
    first, second = block[..., : block.shape[2] - shift], block[..., shift:]
    return torch.sub(first, second, out=buffer.flatten()[: first.numel()].view(first.shape))


def label_planes(seed: Tensor, radius: int, ignore: int) -> PairSets:
    """Label pairs as positive, negative or neither from the confident cells (paper, section 3.2).

    Args:
        seed: (B, h, w) integer class ids, 0 for background, ``ignore`` where uncertain.
        radius: as in :func:`affinity_planes`.
        ignore: value of an uncertain cell.

    Returns:
        Three disjoint sets, (B, O, h, w) bool each; pairs with an uncertain cell or one outside the grid are in none.
    """
    h, w = seed.shape[1:]
    first = seed.long()
    margin = radius - 1
    padded = functional.pad(first, (margin, margin, 0, margin), value=ignore)
    offsets = half_plane_offsets(radius)
    second = first.new_empty((seed.shape[0], len(offsets), h, w))
    for o, (dy, dx) in enumerate(offsets):
        second[:, o] = padded[:, dy : dy + h, margin + dx : margin + dx + w]
    first = first[:, None]
    confident = (first != ignore) & (second != ignore)
    same = confident & (first == second)
    return PairSets(
        foreground=same & (first != 0), background=same & (first == 0), negative=confident & (first != second)
    )


def affinity_loss_sums(planes: Tensor, sets: PairSets) -> tuple[Tensor, Tensor]:
    """Compute the cross entropy of each set of pairs, as sums and counts that can be added over workers.

    Args:
        planes: (B, O, h, w) float in [0, 1] of :func:`affinity_planes`.
        sets: the labels of :func:`label_planes`.

    Returns:
        sums: (3,) float32 (float64 for float64): foreground, background, negative.
        counts: (3,) int64, number of pairs in each set.
    """
    if planes.dtype != torch.float64:
        planes = planes.float()
    positive_loss = -(planes + LOSS_EPSILON).log()
    negative_loss = -(1 + LOSS_EPSILON - planes).log()
    losses = (positive_loss, positive_loss, negative_loss)
    sums = torch.stack([loss.where(chosen, 0).sum() for loss, chosen in zip(losses, sets, strict=True)])
    return sums, torch.stack([chosen.sum() for chosen in sets])


def balanced_loss(sums: Tensor, counts: Tensor) -> Tensor:
    """``L = L_fg+ / 4 + L_bg+ / 4 + L_- / 2``, each the mean over its set, 0 for an empty set (paper, eq. 5 to 7).

    Args:
        sums: (3,) float of :func:`affinity_loss_sums`.
        counts: (3,) from the same call, summed over all workers.

    Returns:
        () float.
    """
    foreground, background, negative = (sums / counts.clamp(min=1)).unbind()
    return foreground / 4 + background / 4 + negative / 2
