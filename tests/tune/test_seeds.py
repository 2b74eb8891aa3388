"""Scores of the seeds' alphas from their counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.ops.seed_counts import SURE_TRUTH
from engine.ops.sweep import INTERSECTION, PREDICTED
from engine.presets import preset
from tune.counts import Counted
from tune.search import Search
from tune.seeds import score_seeds

SCALES = (1.0,)
PAIRS = ((0.5, 2.0), (1.0, 4.0))


def _config(coverage: float, num_draws: int) -> Search:
    return Search(
        data="", out="", truth="", cam="", settings=preset("tiny"), seed_coverage=coverage, bootstrap=num_draws
    )


def _counted() -> Counted:
    """One class, two groups; the first pair is right everywhere but confident about little."""
    counts = np.zeros((2, 2, 3, 2), np.int64)
    truth = np.full((2, 2), 100)
    for index, (sure, right) in enumerate(((10, 10), (80, 60))):
        counts[index, :, PREDICTED] = counts[index, :, SURE_TRUTH] = sure
        counts[index, :, INTERSECTION] = right
    return Counted(num_images=2, counts=counts, truth=truth)


def test_seed_that_covers_too_little_comes_after_a_worse_one() -> None:
    best, other = score_seeds(_counted(), [SCALES], PAIRS, _config(0.4, 50))
    assert (best.alpha_low, best.enough, other.alpha_low, other.enough) == (1.0, True, 0.5, False)
    assert (best.precision, best.sure_foreground, best.sure_background) == (0.75, 0.8, 0.8)
    assert best.miou == 60 / 100
    assert other.miou == 1.0
    assert not other.tied
    first, _ = score_seeds(_counted(), [SCALES], PAIRS, _config(0.1, 0))
    assert (first.alpha_low, first.alpha_high) == PAIRS[0]


def test_pair_of_the_settings_is_the_default() -> None:
    config = _config(0.4, 0)
    seed = replace(config.settings.seed, alpha_low=0.5, alpha_high=2.0)
    config = replace(config, settings=replace(config.settings, seed=seed))
    ranked = score_seeds(_counted(), [SCALES], PAIRS, config)
    assert [(one.alpha_low, one.is_default) for one in ranked] == [(1.0, False), (0.5, True)]
