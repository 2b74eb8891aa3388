"""Semantic propagation by random walk (paper, section 3.3, equations 8 and 9).

``T = D^-1 W^(beta)`` and ``vec(M*) = T^t vec(M)``: W contains the affinities of cells closer than gamma and ones on its
diagonal, W^(beta) is the elementwise power, and D its row sums, so every row of T sums to 1.

The authors square a dense N x N matrix. T has at most 2 O + 1 entries per row (69 at radius 5), so t sparse products
with the K maps give the same result, and a Chebyshev expansion needs only about ``sqrt(2 t log(1 / tolerance))`` of
them. Every product is computed as ``T x = x + (T - I) x``, which keeps a constant map constant in spite of rounding. On
a CPU with numba, T is never built: the bands of W are applied directly (``bands.py``).

Letters: K maps (background and classes), D features, (h, w) grid cells, N = h * w, O offsets of the half plane,
t ``num_steps``, n ``degree``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.ops.affinity import affinity_planes, compiled_loops, flat_shifts, half_plane_offsets

# torch warns once per process, so in every worker of a cluster; only stable operations are used here.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

SMALLEST_WEIGHT = 1e-20
"""Smaller weights are set to 0: next to the diagonal of ones they are negligible, and denormal numbers are slow."""


def difference_matrix(planes: Tensor, *, radius: int, beta: float, keep_zeros: bool = False) -> Tensor:
    """``T - I`` with ``T = D^-1 W^(beta)`` (paper, eq. 8): a step is ``x + (T - I) x``.

    In float32 the rows of T do not sum to exactly 1, and a long walk over weak affinities would drift.

    Args:
        planes: (O, h, w) float in [0, 1], the affinities of one image from ``affinity_planes``.
        radius: the same as for ``planes``.
        beta: elementwise power; larger suppresses weak affinities.
        keep_zeros: store 2 O + 1 entries per row including zeros, which avoids a synchronization with the GPU.

    Returns:
        (N, N) sparse CSR float with int32 columns and rows that sum to 0; columns are sorted unless zeros are kept.
    """
    num_offsets, h, w = planes.shape
    offsets = half_plane_offsets(radius)
    assert len(offsets) == num_offsets, (radius, num_offsets)
    num_cells, device = h * w, planes.device

    # Bands of W, in the order of their columns within a row: the reversed offsets, the diagonal, the offsets.
    # W is symmetric, so each band appears again, shifted, on the other side of the diagonal.
    shifts = [dy * w + dx for dy, dx in offsets]
    weights = _weights(planes, beta)
    bands = weights.new_zeros((2 * num_offsets + 1, num_cells))
    bands[num_offsets + 1 :] = weights
    for o, shift in enumerate(shifts):
        if 0 < shift < num_cells:  # otherwise the offset exceeds the grid
            bands[num_offsets - 1 - o, shift:] = weights[o, : num_cells - shift]

    band_shifts = torch.tensor([*(-shift for shift in reversed(shifts)), 0, *shifts], dtype=torch.int32, device=device)
    columns = torch.arange(num_cells, dtype=torch.int32, device=device)[:, None] + band_shifts
    bands /= 1 + bands.sum(dim=0)
    bands[num_offsets] = -bands.sum(dim=0, dtype=torch.float64)
    entries = bands.t()
    if keep_zeros:
        every_row = torch.arange(num_cells + 1, dtype=torch.int32, device=device) * len(band_shifts)
        inside = columns.clamp(0, num_cells - 1).flatten()
        return _csr(every_row, inside, entries.flatten(), num_cells)
    stored = entries != 0  # always false outside the grid, where the planes are 0
    row_ends = stored.sum(dim=1).cumsum(dim=0)
    rows = torch.cat([row_ends.new_zeros(1), row_ends]).int()
    return _csr(rows, columns[stored], entries[stored], num_cells)


def _csr(rows: Tensor, columns: Tensor, entries: Tensor, num_cells: int) -> Tensor:
    return torch.sparse_csr_tensor(rows, columns, entries, (num_cells, num_cells), check_invariants=False)


def _weights(planes: Tensor, beta: float) -> Tensor:
    # The bands of W above the diagonal, (O, N).
    weights = planes.flatten(1).pow(beta)
    return weights.where(weights >= SMALLEST_WEIGHT, 0)


@lru_cache(maxsize=32)
def chebyshev_coefficients(num_steps: int) -> NDArray[np.float64]:
    """Compute the coefficients of ``x^t = sum_k c_k T_k(x)``.

    ``c_k = 2^(1-t) C(t, (t-k)/2)`` for k with the parity of t, and half of that at k = 0. They are non-negative and sum
    to 1, since T_k(1) = 1, so they follow from the ratios ``c_(k+2) / c_k = (t - k) / (t + k + 2)`` without powers of 2
    or factorials that could overflow.

    Args:
        num_steps: t, 0 or more.

    Returns:
        (t+1,) float64 in [0, 1], read-only; for large t, those of high k underflow to 0.
    """
    parity = num_steps % 2
    k = np.arange(parity, num_steps - 1, 2)
    relative = np.cumprod(np.concatenate([[1.0], (num_steps - k) / (num_steps + k + 2)]))
    if parity == 0:
        relative[0] /= 2
    coefficients = np.zeros(num_steps + 1)
    coefficients[parity::2] = relative / math.fsum(relative)
    coefficients.setflags(write=False)
    return coefficients


def chebyshev_degree(num_steps: int, tolerance: float, *, num_entries: int) -> int:
    """Find the lowest degree at which the error of ``T^t M`` is at most ``tolerance`` times half the range of M.

    Proof: ``T = D^-1/2 S D^1/2`` with a symmetric S, whose eigenvalues are T's and lie in [-1, 1], where
    ``|T_k(x)| <= 1``. With p the expansion up to n and ``r_n = sum_(k>n) c_k``, the error ``E = T^t - p(T)`` is
    ``D^-1/2 E_S D^1/2`` with ``||E_S||_2 <= r_n``. At cell i, for any map m, it is therefore at most
    ``r_n (sum_j D_j m_j^2 / D_i)^1/2``. W's diagonal is 1 and its entries at most 1, so ``D_i >= 1`` and
    ``sum_j D_j`` is at most the number of entries of T::

        ||E m||_inf <= r_n * sqrt(num_entries) * max |m|

    A constant map is exact (``T 1 = 1``), so the bound applies to m = M - c, with c the middle of the range of M, and
    max |m| is half that range. Rounding in float32 adds about 1e-6.

    Args:
        num_steps: t.
        tolerance: above 0.
        num_entries: stored entries of T.

    Returns:
        n in 0..t; degree t is exact.
    """
    tails = np.cumsum(chebyshev_coefficients(num_steps)[::-1])[::-1]
    enough = np.append(tails[1:], 0.0) * math.sqrt(num_entries) <= tolerance
    return int(enough.argmax())


def _degree(num_steps: int, tolerance: float, half_range: float, *, num_entries: int) -> int:
    if not (tolerance > 0 and half_range > 0):
        return num_steps
    return chebyshev_degree(num_steps, tolerance / half_range, num_entries=num_entries)


def _expanded(maps: Tensor, differences: Tensor, coefficients: NDArray[np.float64]) -> Tensor:
    # sum_k c_k T_k(T) M of (K, N).
    vector = maps.t().contiguous()
    walked, step = torch.zeros_like(vector), torch.zeros_like(vector)
    for k, coefficient in enumerate(coefficients.tolist()):
        if k > 0:  # T_k(x) = 2 x T_(k-1)(x) - T_(k-2)(x), as a step from T_(k-1) to T_k
            step = torch.addmm(step, differences, vector, alpha=1 if k == 1 else 2)
            vector = vector + step
        if coefficient > 0:
            walked.add_(vector, alpha=coefficient)
    return walked.t()


@torch.no_grad()
def refine(
    cam: Tensor,
    features: Tensor,
    *,
    radius: int = 5,
    beta: float = 8.0,
    num_steps: int = 256,
    tolerance: float = 1e-4,
) -> Tensor:
    """Refine maps by a random walk along the affinities of AffinityNet's features: ``T^t M``.

    Args:
        cam: (K, h, w) float32, background and classes present.
        features: (D, h, w) float32 of AffinityNet on the same grid.
        radius: cells; pairs strictly closer than this are connected (gamma in the paper).
        beta: power of the affinities, above 0.
        num_steps: length of the walk (t in the paper); 0 returns ``cam`` unchanged.
        tolerance: maximum error relative to the exact ``T^t M``; 0 computes as many products as steps, exact up to
            float32 rounding.

    Returns:
        (K, h, w) float32, within the range of each map, on the device of ``cam``.

    Raises:
        ValueError: an argument is not allowed, or ``cam`` or ``features`` holds NaN or infinity.
    """
    return refine_many([cam], [features], radius=radius, beta=beta, num_steps=num_steps, tolerance=tolerance)[0]


@torch.no_grad()
def refine_many(
    cams: Sequence[Tensor],
    features: Sequence[Tensor],
    *,
    radius: int = 5,
    beta: float = 8.0,
    num_steps: int = 256,
    tolerance: float = 1e-4,
) -> list[Tensor]:
    """:func:`refine` for several images of any sizes.

    On a GPU all images are processed at once, and the host synchronizes only to check for NaN, before the first step.
    On a CPU they are processed one by one, because one image already fills the caches.

    Args:
        cams: (K, h, w) float32 per image.
        features: (D, h, w) float32 per image.

    Returns:
        (K, h, w) float32 per image.

    Raises:
        ValueError: as :func:`refine`.
    """
    if not (radius >= 1 and radius % 1 == 0):
        raise ValueError(f"radius must be a whole number of cells, 1 or more, got {radius!r}")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be above 0, got {beta!r}")
    if not (num_steps >= 0 and num_steps % 1 == 0):
        raise ValueError(f"num_steps must be a whole number, 0 or more, got {num_steps!r}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance!r}")
    half_range = _checked_half_range(cams, features)
    refined = list(cams)
    chosen = [index for index, cam in enumerate(cams) if num_steps > 0 and cam.numel() > 0]
    together = bool(chosen) and cams[chosen[0]].device.type != "cpu"
    for group in [chosen] if together else [[index] for index in chosen]:
        maps = [cams[index].float() for index in group]
        planes = [affinity_planes(features[index][None].float(), radius)[0] for index in group]
        num_entries = (2 * len(planes[0]) + 1) * max(cam[0].numel() for cam in maps)
        degree = _degree(num_steps, tolerance, half_range, num_entries=num_entries)
        coefficients = chebyshev_coefficients(num_steps)[: degree + 1]
        for index, walked in zip(
            group, walk_together(maps, planes, coefficients, radius=radius, beta=beta), strict=True
        ):
            refined[index] = walked
    return refined


def _checked_half_range(cams: Sequence[Tensor], features: Sequence[Tensor]) -> float:
    """Check shapes and finite values, and return half the widest range of a map; synchronizes with the device once."""
    found = []
    for cam, one in zip(cams, features, strict=True):
        if cam.dim() != 3:
            raise ValueError(f"cam must be (K, h, w), got {tuple(cam.shape)}")
        if one.dim() != 3 or one.shape[1:] != cam.shape[1:] or len(one) == 0:
            h, w = cam.shape[1:]
            raise ValueError(f"features must be (D, {h}, {w}), the grid of cam, got {tuple(one.shape)}")
        low, high = _range(cam)
        widest = (high - low).float().amax() if cam.numel() else cam.new_zeros((), dtype=torch.float32)
        found.append(torch.stack([cam.isfinite().all().float(), one.isfinite().all().float(), widest]))
    half_range = 0.0
    for cam_is_finite, features_are_finite, widest in torch.stack(found).tolist() if found else []:
        for name, is_finite in (("cam", cam_is_finite), ("features", features_are_finite)):
            if not is_finite:
                raise ValueError(f"{name} must be finite, got NaN or infinity")
        half_range = max(half_range, widest / 2)
    return half_range


def walk_together(
    cams: list[Tensor], planes: list[Tensor], coefficients: NDArray[np.float64], *, radius: int, beta: float
) -> list[Tensor]:
    """Apply ``sum_k c_k T_k(T)`` to the maps of several images, stacked vertically in one grid.

    Args:
        cams: (K, h, w) float32 per image.
        planes: (O, h, w) float32 of ``affinity_planes`` per image.
        coefficients: (n+1,) of :func:`chebyshev_coefficients`.

    Returns:
        (K, h, w) float32 per image, within the range of each map.
    """
    width, num_maps = max(cam.shape[2] for cam in cams), max(len(cam) for cam in cams)
    ranges = [_range(cam) for cam in cams]
    centers = [(low + high) / 2 for low, high in ranges]
    # planes are 0 where a pair leaves its image, so images are not connected
    stacked = [
        functional.pad(cam - center, (0, width - cam.shape[2], 0, 0, 0, num_maps - len(cam)))
        for cam, center in zip(cams, centers, strict=True)
    ]
    maps = torch.cat(stacked, dim=1)
    bands = torch.cat([functional.pad(one, (0, width - one.shape[2])) for one in planes], dim=1)
    loops = compiled_loops(maps)
    if loops is not None:
        shifts = flat_shifts(half_plane_offsets(radius), *maps.shape[1:])
        walked = loops.chebyshev_walk(maps.flatten(1), _weights(bands, beta), shifts, coefficients[None])[0]
    else:
        differences = difference_matrix(bands, radius=radius, beta=beta, keep_zeros=maps.device.type != "cpu")
        walked = _expanded(maps.flatten(1), differences, coefficients)
    parts = walked.reshape(maps.shape).split([cam.shape[1] for cam in cams], dim=1)
    return [
        (part[: len(cam), :, : cam.shape[2]] + center).clamp(low, high)
        for part, cam, center, (low, high) in zip(parts, cams, centers, ranges, strict=True)
    ]


def _range(cam: Tensor) -> tuple[Tensor, Tensor]:
    if cam.numel() == 0:
        zeros = cam.new_zeros((len(cam), 1, 1))
        return zeros, zeros
    return cam.amin(dim=(1, 2), keepdim=True), cam.amax(dim=(1, 2), keepdim=True)
