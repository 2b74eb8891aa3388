"""The slices that the search cuts its space into."""

from __future__ import annotations

from tune.space import grid_slices, random_slices, slice_of


def test_grid_holds_every_combination_and_leaves_out_the_walk_once() -> None:
    slices = grid_slices((2.0, 1.0), (8.0, 4.0), (0, 16, 64))
    found = [(part.beta, alpha, steps) for part in slices for alpha in part.alphas for steps in part.steps]
    assert len(found) == len(set(found)) == 2 * (3 + 2)
    assert [part.steps for part in slices] == [(0, 16, 64), (16, 64)]
    assert len(grid_slices((1.0,), (4.0, 8.0), (0,))) == 1


def test_random_slices_lie_in_the_ranges_and_depend_on_the_seed_alone() -> None:
    first = random_slices((0.5, 1, 2, 4), (2, 16), (8, 512), num_betas=20, rng_seed=3)
    assert first == random_slices((0.5, 1, 2, 4), (2, 16), (8, 512), num_betas=20, rng_seed=3)
    assert first != random_slices((0.5, 1, 2, 4), (2, 16), (8, 512), num_betas=20, rng_seed=4)
    assert len(first) == 20
    for part in first:
        assert 2 <= part.beta <= 16
        assert all(0.5 <= alpha <= 4 for alpha in part.alphas)
        assert all(8 <= steps <= 512 for steps in part.steps)


def test_slices_that_differ_have_files_of_their_own() -> None:
    names = {slice_of(beta, alphas, (8,)).name for beta in (1, 2) for alphas in ((1,), (1, 2), (3,))}
    assert len(names) == 6
    assert slice_of(2, (2, 1, 1), (8, 4)).name == slice_of(2, (1, 2), (4, 8)).name
