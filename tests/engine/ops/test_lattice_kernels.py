"""The compiled loops that build the permutohedral lattice."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")

from engine.ops.permutohedral import build_lattice


def picture(shape: tuple[int, int], num_colors: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(3, 90, (*shape, num_colors)).astype(np.uint8)


def test_the_weights_of_a_pixel_are_barycentric() -> None:
    lattice = build_lattice(picture((20, 30), 3), sigma_px=5.0, sigma_rgb=9.0, normalized=False)
    np.testing.assert_allclose(lattice.weights.sum(axis=1), 1, atol=1e-5)
    assert lattice.weights.min() > -1e-5
    assert lattice.weights.max() < 1 + 1e-5
    assert lattice.vertices.min() == 1
    assert lattice.vertices.max() == lattice.num_vertices - 1


def test_the_blur_visits_a_vertex_at_most_once_an_axis() -> None:
    lattice = build_lattice(picture((25, 25), 3), sigma_px=6.0, sigma_rgb=30.0)
    visits = np.bincount(lattice.chains, minlength=lattice.num_vertices)[1:]
    assert visits.max() <= 6
    assert lattice.chains[0] == lattice.chains[-1] == 0


def test_many_different_vertices_outgrow_the_first_tables() -> None:
    # Every pixel its own simplex: some 100 000 vertices, far more than the tables' first size.
    colors = np.random.default_rng(5).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    lattice = build_lattice(colors, sigma_px=3.0, sigma_rgb=3.0, normalized=False)
    assert lattice.num_vertices > 80_000
    simplices = np.sort(lattice.vertices, axis=1)
    assert (np.diff(simplices, axis=1) > 0).all()
    np.testing.assert_allclose(lattice.weights.sum(axis=1), 1, atol=1e-5)
