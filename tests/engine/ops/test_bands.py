"""Affinities and walk through the compiled loops."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("numba")

from engine.ops.affinity import affinity_planes
from engine.ops.random_walk import refine


@pytest.mark.parametrize(("d", "h", "w"), [(1, 3, 4), (7, 6, 9), (8, 40, 30)])
def test_compiled_loops_and_torch_give_the_same_planes(d: int, h: int, w: int) -> None:
    features = torch.randn(2, d, h, w, generator=torch.Generator().manual_seed(d))
    torch.testing.assert_close(affinity_planes(features, 5), affinity_planes(features.double(), 5).float())


def test_two_threads_walk_as_one() -> None:
    cam, features = torch.rand(3, 50, 60), torch.rand(16, 50, 60)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = refine(cam, features)
        torch.set_num_threads(2)
        assert torch.equal(refine(cam, features), alone)
    finally:
        torch.set_num_threads(before)
