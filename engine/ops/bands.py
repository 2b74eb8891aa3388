"""Affinities and random walk on a CPU, with the compiled loops of ``walk_kernels.py``; needs numba.

Letters: D features, N = h * w cells, O offsets of the half plane, K maps, n degree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.ops import walk_kernels as kernels

_CELLS_WORTH_A_THREAD = 2048
"""Minimum number of cells per thread; below this a thread costs more than it saves."""


def summed_differences(cells: Tensor, shifts: Sequence[int]) -> Tensor:
    """``sum_D |f_i - f_(i + shift)|``.

    Args:
        cells: (D, N) float32 on the CPU.
        shifts: (O,) flat distance of each neighbor; 0 skips the offset.

    Returns:
        (O, N) float32, 0 where there is no such neighbor.
    """
    values = np.ascontiguousarray(cells.numpy())
    num_cells, steps = values.shape[1], np.array(shifts, np.int64)
    distances = np.zeros((len(shifts), num_cells), np.float32)
    num_parts = _num_threads(num_cells)
    part = -(-num_cells // num_parts)
    _in_threads(
        lambda start: kernels.add_distances(distances, values, steps, start, min(start + part, num_cells)),
        range(0, num_cells, part),
    )
    return torch.from_numpy(distances)


def chebyshev_walk(maps: Tensor, weights: Tensor, shifts: Sequence[int], coefficients: NDArray[np.float64]) -> Tensor:
    """``sum_k c_sk T_k(T) M`` with ``T = D^-1 W`` for each row s of the coefficients, for walks of several lengths.

    Args:
        maps: (K, N) float32 on the CPU.
        weights: (O, N) float32, the bands of W above its diagonal of ones; 0 where a pair leaves the grid.
        shifts: (O,) flat distance of each neighbor; 0 skips the offset.
        coefficients: (S, n+1).

    Returns:
        (S, K, N) float32.
    """
    num_offsets, num_cells = weights.shape
    steps = np.array(shifts, np.int64)
    margin = int(steps.max(initial=0))
    bands = np.zeros((num_offsets, num_cells + 2 * margin), np.float32)
    bands[:, margin : margin + num_cells] = weights.numpy()
    inverse = kernels.inverse_degrees(bands, steps, num_cells, margin)
    values, factors = np.ascontiguousarray(maps.numpy()), coefficients.astype(np.float32)
    walked = np.empty((len(factors), *values.shape), np.float32)

    def walk(start: int) -> None:
        chosen = slice(start, start + part)
        walked[:, chosen] = kernels.chebyshev_sums(values[chosen], bands, steps, inverse, factors, margin)

    part = -(-len(values) // min(_num_threads(num_cells), len(values)))
    _in_threads(walk, range(0, len(values), part))
    return torch.from_numpy(walked)


def _num_threads(num_cells: int) -> int:
    return max(1, min(torch.get_num_threads(), num_cells // _CELLS_WORTH_A_THREAD))


def _in_threads(call: Callable[[int], None], starts: Sequence[int]) -> None:
    if len(starts) == 1:
        call(starts[0])
        return
    with ThreadPoolExecutor(len(starts)) as threads:
        list(threads.map(call, starts))
