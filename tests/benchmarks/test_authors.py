"""The authors' way gives the engine's result."""

from __future__ import annotations

import torch

from benchmarks import authors, walk
from engine.ops.random_walk import refine


def test_authors_walk_gathers_the_same_affinities() -> None:
    cam, features = walk.scene(9, 2)
    theirs = authors.authors_walk(cam, features, radius=5, beta=8.0, num_steps=64)
    torch.testing.assert_close(theirs, refine(cam, features, num_steps=64), atol=1e-4, rtol=0)
