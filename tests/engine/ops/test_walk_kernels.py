"""The compiled loops of affinities and walk, against plain numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")

from engine.ops.affinity import flat_shifts, half_plane_offsets
from engine.ops.random_walk import chebyshev_coefficients
from engine.ops.walk_kernels import add_distances, chebyshev_sums, inverse_degrees

H, W, RADIUS = 9, 70, 4


def bands_and_weights() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Random bands as the loops take them, shifts, and W as a full matrix; more cells than a block."""
    rng = np.random.default_rng(0)
    offsets = half_plane_offsets(RADIUS)
    shifts = np.array(flat_shifts(offsets, H, W))
    margin, cells = int(shifts.max()), np.arange(H * W)
    bands, full = np.zeros((len(offsets), H * W + 2 * margin), np.float32), np.eye(H * W)
    for band, shift, (dy, dx) in zip(bands, shifts, offsets, strict=True):
        inside = (cells // W + dy < H) & (cells % W + dx >= 0) & (cells % W + dx < W)
        first = cells[inside]
        band[margin + first] = rng.random(len(first)) ** 9
        full[first, first + shift] = full[first + shift, first] = band[margin + first]
    return bands, shifts, full


def test_walks_of_several_lengths_are_powers_of_the_transition() -> None:
    bands, shifts, full = bands_and_weights()
    margin, transition = int(shifts.max()), full / full.sum(axis=1, keepdims=True)
    maps = np.random.default_rng(1).random((2, H * W)).astype(np.float32)
    coefficients = np.zeros((3, 17), np.float32)
    for row, num_steps in zip(coefficients, (0, 5, 16), strict=True):
        row[: num_steps + 1] = chebyshev_coefficients(num_steps)
    inverse = inverse_degrees(bands, shifts, H * W, margin)
    np.testing.assert_allclose(inverse, 1 / full.sum(axis=1), rtol=1e-6)
    walked = chebyshev_sums(maps, bands, shifts, inverse, coefficients, margin)
    for found, num_steps in zip(walked, (0, 5, 16), strict=True):
        expected = np.linalg.matrix_power(transition, num_steps) @ maps.T
        np.testing.assert_allclose(found.T, expected, atol=1e-6)


def test_every_chebyshev_vector_of_a_constant_map_is_the_map_itself() -> None:
    bands, shifts, _ = bands_and_weights()
    margin = int(shifts.max())
    inverse = inverse_degrees(bands, shifts, H * W, margin)
    maps = np.full((1, H * W), 0.3, np.float32)
    walked = chebyshev_sums(maps, bands, shifts, inverse, np.eye(200, dtype=np.float32), margin)
    np.testing.assert_array_equal(walked, np.broadcast_to(maps, walked.shape))


@pytest.mark.parametrize("num_features", [1, 4, 7])
def test_distances_are_added_up_over_the_features(num_features: int) -> None:
    cells = np.random.default_rng(2).standard_normal((num_features, 1300)).astype(np.float32)
    shifts = np.array([1, 37, 0, 1299])
    distances = np.zeros((4, 1300), np.float32)
    for start in (0, 700):
        add_distances(distances, cells, shifts, start, min(start + 700, 1300))
    for found, shift in zip(distances, shifts, strict=True):
        expected = np.zeros(1300)
        if shift:
            expected[:-shift] = np.abs(cells[:, :-shift].astype(np.float64) - cells[:, shift:]).sum(axis=0)
        np.testing.assert_allclose(found, expected, atol=1e-5)
