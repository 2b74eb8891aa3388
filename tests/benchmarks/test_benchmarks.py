"""That the benchmarks compare like with like; how fast anything is, no test says."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks import authors, walk
from engine.ops.random_walk import refine


def test_the_walk_is_measured_against_the_same_walk() -> None:
    line = walk.measure(9, num_maps=2, num_steps=16, repeats=1)
    assert line["worst_error"] < 1e-4
    cam, features = walk.scene(9, 2)
    for num_steps in (1, 16):
        dense = walk.dense_walk(cam, walk._transition(features).to_dense(), num_steps)
        torch.testing.assert_close(dense, refine(cam, features, num_steps=num_steps), atol=1e-4, rtol=0)


def test_the_authors_walk_gathers_the_same_affinities() -> None:
    cam, features = walk.scene(9, 2)
    theirs = authors._dense_walk(cam, features, radius=5, beta=8.0, num_steps=64)
    torch.testing.assert_close(theirs, refine(cam, features, num_steps=64), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("arguments", "status"), [((), 2), (("swim",), 2), (("--help",), 0)])
def test_without_a_name_the_benchmarks_are_listed(arguments: tuple[str, ...], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status
    assert "pipeline" in done.stderr
