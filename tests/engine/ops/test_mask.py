"""Masks from maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ops.mask import class_areas, pseudo_mask, to_probabilities, upsample


def test_upsampling_keeps_the_range_and_a_constant() -> None:
    maps = torch.rand(3, 4, 5)
    maps[1] = 0.25
    large = upsample(maps, (33, 40))
    assert large.shape == (3, 33, 40)
    torch.testing.assert_close(large[1], torch.full((33, 40), 0.25))
    assert large.amin() >= maps.amin() - 1e-6
    assert large.amax() <= maps.amax() + 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 8))
def test_probabilities_sum_to_one_at_every_pixel(channels: int, h: int, w: int) -> None:
    scores = torch.rand(channels, h, w) * (torch.rand(h, w) > 0.3)
    before = scores.clone()
    probabilities = to_probabilities(scores)
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(h, w))
    assert torch.equal(scores, before)


def test_a_pixel_without_any_score_is_background() -> None:
    scores = torch.zeros(3, 1, 2)
    scores[:, 0, 1] = torch.tensor([1.0, 2.0, 1.0])
    assert to_probabilities(scores)[:, 0].t().tolist() == [[1, 0, 0], [0.25, 0.5, 0.25]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_holds_the_id_of_the_likeliest_class(dtype: type[np.uint8] | type[np.uint16]) -> None:
    probabilities = np.array([[[0.6, 0.1, 0.4]], [[0.3, 0.2, 0.4]], [[0.1, 0.7, 0.2]]], np.float32)
    mask = pseudo_mask(probabilities, [9, 4], dtype)
    assert mask.dtype == dtype
    assert mask.tolist() == [[0, 4, 0]]


def test_an_id_that_the_mask_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="300"):
        pseudo_mask(np.ones((2, 1, 1), np.float32), [300])
    with pytest.raises(ValueError, match="must have 3 channels, got 2"):
        pseudo_mask(np.ones((2, 1, 1), np.float32), [3, 4])


def test_areas_are_fractions_in_the_order_of_the_tags() -> None:
    mask = np.array([[0, 7, 7, 2], [0, 0, 7, 7]], np.uint8)
    areas = class_areas(mask, [7, 2, 5])
    assert areas.dtype == np.float32
    assert areas.tolist() == [0.375, 0.5, 0.125, 0.0]
    assert class_areas(np.zeros((2, 2), np.uint8), []).tolist() == [1.0]
