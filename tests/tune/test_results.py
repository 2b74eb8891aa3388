"""Ranking, judging and the edge of the search space, from counts made by hand."""

from __future__ import annotations

import numpy as np

from engine.config import CrfConfig
from engine.ops.sweep import INTERSECTION, PREDICTED
from engine.stages.count import Slice
from tune.counts import Counted
from tune.results import Scored, collect, judged, of_complete, on_edge, short_lists, validated

SLICE = Slice(scales=(1.0,), beta=2.0, alphas=(1.0, 2.0, 4.0), steps=(0, 8))
DEFAULT = Slice(scales=(1.0,), beta=2.0, alphas=(1.0,), steps=(8,), crf=CrfConfig())


def _counted(*right: int, num_images: int = 4) -> Counted:
    """Masks of one class over four groups, of which so many pixels of 100 are right."""
    counts = np.zeros((len(right), 4, 2, 2), np.int64)
    counts[:, :, PREDICTED] = 100
    counts[:, :, INTERSECTION] = np.array(right)[:, None, None]
    return Counted(num_images=num_images, counts=counts, truth=np.full((4, 2), 100))


def _ranked(*right: int) -> list[Scored]:
    return collect([([SLICE], _counted(*right))], DEFAULT, num_images=4)


def test_configurations_are_ranked_by_miou_and_keep_their_names() -> None:
    ranked = _ranked(10, 20, 30, 40, 90, 50)
    assert [(one.num_steps, one.alpha) for one in ranked[:2]] == [(8, 2.0), (8, 4.0)]
    assert ranked[0].miou == 90 / 110
    assert [one.is_default for one in ranked] == [False] * 2 + [True] + [False] * 3


def test_configuration_counted_twice_is_taken_from_the_pass_with_more_images() -> None:
    stopped = _counted(90, 90, 90, 90, 90, 90, num_images=2)
    ranked = collect([([SLICE], stopped), ([SLICE], _counted(10, 20, 30, 40, 60, 50))], DEFAULT, num_images=4)
    assert len(ranked) == 6
    assert all(one.complete for one in ranked)
    alone = collect([([SLICE], stopped)], DEFAULT, num_images=4)
    assert not any(one.complete for one in alone)
    assert validated(alone, num_folds=2) is None
    assert of_complete(alone)[0] == []


def test_interval_and_tie_are_those_of_the_same_draws() -> None:
    best, second, *_ = judged(*of_complete(_ranked(10, 20, 30, 40, 90, 90)), num_draws=20, rng_seed=0)
    assert best.tied
    assert second.tied
    assert best.low == best.high == best.miou  # all groups are alike


def test_short_lists_hold_the_best_of_all_images_and_of_each_fold() -> None:
    ranked = _ranked(10, 20, 30, 40, 90, 50)
    lists = short_lists(ranked, most=2, num_folds=2)
    assert [[one.walk for one in some] for some in lists] == [[one.walk for one in ranked[:2]]] * 3


def test_edge_is_told_for_the_largest_and_the_smallest_but_not_for_a_walk_of_no_steps() -> None:
    ranked = _ranked(10, 20, 30, 40, 50, 90)
    assert on_edge(ranked[0], ranked) == {"alpha": "largest", "num_steps": "largest"}
    ranked = _ranked(90, 20, 30, 40, 50, 60)
    assert on_edge(ranked[0], ranked) == {"alpha": "smallest"}
    ranked = _ranked(10, 90, 30, 40, 50, 60)
    assert on_edge(ranked[0], ranked) == {}
