"""Compiled loops for affinities and random walk on a CPU (numba, no GIL).

Source: sections 3.2 and 3.3 of the paper. In the flattened grid a neighbor is a constant shift away, so W consists of O
bands, and a product with it of O shifted products. There are no index arrays, and by symmetry each band serves both
cells of its pairs.

T is applied as ``T x = x + D^-1 sum_j w_ij (x_j - x_i)``. In float32 the rows of D^-1 W do not sum to exactly 1, and a
long walk over weak affinities would drift; differences preserve a constant map exactly.

Letters: D features, N = h * w cells, O offsets of the half plane, K maps, n degree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.compiled import compiled

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

BLOCK = 512
"""Cells processed at once, so that their data stays in the L1 and L2 caches."""

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)


@compiled
def _add_differences(total: Float32, cells: Float32, first: Int64, shift: int, count: int) -> None:
    """Add the distances of a block of cells to their neighbors in four features, whose rows start at ``first``."""
    # LLVM only vectorizes with local names and a single output array
    a, b, c, d = np.uint64(first[0]), np.uint64(first[1]), np.uint64(first[2]), np.uint64(first[3])
    step = np.uint64(shift)
    for p in range(count):
        i = np.uint64(p)
        total[i] += (abs(cells[a + i] - cells[a + i + step]) + abs(cells[b + i] - cells[b + i + step])) + (
            abs(cells[c + i] - cells[c + i + step]) + abs(cells[d + i] - cells[d + i + step])
        )


@compiled
def add_distances(distances: Float32, cells: Any, shifts: Int64, start: int, end: int) -> None:
    """Add ``sum_D |f_i - f_(i + shift)|`` for the cells from ``start`` to ``end``.

    Args:
        distances: (O, N) float32; cells whose neighbor would lie beyond the last cell are unchanged.
        cells: (D, N) float32, contiguous.
        shifts: (O,) flat distance of each neighbor; 0 or less skips the offset.
    """
    num_features, num_cells = cells.shape
    flat = cells.reshape(-1)
    rows = np.empty(4, np.int64)
    for block in range(start, end, BLOCK):
        for feature in range(0, num_features - 3, 4):
            for r in range(4):
                rows[r] = (feature + r) * num_cells + block
            for o in range(len(shifts)):
                count = min(min(BLOCK, end - block), num_cells - block - shifts[o])
                if shifts[o] > 0 and count > 0:
                    _add_differences(distances[o, block : block + count], flat, rows, shifts[o], count)
        for feature in range(num_features // 4 * 4, num_features):
            row = cells[feature]
            for o in range(len(shifts)):
                if shifts[o] > 0:
                    for i in range(block, min(min(block + BLOCK, end), num_cells - shifts[o])):
                        distances[o, i] += abs(row[i] - row[i + shifts[o]])


@compiled
def _add_neighbors(total: Float32, own: Float32, bands: Float32, values: Float32, first: Int64) -> None:
    """Add the contributions of the neighbors at two offsets, in both directions, to a block of cells.

    ``first``: (8,) start of the four rows of weights, then of the four rows of values that they apply to.
    """
    a, b, c, d = np.uint64(first[0]), np.uint64(first[1]), np.uint64(first[2]), np.uint64(first[3])
    e, f, g, h = np.uint64(first[4]), np.uint64(first[5]), np.uint64(first[6]), np.uint64(first[7])
    for p in range(len(total)):
        i = np.uint64(p)
        total[i] += (bands[a + i] * (values[e + i] - own[i]) + bands[b + i] * (values[f + i] - own[i])) + (
            bands[c + i] * (values[g + i] - own[i]) + bands[d + i] * (values[h + i] - own[i])
        )


@compiled
def _differences(total: Float32, bands: Any, shifts: Int64, values: Float32, start: int) -> None:
    """Compute ``sum_j w_ij (x_j - x_i)`` for a block of cells."""
    flat, width = bands.reshape(-1), bands.shape[1]
    own, first = values[start : start + len(total)], np.empty(8, np.int64)
    total[:] = _ZERO
    for o in range(0, len(shifts), 2):  # the number of offsets is even, because the disk is symmetric
        for k in range(2):
            shift, here = shifts[o + k], (o + k) * width + start
            first[2 * k], first[2 * k + 1] = here, here - shift
            first[2 * k + 4], first[2 * k + 5] = start + shift, start - shift
        _add_neighbors(total, own, flat, values, first)


@compiled
def inverse_degrees(bands: Any, shifts: Int64, num_cells: int, margin: int) -> Float32:
    """Compute the diagonal of ``D^-1``, (N,): 1 over the sum of each row of W."""
    inverse = np.zeros(num_cells, np.float32)
    for o in range(len(shifts)):
        forward, backward = bands[o, margin:], bands[o, margin - shifts[o] :]
        for i in range(num_cells):
            inverse[i] += forward[i] + backward[i]
    for i in range(num_cells):
        inverse[i] = _ONE / (_ONE + inverse[i])
    return inverse


@compiled
def chebyshev_sums(
    maps: Float32, bands: Any, shifts: Int64, inverse: Float32, coefficients: Float32, margin: int
) -> Float32:
    """``sum_k c_sk T_k(T) M`` with ``T = D^-1 W`` for each row s of the coefficients, for walks of several lengths.

    Args:
        maps: (K, N) float32.
        bands: (O, margin + N + margin) float32, W's bands above its diagonal of ones; 0 where a pair leaves the grid
            and in the margins.
        shifts: (O,) flat distance of each neighbor, 0 to ``margin``; O is even, as from ``half_plane_offsets``.
        inverse: (N,) of :func:`inverse_degrees`.
        coefficients: (S, n+1) float32.

    Returns:
        (S, K, N) float32.
    """
    num_maps, num_cells = maps.shape
    num_walks, num_vectors = coefficients.shape
    total, steps = np.empty(BLOCK, np.float32), np.empty(num_cells, np.float32)
    summed = np.empty((num_walks, num_maps, num_cells), np.float32)
    for m in range(num_maps):
        current = np.zeros(num_cells + 2 * margin, np.float32)
        following = np.zeros(num_cells + 2 * margin, np.float32)
        steps[:] = _ZERO
        current[margin : margin + num_cells] = maps[m]
        for s in range(num_walks):
            for i in range(num_cells):
                summed[s, m, i] = coefficients[s, 0] * maps[m, i]
        for k in range(1, num_vectors):
            # T_k = 2 T T_(k-1) - T_(k-2), as T_(k-1) plus a step, which is the last step plus 2 (T - 1) T_(k-1)
            factor = _ONE if k == 1 else _TWO
            for start in range(0, num_cells, BLOCK):
                count = min(BLOCK, num_cells - start)
                _differences(total[:count], bands, shifts, current, margin + start)
                old, new = current[margin + start :], following[margin + start : margin + start + count]
                step = steps[start : start + count]
                for p in range(count):
                    step[p] += factor * inverse[start + p] * total[p]
                    new[p] = old[p] + step[p]
                for s in range(num_walks):
                    weight = coefficients[s, k]
                    if weight != _ZERO:  # every second one is 0: only vectors with the parity of the walk contribute
                        row = summed[s, m, start : start + count]
                        for p in range(count):
                            row[p] += weight * new[p]
            current, following = following, current
    return summed
