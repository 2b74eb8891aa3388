"""Semantic propagation by random walk (paper, section 3.4, equations 8 and 9).

``T = D^-1 W^(beta)`` and ``vec(M*) = T^t vec(M)``: W holds the affinities of cells closer than gamma and ones on its
diagonal, W^(beta) is the elementwise power, and D its row sums, so every row of T sums to 1.

The authors square a dense N x N matrix. T has at most 2 O + 1 entries a row (69 at radius 5), so t sparse products with
the K maps give the same result, and a Chebyshev expansion needs only about ``sqrt(2 t log(1 / tolerance))`` of them.

Letters: K maps (background and classes), D features, (h, w) grid cells, N = h * w, O offsets of the half plane,
t ``num_steps``, n ``degree``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.ops.affinity import affinity_planes, half_plane_offsets

# torch says so once a process, in each of a cluster's workers; nothing here depends on the unfinished parts.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

_SMALLEST_WEIGHT = 1e-20
"""Weights below this are left out: beside the diagonal's 1 they change nothing, and denormal numbers are slow."""


def transition_matrix(planes: Tensor, *, radius: int, beta: float) -> Tensor:
    """``T = D^-1 W^(beta)`` (paper, eq. 8).

    Args:
        planes: (O, h, w) float in [0, 1], the affinities of one image from ``affinity_planes``.
        radius: the same as for ``planes``.
        beta: elementwise power; larger keeps the walk from weak affinities.

    Returns:
        (N, N) sparse CSR float with sorted int32 columns and rows that sum to 1.
    """
    num_offsets, h, w = planes.shape
    offsets = half_plane_offsets(radius)
    assert len(offsets) == num_offsets, (radius, num_offsets)
    num_cells, device = h * w, planes.device

    # Bands of W, in the order of their columns within a row: the offsets reversed, the diagonal, the offsets.
    # W is symmetric: what cell i gives its neighbour, the neighbour, a constant shift further, gives back.
    shifts = [dy * w + dx for dy, dx in offsets]
    weights = planes.flatten(1).pow(beta)
    weights[weights < _SMALLEST_WEIGHT] = 0
    bands = weights.new_zeros((2 * num_offsets + 1, num_cells))
    bands[num_offsets] = 1
    bands[num_offsets + 1 :] = weights
    for o, shift in enumerate(shifts):
        if 0 < shift < num_cells:  # otherwise the offset is wider than the grid
            bands[num_offsets - 1 - o, shift:] = weights[o, : num_cells - shift]

    band_shifts = torch.tensor([*(-shift for shift in reversed(shifts)), 0, *shifts], dtype=torch.int32, device=device)
    columns = torch.arange(num_cells, dtype=torch.int32, device=device)[:, None] + band_shifts
    entries = (bands / bands.sum(dim=0)).t()
    stored = entries > 0  # never true outside the grid, where the planes are 0
    row_ends = stored.sum(dim=1).cumsum(dim=0)
    rows = torch.cat([row_ends.new_zeros(1), row_ends]).int()
    return torch.sparse_csr_tensor(
        rows, columns[stored], entries[stored], (num_cells, num_cells), device=device, check_invariants=False
    )


def random_walk(cam: Tensor, transition: Tensor, *, num_steps: int) -> Tensor:
    """Refine maps by walking ``num_steps`` steps from every cell, one after another (paper, eq. 9).

    Args:
        cam: (K, h, w) float in [0, 1].
        transition: (N, N) sparse CSR of the same dtype, rows that sum to 1.
        num_steps: length of the walk; 0 returns ``cam`` unchanged.

    Returns:
        (K, h, w) float in [0, 1], on the device of ``cam``.
    """
    maps = _columns(cam)
    for _ in range(num_steps):
        maps = transition @ maps
    return maps.t().reshape(cam.shape)


@lru_cache(maxsize=32)
def chebyshev_coefficients(num_steps: int) -> NDArray[np.float64]:
    """The weights of ``x^t = sum_k c_k T_k(x)``: ``c_k = 2^(1-t) C(t, (t-k)/2)`` for k of t's parity, half at k = 0.

    They are not negative and sum to 1, since T_k(1) = 1. So the ratios ``c_(k+2) / c_k = (t - k) / (t + k + 2)`` are
    all that is needed, and no power of 2 or factorial can overflow.

    Args:
        num_steps: t, 0 or more.

    Returns:
        (t+1,) float64 in [0, 1], read-only; far ones of a large t are exactly 0.
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
    """The least degree whose expansion of ``T^t M`` is off by at most ``tolerance`` times half the range of M.

    Why it holds. ``T = D^-1/2 S D^1/2`` with a symmetric S, whose eigenvalues are T's and lie in [-1, 1], where
    ``|T_k(x)| <= 1``. With p the expansion up to n and ``r_n = sum_(k>n) c_k``, the error ``E = T^t - p(T)`` is
    ``D^-1/2 E_S D^1/2`` with ``||E_S||_2 <= r_n``. At cell i, for any map m, it is therefore at most
    ``r_n (sum_j D_j m_j^2 / D_i)^1/2``. W's diagonal is 1 and its entries at most 1, so ``D_i >= 1`` and
    ``sum_j D_j`` is at most the number of entries of T::

        ||E m||_inf <= r_n * sqrt(num_entries) * max |m|

    A constant map is known exactly (``T 1 = 1``), so only m = M - c counts, c the middle of M's range, and max |m| is
    half that range. float32 adds its rounding, about 1e-6.

    Args:
        num_steps: t.
        tolerance: above 0.
        num_entries: stored entries of T.

    Returns:
        n in 0..t; t is exact.
    """
    tails = np.cumsum(chebyshev_coefficients(num_steps)[::-1])[::-1]
    enough = np.append(tails[1:], 0.0) * math.sqrt(num_entries) <= tolerance
    return int(enough.argmax())


def chebyshev_walk(cam: Tensor, transition: Tensor, *, num_steps: int, tolerance: float) -> Tensor:
    """:func:`random_walk` to within ``tolerance``, in far fewer products; see :func:`chebyshev_degree` for the bound.

    Args:
        cam: (K, h, w) float.
        transition: (N, N) sparse CSR of the same dtype, rows that sum to 1.
        num_steps: length of the walk; 0 returns ``cam`` unchanged.
        tolerance: greatest error allowed of any value; 0 walks step by step.

    Returns:
        (K, h, w) float in the range of each map.
    """
    low, high = _range(cam)
    half_range = float((high - low).max()) / 2 if cam.numel() else 0.0
    degree = num_steps
    if tolerance > 0 and half_range > 0:
        degree = chebyshev_degree(num_steps, tolerance / half_range, num_entries=transition.values().numel())
    if degree >= num_steps:
        return random_walk(cam, transition, num_steps=num_steps).clamp(low, high)
    coefficients = chebyshev_coefficients(num_steps)
    center = (low + high) / 2
    maps = _columns(cam - center)
    walked = torch.zeros_like(maps)
    for coefficient, vector in zip(coefficients.tolist(), _chebyshev_vectors(maps, transition, degree), strict=False):
        if coefficient > 0:
            walked.add_(vector, alpha=coefficient)
    return (walked.t().reshape(cam.shape) + center).clamp(low, high)


def chebyshev_basis(cam: Tensor, transition: Tensor, *, degree: int) -> Tensor:
    """``T_k(T) M`` for k = 0..n, from which :func:`walk_from_basis` gives a walk of any length.

    Args:
        cam: (K, h, w) float.
        transition: (N, N) sparse CSR of the same dtype, rows that sum to 1.
        degree: n; take :func:`chebyshev_degree` of the longest walk wanted.

    Returns:
        (n+1, K, h, w) float.
    """
    vectors = _chebyshev_vectors(_columns(cam), transition, degree)
    return torch.stack([vector.t().reshape(cam.shape) for vector in vectors])


def walk_from_basis(basis: Tensor, num_steps: int) -> Tensor:
    """``T^t M`` from the Chebyshev vectors of M; linear in them.

    Args:
        basis: (n+1, K, h, w) float of :func:`chebyshev_basis`.
        num_steps: t; the error is that of :func:`chebyshev_degree` for n and t, none when t <= n.

    Returns:
        (K, h, w) float in the range of each map.
    """
    coefficients = chebyshev_coefficients(num_steps)
    used = min(len(basis), len(coefficients))
    low, high = _range(basis[0])
    # What the expansion leaves out would still carry a constant map, whole.
    left_out = float(coefficients[used:].sum()) * (low + high) / 2
    weights = basis.new_tensor(coefficients[:used])
    walked: Tensor = torch.tensordot(weights, basis[:used], dims=1) + left_out
    return walked.clamp(low, high)


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
    """Spread maps along the affinities of AffinityNet's features: W from all pairs closer than radius, T, ``T^t M``.

    Args:
        cam: (K, h, w) float32, background and classes present.
        features: (D, h, w) float32 of AffinityNet on the same grid.
        radius: cells; pairs strictly closer are connected (gamma of the paper).
        beta: power of the affinities, above 0.
        num_steps: length of the walk (t of the paper); 0 returns ``cam`` unchanged.
        tolerance: greatest error allowed against the exact ``T^t M``; 0 walks step by step.

    Returns:
        (K, h, w) float32 in the range of each map, on the device of ``cam``.

    Raises:
        ValueError: an argument is not allowed, or ``cam`` or ``features`` holds NaN or infinity.
    """
    if cam.dim() != 3:
        raise ValueError(f"cam has the shape {tuple(cam.shape)}; allowed: (K, h, w)")
    if features.dim() != 3 or features.shape[1:] != cam.shape[1:] or len(features) == 0:
        h, w = cam.shape[1:]
        raise ValueError(f"features has the shape {tuple(features.shape)}; allowed: (D, {h}, {w}), the grid of cam")
    for name, tensor in (("cam", cam), ("features", features)):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers")
    if not (radius >= 1 and radius % 1 == 0):
        raise ValueError(f"radius is {radius!r}; allowed: a whole number of cells, 1 or more")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta is {beta!r}; allowed: above 0")
    if not (num_steps >= 0 and num_steps % 1 == 0):
        raise ValueError(f"num_steps is {num_steps!r}; allowed: a whole number, 0 or more")
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance!r}; allowed: 0 or more")
    if num_steps == 0 or cam.numel() == 0:
        return cam
    planes = affinity_planes(features[None].float(), radius)[0]
    transition = transition_matrix(planes, radius=radius, beta=beta)
    return chebyshev_walk(cam.float(), transition, num_steps=num_steps, tolerance=tolerance)


def _columns(cam: Tensor) -> Tensor:
    return cam.flatten(1).t().contiguous()


def _range(cam: Tensor) -> tuple[Tensor, Tensor]:
    if cam.numel() == 0:
        zeros = cam.new_zeros((len(cam), 1, 1))
        return zeros, zeros
    return cam.amin(dim=(1, 2), keepdim=True), cam.amax(dim=(1, 2), keepdim=True)


def _chebyshev_vectors(maps: Tensor, transition: Tensor, degree: int) -> Iterator[Tensor]:
    previous, current = maps, maps
    yield maps
    for k in range(1, degree + 1):
        if k == 1:
            current = transition @ maps
        else:  # T_k(x) = 2 x T_(k-1)(x) - T_(k-2)(x)
            previous, current = current, torch.addmm(previous, transition, current, beta=-1, alpha=2)
        yield current
