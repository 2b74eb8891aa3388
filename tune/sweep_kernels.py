"""The compiled loops of the sweep (numba, no GIL): walks of many lengths at once, and counts at the pixels.

One run through the Chebyshev vectors of a map adds each to the sums of all lengths, so none is kept. To count, maps are
brought to the pixels along x once for each row of the grid; along y they are blended as they are looked at, so nothing
of the image's size is ever stored.

Letters: A alphas, S numbers of steps, M maps, n degree, O offsets, N = h * w, K classes present, (H, W) pixels,
(h, w) grid cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.compiled import compiled
from engine.ops.walk_kernels import BLOCK, multiply

IGNORED, OTHER = -1, -2
"""What a pixel's truth may be beside background 0 and the present classes 1..K: not scored, a class not present."""

_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@compiled
def walks(maps: Any, bands: Any, shifts: Any, inverse: Any, coefficients: Any, margin: int) -> NDArray[np.float32]:
    """``sum_k c_sk T_k(T) M`` with ``T = D^-1 W`` for each row s of the coefficients.

    Args:
        maps: (M, N) float32.
        bands: (O, margin + N + margin) float32, as :func:`engine.ops.walk_kernels.chebyshev_sum` takes them.
        shifts: (O,) int64 flat distance of each neighbour, at most ``margin``; 0 leaves the offset out.
        inverse: (N,) of :func:`engine.ops.walk_kernels.inverse_degrees`.
        coefficients: (S, n+1) float32.

    Returns:
        (S, M, N) float32.
    """
    num_maps, num_cells = maps.shape
    num_walks, num_vectors = coefficients.shape
    total = np.empty(BLOCK, np.float32)
    summed = np.empty((num_walks, num_maps, num_cells), np.float32)
    for m in range(num_maps):
        previous = np.zeros(num_cells + 2 * margin, np.float32)
        current = np.zeros(num_cells + 2 * margin, np.float32)
        current[margin : margin + num_cells] = maps[m]
        for s in range(num_walks):
            for i in range(num_cells):
                summed[s, m, i] = coefficients[s, 0] * maps[m, i]
        for k in range(1, num_vectors):
            # T_k = 2 T T_(k-1) - T_(k-2), written over T_(k-2)
            factor = _ONE if k == 1 else _TWO
            for start in range(0, num_cells, BLOCK):
                count = min(BLOCK, num_cells - start)
                multiply(total[:count], bands, shifts, current, margin + start)
                old = previous[margin + start : margin + start + count]
                for p in range(count):
                    old[p] = factor * inverse[start + p] * total[p] - old[p]
                for s in range(num_walks):
                    weight = coefficients[s, k]
                    if weight > _ZERO:
                        row = summed[s, m, start : start + count]
                        for p in range(count):
                            row[p] += weight * old[p]
            previous, current = current, previous
    return summed


@compiled
def _taps(size: int, cells: int) -> tuple[Any, Any, Any]:
    """For each of ``size`` pixels the two cells it lies between, and the weight of the second (no aligned corners)."""
    first, second, weight = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.float32)
    scale = np.float32(cells) / np.float32(size)
    for x in range(size):
        place = max(_ZERO, (np.float32(x) + _HALF) * scale - _HALF)
        first[x] = np.int64(min(place, np.float32(cells - 1)))
        second[x] = min(first[x] + 1, cells - 1)
        weight[x] = place - np.float32(first[x])
    return first, second, weight


@compiled
def count_pixels(maps: Any, num_alphas: int, truth: Any) -> NDArray[np.int64]:
    """How the pixels fall, by the number of alphas at which they are background and by the strongest class.

    Args:
        maps: (A+K, h, w) float32, contiguous: the background map of each alpha, alphas rising, then the classes.
        num_alphas: A.
        truth: (H, W) int16: 0 background, 1..K the class of that channel, :data:`OTHER`, or :data:`IGNORED`.

    Returns:
        (A+1, K, 3) int64 pixels; last axis: truth is another class, the background, or the strongest class itself.
    """
    num_maps, h, w = maps.shape
    height, width = truth.shape
    num_present = num_maps - num_alphas
    histogram = np.zeros((num_alphas + 1) * num_present * 3, np.int64)
    top, bottom, weight_y = _taps(height, h)
    left, right, weight_x = _taps(width, w)
    wide = np.empty((2, num_maps, width), np.float32)  # two rows of the grid at the pixels' x; row r lies at r % 2
    at = np.full(2, -1, np.int64)
    best, channel, losses = np.empty(width, np.float32), np.empty(width, np.int32), np.empty(width, np.int32)
    for y in range(height):
        for row in (top[y], bottom[y]):
            if at[row % 2] != row:
                at[row % 2] = row
                for m in range(num_maps):
                    values, out = maps[m, row], wide[row % 2, m]
                    for x in range(width):
                        out[x] = (_ONE - weight_x[x]) * values[left[x]] + weight_x[x] * values[right[x]]
        upper, lower = wide[top[y] % 2], wide[bottom[y] % 2]
        q = weight_y[y]
        p = _ONE - q
        for x in range(width):
            best[x] = p * upper[num_alphas, x] + q * lower[num_alphas, x]
            channel[x] = 0
            losses[x] = 0
        for k in range(1, num_present):
            a, b, which = upper[num_alphas + k], lower[num_alphas + k], np.int32(k)
            for x in range(width):
                value = p * a[x] + q * b[x]
                channel[x] = which if value > best[x] else channel[x]
                best[x] = max(best[x], value)
        for alpha in range(num_alphas):
            a, b = upper[alpha], lower[alpha]
            for x in range(width):
                losses[x] += np.int32(p * a[x] + q * b[x] >= best[x])
        for x in range(width):
            true_id = truth[y, x]
            if true_id != IGNORED:
                agrees = 1 if true_id == 0 else (2 if true_id == channel[x] + 1 else 0)
                histogram[(losses[x] * num_present + channel[x]) * 3 + agrees] += 1
    return histogram.reshape(num_alphas + 1, num_present, 3)
