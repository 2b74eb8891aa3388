"""Pixel-adaptive refinement against the slow loop over pixels, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.ops.pamr import neighbour_weights, pamr

DILATIONS = (1, 3)


def _slow(image: NDArray[np.float64], maps: NDArray[np.float64], num_iterations: int) -> NDArray[np.float64]:
    """One image (3, H, W) and its maps (K, H, W), pixel by pixel, as the authors describe it."""
    _, height, width = image.shape

    def place(y: int, x: int) -> tuple[int, int]:
        return min(max(y, 0), height - 1), min(max(x, 0), width - 1)

    near = [(dy * d, dx * d) for d in DILATIONS for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    others = [step for step in near if step != (0, 0)]
    for _ in range(num_iterations):
        refined = np.zeros_like(maps)
        for y in range(height):
            for x in range(width):
                seen = np.array([[image[c][place(y + dy, x + dx)] for dy, dx in near] for c in range(3)])
                unit = 1e-8 + 0.1 * seen.std(axis=1, ddof=1)
                scores = np.array(
                    [
                        -np.mean([abs(image[c, y, x] - image[c][place(y + dy, x + dx)]) / unit[c] for c in range(3)])
                        for dy, dx in others
                    ]
                )
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                for weight, (dy, dx) in zip(weights, others, strict=True):
                    row, column = place(y + dy, x + dx)
                    refined[:, y, x] += weight * maps[:, row, column]
        maps = refined
    return maps


@pytest.mark.parametrize("size", [(6, 9), (1, 1), (2, 8)])
def test_it_is_what_the_slow_loop_gives(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images, maps = rng.random((2, 3, *size)), rng.random((2, 2, *size))
    refined = pamr(torch.from_numpy(images), torch.from_numpy(maps), num_iterations=3, dilations=DILATIONS)
    for number in range(2):
        np.testing.assert_allclose(refined[number].numpy(), _slow(images[number], maps[number], 3), atol=1e-10)


def test_probabilities_stay_probabilities() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 40, 30, generator=rng) * 255
    maps = torch.rand(2, 4, 40, 30, generator=rng).softmax(dim=1)
    assert torch.allclose(neighbour_weights(images).sum(dim=1), torch.ones(2, 40, 30), atol=1e-5)
    refined = pamr(images, maps)
    assert torch.allclose(refined.sum(dim=1), torch.ones(2, 40, 30), atol=1e-5)
    assert float(refined.min()) >= 0


def test_the_unit_of_the_colours_does_not_matter() -> None:
    rng = torch.Generator().manual_seed(0)
    images, maps = torch.rand(1, 3, 20, 20, generator=rng), torch.rand(1, 2, 20, 20, generator=rng)
    torch.testing.assert_close(pamr(images, maps), pamr(images * 255, maps), rtol=1e-4, atol=1e-5)


def test_a_map_fills_its_object_and_stops_at_the_edge() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16:] = 1.0
    maps = torch.full((1, 1, 32, 32), 0.5)
    maps[..., 4:28, :12] = 1.0  # most of the left half
    maps[..., 20:] = 0.0
    refined = pamr(images, maps)[0, 0]
    assert float(refined[16, 14]) > 0.65
    assert float(refined[16, 17]) < 0.2


def test_a_picture_of_one_colour_blurs_and_gives_no_nan() -> None:
    maps = torch.rand(1, 2, 9, 9)
    refined = pamr(torch.full((1, 3, 9, 9), 7.0), maps)
    assert bool(torch.isfinite(refined).all())
    assert float(refined.std()) < float(maps.std())


def test_no_passes_change_nothing_and_wrong_arguments_are_named() -> None:
    images, maps = torch.rand(1, 3, 5, 5), torch.rand(1, 2, 5, 5)
    assert pamr(images, maps, num_iterations=0) is maps
    with pytest.raises(ValueError, match=r"\(1, 2, 5, 4\); allowed"):
        pamr(images, maps[..., :4])
    with pytest.raises(ValueError, match="num_iterations is -1"):
        pamr(images, maps, num_iterations=-1)
    with pytest.raises(ValueError, match=r"dilations is \(0,\)"):
        pamr(images, maps, dilations=(0,))


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    images, maps = torch.rand(4, 3, 64, 48) * 255, torch.rand(4, 3, 64, 48)
    torch.testing.assert_close(pamr(images.cuda(), maps.cuda()).cpu(), pamr(images, maps), rtol=1e-4, atol=1e-5)
