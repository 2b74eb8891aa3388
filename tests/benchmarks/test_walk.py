"""The walks that the engine is compared with are the same walk."""

from __future__ import annotations

import pytest
import torch

from benchmarks import walk
from engine.ops.random_walk import refine


def test_engine_agrees_with_single_steps_in_float64() -> None:
    line = walk.measure(9, num_maps=2, num_steps=16, repeats=1)
    assert line["worst_error"] < 1e-4


@pytest.mark.parametrize("num_steps", [1, 16])
def test_dense_and_sparse_walks_are_the_engines(num_steps: int) -> None:
    cam, features = walk.scene(9, 2)
    differences = walk.differences_of(features)
    transition = differences.to_dense() + torch.eye(81)
    walked = refine(cam, features, num_steps=num_steps)
    torch.testing.assert_close(walk.dense_walk(cam, transition, num_steps), walked, atol=1e-4, rtol=0)
    torch.testing.assert_close(walk.sparse_walk(cam, differences, num_steps=num_steps), walked, atol=1e-4, rtol=0)
