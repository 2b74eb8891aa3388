"""Affinities between nearby cells, their labels and their loss (paper, sections 3.2 and 3.3, equations 4 to 7).

The paper writes ``W_ij = exp(-||f_i - f_j||_1)``; the authors' code (jiwoon-ahn/psa) takes the mean over the D features
in the place of the sum, and beta of the random walk depends on it: this module follows the code. The authors drop every
pair whose first cell lies in the grid's margin; here every pair inside the grid counts, on a grid of any size.

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
"""Added inside the loss's logarithms, as the authors do, so that affinities of 0 and 1 have a finite loss and slope."""

_CACHE_ELEMENTS = 1 << 21
"""Numbers that :func:`affinity_planes` compares at once on a processor."""


class PairSets(NamedTuple):
    """The three sets of labelled pairs, each (B, O, h, w) bool in the form of planes."""

    foreground: Tensor
    """Both cells surely of the same class."""
    background: Tensor
    """Both cells surely background."""
    negative: Tensor
    """Both cells sure, of different classes."""


def half_plane_offsets(radius: int) -> list[tuple[int, int]]:
    """The offsets (dy, dx) from a pair's first cell to its second, which is the later one in reading order.

    Args:
        radius: cells; pairs strictly closer than this belong together (gamma of the paper).

    Returns:
        O offsets, sorted by dy, then dx; none of them is the reverse of another.

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
    """The affinity of every cell to its neighbour at every offset: ``exp(-mean_D |f_i - f_j|)``.

    The backward pass computes the differences again, so memory grows with B * D * N and not with O times that.

    Args:
        features: (B, D, h, w) float; half precision is taken to float32 first.
        radius: cells; pairs strictly closer than this are compared.

    Returns:
        (B, O, h, w) float32 (float64 of float64) in [0, 1]: plane o at cell i is the affinity of i and i + offset o,
        and 0 where that cell is outside the grid.
    """
    if features.dtype != torch.float64:
        features = features.float()
    return cast(Tensor, _AffinityPlanes.apply(features, radius))


class _AffinityPlanes(torch.autograd.Function):
    # In the flattened grid the neighbour at an offset is a constant shift away, so the pairs of an offset are two plain
    # slices. The slices also hold pairs that wrap around the grid's edge; these get affinity 0, and so no gradient.

    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:
        b, d, h, w = features.shape
        offsets = half_plane_offsets(radius)
        cells = features.flatten(2).contiguous()
        distances = _summed_differences(cells, offsets, h, w)
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


def _summed_differences(cells: Tensor, offsets: list[tuple[int, int]], h: int, w: int) -> Tensor:
    # (B, D, N) to (B, O, N): sum_D |f_i - f_j|.
    loops = compiled_loops(cells)
    if loops is not None:
        shifts = flat_shifts(offsets, h, w)
        return torch.stack([loops.summed_differences(one, shifts) for one in cells])
    distances = cells.new_zeros((len(cells), len(offsets), h * w))
    for images, channels in _blocks(cells):
        block, buffer = cells[images, channels], torch.empty_like(cells[images, channels])
        for o, shift in _shifts(offsets, h, w):
            difference = _differences(block, shift, buffer)
            distances[images, o, : h * w - shift] += difference.abs_().sum(dim=1)
    return distances


def compiled_loops(values: Tensor) -> Any:
    """The module ``engine.ops.bands`` where it can take these values, else None: numba is not needed, only faster."""
    return _bands() if values.device.type == "cpu" and values.dtype == torch.float32 and values.numel() else None


@lru_cache(maxsize=1)
def _bands() -> ModuleType | None:
    try:
        from engine.ops import bands
    except ImportError:
        return None
    return bands


def flat_shifts(offsets: list[tuple[int, int]], h: int, w: int) -> list[int]:
    """How far each offset's second cell lies behind the first in the flattened grid, 0 where none fits into it."""
    return [dy * w + dx if dy < h and abs(dx) < w else 0 for dy, dx in offsets]


def _blocks(cells: Tensor) -> list[tuple[slice, slice]]:
    # Images and channels to compare at once: what a processor's cache holds; a GPU wants few large kernels.
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
    """Which pairs are positive, negative or neither, from the sure cells (paper, section 3.2).

    Args:
        seed: (B, h, w) integer class ids, 0 background, ``ignore`` where not sure.
        radius: as in :func:`affinity_planes`.
        ignore: value of a cell that is not sure.

    Returns:
        Three disjoint sets, (B, O, h, w) bool each; a pair with a cell outside the grid or not sure is in none.
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
    sure = (first != ignore) & (second != ignore)
    same = sure & (first == second)
    return PairSets(foreground=same & (first != 0), background=same & (first == 0), negative=sure & (first != second))


def affinity_loss_sums(planes: Tensor, sets: PairSets) -> tuple[Tensor, Tensor]:
    """Cross entropy of each set of pairs, as sums and counts: those of several workers add up.

    Args:
        planes: (B, O, h, w) float in [0, 1] of :func:`affinity_planes`.
        sets: the labels of :func:`label_planes`.

    Returns:
        sums: (3,) float32 (float64 of float64): foreground, background, negative.
        counts: (3,) int64, the pairs of each set.
    """
    if planes.dtype != torch.float64:
        planes = planes.float()
    positive_loss = -(planes + LOSS_EPSILON).log()
    negative_loss = -(1 + LOSS_EPSILON - planes).log()
    losses = (positive_loss, positive_loss, negative_loss)
    sums = torch.stack([loss.where(chosen, 0).sum() for loss, chosen in zip(losses, sets, strict=True)])
    return sums, torch.stack([chosen.sum() for chosen in sets])


def balanced_loss(sums: Tensor, counts: Tensor) -> Tensor:
    """``L = L_fg+ / 4 + L_bg+ / 4 + L_- / 2``, each the mean over its set, 0 of an empty set (paper, eq. 5 to 7).

    Args:
        sums: (3,) float of :func:`affinity_loss_sums`.
        counts: (3,) of the same, or their sum over all workers.

    Returns:
        () float.
    """
    foreground, background, negative = (sums / counts.clamp(min=1)).unbind()
    return foreground / 4 + background / 4 + negative / 2
