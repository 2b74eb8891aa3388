"""The counting loop against one that looks at one pixel at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.ops.sweep_kernels import IGNORED, OTHER, count_pixels


@pytest.mark.parametrize("size", [(90, 77), (7, 5), (11, 10), (1, 300)])
def test_pixels_are_counted_as_one_by_one(size: tuple[int, int]) -> None:
    num_alphas, num_present = 3, 2
    generator = torch.Generator().manual_seed(size[0])
    background, _ = torch.rand(num_alphas, 11, 10, generator=generator).sort(dim=0, descending=True)
    maps = torch.cat([background, torch.rand(num_present, 11, 10, generator=generator)])
    truth = np.random.default_rng(0).choice([IGNORED, OTHER, 0, 1, 2], size).astype(np.int16)
    scores = functional.interpolate(maps[None].double(), size, mode="bilinear", align_corners=False)[0]
    slow = np.zeros((num_alphas + 1, num_present, 3), dtype=np.int64)
    for y, x in np.argwhere(truth != IGNORED):
        values = scores[:, y, x].float()
        channel = int(values[num_alphas:].argmax())
        wins = int((values[:num_alphas] >= values[num_alphas:].max()).sum())
        slow[wins, channel, 1 if truth[y, x] == 0 else 2 if truth[y, x] == channel + 1 else 0] += 1
    found = count_pixels(maps.numpy(), num_alphas, truth)
    assert found.sum() == slow.sum() == (truth != IGNORED).sum()
    assert np.abs(found - slow).sum() <= 2  # the last bit may decide at a pixel


def test_tie_goes_to_the_background_and_then_to_the_earlier_class() -> None:
    maps = torch.full((3, 4, 4), 0.5)  # one alpha, two classes
    truth = np.ones((8, 8), dtype=np.int16)
    found = count_pixels(maps.numpy(), 1, truth)
    assert found[1, 0, 2] == found.sum() == truth.size
