"""The slices that the search cuts its space into."""

from __future__ import annotations

import pytest

from engine.config import CrfConfig, SeedConfig
from engine.errors import ConfigError
from tune.space import crfs_of, grid_slices, pairs_of, random_slices, scales_of

SCALES = (1.0,)


def test_grid_holds_every_combination_and_leaves_out_the_walk_once() -> None:
    slices = grid_slices([SCALES], (2.0, 1.0), (8.0, 4.0), (0, 16, 64))
    found = [(part.beta, alpha, steps) for part in slices for alpha in part.alphas for steps in part.steps]
    assert len(found) == len(set(found)) == 2 * (3 + 2)
    assert [part.steps for part in slices] == [(0, 16, 64), (16, 64)]
    assert [part.steps for part in grid_slices([SCALES, (1.0, 2.0)], (2.0,), (8.0, 4.0), (0,))] == [(0,), (0,)]
    assert len(grid_slices([SCALES], (1.0,), (4.0, 8.0), (0,))) == 1


def test_random_slices_lie_in_the_ranges_and_depend_on_the_seed_alone() -> None:
    first = random_slices([SCALES, (0.5, 2.0)], (0.5, 1, 2, 4), (2, 16), (8, 512), num_betas=20, rng_seed=3)
    assert first == random_slices([SCALES, (0.5, 2.0)], (0.5, 1, 2, 4), (2, 16), (8, 512), num_betas=20, rng_seed=3)
    assert first != random_slices([SCALES, (0.5, 2.0)], (0.5, 1, 2, 4), (2, 16), (8, 512), num_betas=20, rng_seed=4)
    assert len(first) == 20
    assert {part.scales for part in first} == {SCALES, (0.5, 2.0)}
    for part in first:
        assert 2 <= part.beta <= 16
        assert all(0.5 <= alpha <= 4 for alpha in part.alphas)
        assert all(8 <= steps <= 512 for steps in part.steps)


def test_crfs_are_every_combination_after_the_one_to_start_from_or_a_draw_of_them() -> None:
    start = CrfConfig(bilateral_weight=4.0)
    texts = ["bilateral-weight=4,10", "bilateral_sigma_px=30,80", "num-iterations=5,10"]
    found = crfs_of(start, texts, num_draws=0, rng_seed=0)
    assert found[0] == start
    assert len(found) == len(set(found)) == 2 * 2 * 2
    assert {crf.num_iterations for crf in found} == {5, 10}
    drawn = crfs_of(start, texts, num_draws=3, rng_seed=1)
    assert drawn[0] == start
    assert len(drawn) == 4
    assert set(drawn) < set(found)
    assert crfs_of(start, (), num_draws=0, rng_seed=0) == [start]


@pytest.mark.parametrize("text", ["weight=4", "bilateral-weight", "bilateral-weight=a,b", "bilateral-sigma-px=0,3"])
def test_constant_of_the_dcrf_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^crf_values"):
        crfs_of(CrfConfig(), [text], num_draws=0, rng_seed=0)


def test_scales_are_numbers_joined_by_commas() -> None:
    assert scales_of("0.5,1,2") == (0.5, 1.0, 2.0)
    with pytest.raises(ConfigError, match=r"^cam_scales"):
        scales_of("0.5;1")


def test_pairs_are_those_that_make_sense_and_the_default() -> None:
    assert pairs_of((1.0, 4.0), (2.0, 8.0), SeedConfig()) == ((1.0, 2.0), (1.0, 8.0), (1.2, 5.0), (4.0, 8.0))
