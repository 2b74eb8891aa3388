"""The compiled loops of filtering, against a permutohedral lattice of dictionaries in float64."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("numba")

from engine.ops import mean_field_kernels
from engine.ops.permutohedral import Lattice, build_lattice

Float64 = NDArray[np.float64]


def features_of(colors: NDArray[np.uint8], sigma_px: float, sigma_rgb: float) -> Float64:
    y, x = np.indices(colors.shape[:2])
    pixels = np.stack([x / sigma_px, y / sigma_px], axis=-1)
    return np.concatenate([pixels, colors / sigma_rgb], axis=-1).reshape(-1, 2 + colors.shape[2])


def simplex_of(feature: Float64) -> list[tuple[tuple[int, ...], float]]:
    """The vertices around a point and their weights (Adams, Baek and Davis 2010, section 3)."""
    size = len(feature) + 1
    elevation = np.zeros((size, size - 1))
    for i in range(size - 1):
        elevation[: i + 1, i] = 1
        elevation[i + 1, i] = -(i + 1)
        elevation[:, i] *= np.sqrt(2 / 3) * size / np.sqrt((i + 1) * (i + 2))
    point = elevation @ feature
    nearest = np.rint(point / size) * size
    order = sorted(range(size), key=lambda i: -(point - nearest)[i])
    excess = int(nearest.sum()) // size
    for place in range(abs(excess)):
        # Too high: the coordinates that were rounded up most go down; too low: the other way.
        coordinate = order[size - 1 - place] if excess > 0 else order[place]
        nearest[coordinate] -= size * np.sign(excess)
    rest = (point - nearest) / size
    order = sorted(range(size), key=lambda i: -rest[i])
    falling = rest[order]
    vertices = []
    for remainder in range(size):
        vertex = nearest + remainder
        for coordinate in order[size - remainder :]:
            vertex[coordinate] -= size
        if remainder == 0:
            weight = falling[size - 1] + 1 - falling[0]
        else:
            weight = falling[size - 1 - remainder] - falling[size - remainder]
        vertices.append((tuple(int(value) for value in vertex), float(weight)))
    return vertices


def slow_filter(features: Float64, values: Float64) -> Float64:
    simplices = [simplex_of(feature) for feature in features]
    lattice: dict[tuple[int, ...], float] = defaultdict(float)
    for simplex, value in zip(simplices, values, strict=True):
        for vertex, weight in simplex:
            lattice[vertex] += weight * value
    size = features.shape[1] + 1
    for axis in range(size):
        blurred = {}
        for vertex, value in lattice.items():
            step = np.full(size, -1)
            step[axis] = size - 1
            neighbors = (tuple(int(v) for v in vertex + sign * step) for sign in (1, -1))
            blurred[vertex] = value + 0.5 * sum(lattice.get(neighbor, 0.0) for neighbor in neighbors)
        lattice = blurred
    return np.array([sum(weight * lattice[vertex] for vertex, weight in simplex) for simplex in simplices])


def filtered(lattice: Lattice, values: Float64, factor: float = 0.1) -> Float64:
    """(N,) values after splat, blur and slice, as one step of mean field inference with two labels tells.

    Logits ``2 atanh(v)`` make the probabilities differ by v, and the step adds ``factor * filter(v)`` to the logits.
    """
    share = values / (2 * np.abs(values).max())
    logits = (2 * np.arctanh(share)).astype(np.float32)
    other = build_lattice(
        np.zeros((1, len(values), 3 if lattice.vertices.shape[1] == 3 else 0), np.uint8), sigma_px=3.0
    )
    fine, coarse = (other, lattice) if lattice.vertices.shape[1] == 3 else (lattice, other)
    factors = (np.float32(factor * (fine is lattice)), np.float32(factor * (coarse is lattice)))
    like = (np.float32(0),)
    refined = mean_field_kernels.mean_field(like, logits[None, None], 1, fine.arrays, coarse.arrays, factors)[0]
    gained = np.log(refined[1].astype(np.float64) / refined[0]) - logits
    result: Float64 = gained / factor * (2 * np.abs(values).max())
    return result


def picture(shape: tuple[int, int], num_colors: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(3, 90, (*shape, num_colors)).astype(np.uint8)


@pytest.mark.parametrize(("shape", "num_colors"), [((9, 14), 3), ((17, 21), 0), ((1, 1), 3), ((1, 130), 3)])
def test_filtering_is_what_the_slow_lattice_makes_of_it(shape: tuple[int, int], num_colors: int) -> None:
    colors = picture(shape, num_colors)
    # No feature falls on the border of two simplices, where rounding alone decides.
    lattice = build_lattice(colors, sigma_px=3.137, sigma_rgb=12.713, normalized=False)
    values = np.random.default_rng(1).random(shape[0] * shape[1])
    expected = slow_filter(features_of(colors, 3.137, 12.713), values)
    np.testing.assert_allclose(filtered(lattice, values), expected, rtol=1e-4)


def test_normalized_weights_are_divided_by_the_root_of_the_filtered_ones() -> None:
    colors = picture((11, 13), 3)
    plain = build_lattice(colors, sigma_px=5.0, sigma_rgb=9.0, normalized=False)
    normalized = build_lattice(colors, sigma_px=5.0, sigma_rgb=9.0)
    ones = filtered(plain, np.ones(11 * 13))
    np.testing.assert_allclose(normalized.weights, plain.weights / np.sqrt(ones)[:, None], rtol=1e-5, atol=1e-8)


def test_filtering_is_linear_and_keeps_signs() -> None:
    lattice = build_lattice(picture((12, 12), 3), sigma_px=4.0, sigma_rgb=20.0)
    first, second = np.random.default_rng(3).random((2, 144))
    both = filtered(lattice, 2 * first - second)
    np.testing.assert_allclose(both, 2 * filtered(lattice, first) - filtered(lattice, second), atol=1e-4)
    assert (filtered(lattice, first) > 0).all()


def test_on_a_plane_of_one_color_what_one_pixel_gives_another_it_gets_back() -> None:
    # Every vertex that the blur needs is there in the middle, so the axes commute and the filter is symmetric.
    lattice = build_lattice(np.zeros((40, 40, 0), np.uint8), sigma_px=2.0, normalized=False)
    near, far = 20 * 40 + 20, 18 * 40 + 23
    pulse = np.zeros((2, 1600))
    pulse[0, near] = pulse[1, far] = 1
    there, back = filtered(lattice, pulse[0], 1.0)[far], filtered(lattice, pulse[1], 1.0)[near]
    assert there > 0.01
    np.testing.assert_allclose(there, back, rtol=1e-4)
