"""Compiled loop that counts pixels for the sweep (numba, no GIL).

Maps are interpolated along x once per row of the grid and along y on the fly, so no map of full size is stored.

Letters: A alphas, K classes present, (H, W) pixels, (h, w) grid cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.compiled import compiled

IGNORED, OTHER = -1, -2
"""Values of a pixel's truth besides background 0 and the classes present 1..K: ignored, a class not present."""

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@compiled
def _taps(size: int, cells: int) -> tuple[Any, Any, Any]:
    """Find the two cells around each of ``size`` pixels, and the weight of the second (align_corners=False)."""
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
    """Compute a histogram of pixels by the number of alphas at which they are background, and the strongest class.

    Args:
        maps: (A+K, h, w) float32, contiguous: the background map of each alpha, ascending, then the classes.
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
    wide = np.empty((2, num_maps, width), np.float32)  # two rows of the grid, interpolated along x; row r is at r % 2
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
