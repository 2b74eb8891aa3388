"""Maps along an attention."""

from __future__ import annotations

import pytest
import torch

from engine.ops.attention import attention_transition, spread_along_attention


def _attention(num_cells: int = 12) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, num_cells, num_cells, generator=rng).softmax(dim=-1)


def test_transition_is_symmetric_and_nearly_doubly_stochastic() -> None:
    transition = attention_transition(_attention())
    torch.testing.assert_close(transition, transition.transpose(1, 2))
    for dim in (1, 2):
        torch.testing.assert_close(transition.sum(dim=dim), torch.ones(2, 12), rtol=0, atol=0.02)


def test_steps_are_those_of_a_loop_over_cells() -> None:
    maps, attention = torch.rand(2, 3, 3, 4), _attention()
    transition = attention_transition(attention)
    expected = maps.clone()
    for _ in range(2):
        before = expected.flatten(2).clone()
        for image in range(2):
            for cell in range(12):
                gathered = sum(transition[image, cell, other] * before[image, :, other] for other in range(12))
                expected[image, :, cell // 4, cell % 4] = gathered
    torch.testing.assert_close(spread_along_attention(maps, attention, num_steps=2), expected)
    assert spread_along_attention(maps, attention, num_steps=0) is maps


def test_cells_that_look_only_at_each_other_share_their_maps_and_no_others() -> None:
    attention = torch.zeros(1, 4, 4)
    attention[0, :2, :2] = attention[0, 2:, 2:] = 0.5
    maps = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(
        spread_along_attention(maps, attention, num_steps=3), torch.tensor([[[[0.5, 0.5, 0.0, 0.0]]]])
    )


def test_an_attention_of_nothing_gives_zeros_and_no_nan() -> None:
    spread = spread_along_attention(torch.rand(1, 2, 2, 2), torch.zeros(1, 4, 4), num_steps=1)
    assert torch.equal(spread, torch.zeros(1, 2, 2, 2))


def test_attention_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"attention must be \(2, 6, 6\) for these maps, got \(2, 12, 12\)"):
        spread_along_attention(torch.rand(2, 1, 2, 3), _attention(), num_steps=1)
