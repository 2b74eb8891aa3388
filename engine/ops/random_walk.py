"""Semantic propagation by random walk (paper, section 3.3, equations 8 and 9).

``T = D^-1 W^(beta)`` and ``vec(M*) = T^t vec(M)``: W contains the affinities of cells closer than gamma and ones on its
diagonal, W^(beta) is the elementwise power, and D its row sums, so every row of T sums to 1.

The authors square a dense N x N matrix. T has at most 2 O + 1 entries per row (69 at radius 5), so t sparse products
with the K maps give the same result, and a Chebyshev expansion needs only about ``sqrt(2 t log(1 / tolerance))`` of
them. Every product is computed as ``T x = x + (T - I) x``, which keeps a constant map constant in spite of rounding. On
a CPU with numba, T is never built: the bands of W are applied directly (``bands.py``).

Letters: B images, K maps (background and classes), D features, (h, w) grid cells, N = h * w, O offsets of the half
plane, t ``num_steps``, n ``degree``.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    num_cells, device = h * w, planes.device
    weights = _weights(planes, beta)
    columns = torch.arange(num_cells, device=device) + _disc(radius, w, device)[:, None]
    assert len(columns) == 2 * num_offsets + 1, (radius, num_offsets)

    # Bands of W, in the order of their columns within a row: the reversed offsets, the diagonal, the offsets.
    # W is symmetric: the entry toward an earlier cell is the weight that this cell has toward the later one.
    inside = columns.clamp(0, num_cells - 1)
    backward = weights.flip(0).gather(1, inside[:num_offsets]).where(columns[:num_offsets] >= 0, 0)
    bands = torch.cat([backward, weights.new_zeros((1, num_cells)), weights])
    bands /= 1 + bands.sum(dim=0)
    bands[num_offsets] = -bands.sum(dim=0, dtype=torch.float64)
    entries, columns = bands.t(), inside.t().int()
    if keep_zeros:
        every_row = torch.arange(num_cells + 1, dtype=torch.int32, device=device) * len(bands)
        return _csr(every_row, columns.flatten(), entries.flatten(), num_cells)
    stored = entries != 0  # always false outside the grid, where the planes are 0
    row_ends = stored.sum(dim=1).cumsum(dim=0)
    rows = torch.cat([row_ends.new_zeros(1), row_ends]).int()
    return _csr(rows, columns[stored], entries[stored], num_cells)


def _disc(radius: int, width: int, device: torch.device) -> Tensor:
    # (2 O + 1,) flat distances to all cells closer than radius, row by row; made on the device, without a copy to it.
    reach = [math.isqrt(radius * radius - dy * dy - 1) for dy in range(1 - radius, radius)]
    rows = [(dy * width, dx) for dy, dx in zip(range(1 - radius, radius), reach, strict=True)]
    return torch.cat([torch.arange(middle - dx, middle + dx + 1, device=device) for middle, dx in rows])


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
            torch.addmm(step, differences, vector, alpha=1 if k == 1 else 2, out=step)
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
    _check(cam[None], features[None], radius=radius, beta=beta, num_steps=num_steps, tolerance=tolerance)
    for name, values in (("cam", cam), ("features", features)):
        if not values.isfinite().all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    if num_steps == 0 or cam.numel() == 0:
        return cam
    low, high = _range(cam)
    half_range = float((high - low).float().amax()) / 2
    walk = partial(_walk, radius=radius, beta=beta, num_steps=num_steps, tolerance=tolerance)
    return walk(cam[None], features[None], half_range=half_range)[0]


@torch.no_grad()
def refine_many(
    cams: Tensor,
    features: Tensor,
    *,
    radius: int = 5,
    beta: float = 8.0,
    num_steps: int = 256,
    tolerance: float = 1e-4,
) -> Tensor:
    """:func:`refine` for images on one grid.

    On a CPU the images are processed one by one, because one image already fills the caches. On a GPU all are processed
    at once, and the host does not wait for it: neither to measure how wide the maps are, nor to check for NaN and
    infinity, which come back as NaN.

    Args:
        cams: (B, K, h, w) float32 in [0, 1].
        features: (B, D, h, w) float32.

    Returns:
        (B, K, h, w) float32.

    Raises:
        ValueError: as :func:`refine`; on a GPU not for NaN and infinity.
    """
    if cams.device.type == "cpu":
        refined = partial(refine, radius=radius, beta=beta, num_steps=num_steps, tolerance=tolerance)
        return torch.stack([refined(cam, one) for cam, one in zip(cams, features, strict=True)])
    _check(cams, features, radius=radius, beta=beta, num_steps=num_steps, tolerance=tolerance)
    if num_steps == 0 or cams.numel() == 0:
        return cams
    unless_finite = (features * 0).sum(dim=1, keepdim=True)  # NaN instead of 0
    walk = partial(_walk, radius=radius, beta=beta, num_steps=num_steps, tolerance=tolerance)
    return walk(cams + unless_finite, features, half_range=0.5)


def _check(cams: Tensor, features: Tensor, *, radius: int, beta: float, num_steps: int, tolerance: float) -> None:
    if not (radius >= 1 and radius % 1 == 0):
        raise ValueError(f"radius must be a whole number of cells, 1 or more, got {radius!r}")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be above 0, got {beta!r}")
    if not (num_steps >= 0 and num_steps % 1 == 0):
        raise ValueError(f"num_steps must be a whole number, 0 or more, got {num_steps!r}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance!r}")
    if cams.dim() != 4:
        raise ValueError(f"cam must be (K, h, w), got {tuple(cams.shape[1:])}")
    if features.dim() != 4 or features.shape[2:] != cams.shape[2:] or features.shape[1] == 0:
        h, w = cams.shape[2:]
        raise ValueError(f"features must be (D, {h}, {w}), the grid of cam, got {tuple(features.shape[1:])}")


def _walk(
    cams: Tensor,
    features: Tensor,
    *,
    half_range: float,
    radius: int,
    beta: float,
    num_steps: int,
    tolerance: float,
) -> Tensor:
    """``T^t M`` for images on one grid; half_range: of the map with the widest range."""
    planes = affinity_planes(features.float(), radius)
    num_entries = (2 * planes.shape[1] + 1) * planes[0, 0].numel()
    degree = _degree(num_steps, tolerance, half_range, num_entries=num_entries)
    coefficients = chebyshev_coefficients(num_steps)[: degree + 1]
    return walk_together(cams.float(), planes, coefficients, radius=radius, beta=beta)


def walk_together(
    cams: Tensor, planes: Tensor, coefficients: NDArray[np.float64], *, radius: int, beta: float
) -> Tensor:
    """Apply ``sum_k c_k T_k(T)`` to the maps of several images, stacked vertically in one grid.

    Args:
        cams: (B, K, h, w) float32.
        planes: (B, O, h, w) float32 of ``affinity_planes``.
        coefficients: (n+1,) of :func:`chebyshev_coefficients`.

    Returns:
        (B, K, h, w) float32, within the range of each map.
    """
    low, high = _range(cams)
    center = (low + high) / 2
    # planes are 0 where a pair leaves its image, so images are not connected
    maps, bands = (values.transpose(0, 1).flatten(1, 2) for values in (cams - center, planes))
    loops = compiled_loops(maps)
    if loops is not None:
        shifts = flat_shifts(half_plane_offsets(radius), *maps.shape[1:])
        walked = loops.chebyshev_walk(maps.flatten(1), _weights(bands, beta), shifts, coefficients[None])[0]
    else:
        differences = difference_matrix(bands, radius=radius, beta=beta, keep_zeros=maps.device.type != "cpu")
        walked = _expanded(maps.flatten(1), differences, coefficients)
    apart = walked.reshape(len(cams[0]), *cams[:, 0].shape).transpose(0, 1)
    refined: Tensor = (apart + center).clamp(low, high)
    return refined


def _range(cams: Tensor) -> tuple[Tensor, Tensor]:
    return cams.amin(dim=(-2, -1), keepdim=True), cams.amax(dim=(-2, -1), keepdim=True)
