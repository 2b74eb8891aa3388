"""Score pairs of seed alphas by comparing confident cells with the truth, without training an AffinityNet.

mIoU and precision are computed over the pixels of confident cells. Seeds with very few confident cells would score best
but train AffinityNet poorly, so confident cells must also cover a minimum fraction of the true foreground and of the
true background.

Letters: R pairs of alphas, G groups, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.ops.seed_counts import SURE_TRUTH
from engine.ops.sweep import INTERSECTION, PREDICTED
from engine.ops.sweep_scores import miou
from engine.stages.count import Scales
from tune.counts import Counted
from tune.options import SearchOptions
from tune.results import Ranked, judged


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSeed(Ranked):
    """One pair of alphas; scores in [0, 1], mIoU over the pixels of confident cells."""

    alpha_low: float
    alpha_high: float
    precision: float
    """Fraction of the confident pixels with the correct class."""
    sure_foreground: float
    """Fraction of the true foreground in confident cells."""
    sure_background: float
    enough: bool
    """Whether both fractions reach ``seed_coverage``; other pairs rank last."""


def score_seeds(
    counted: Counted,
    scale_sets: Sequence[Scales],
    pairs: Sequence[tuple[float, float]],
    config: SearchOptions,
) -> list[ScoredSeed]:
    """Rank all pairs of alphas: those with enough coverage by mIoU, then the others by mIoU.

    Args:
        counted: Counts of all pairs for the first set of scales, then for the next.
        scale_sets: Sets of scales; the first is the default.
        config: Provides ``seed_coverage``, ``bootstrap``, ``rng_seed`` and the default alphas.
    """
    counts, truth = counted.counts, counted.truth.sum(axis=0)
    sums = counts.sum(axis=1)
    right, given = sums[:, INTERSECTION].sum(axis=-1), sums[:, PREDICTED].sum(axis=-1)
    foreground = sums[:, SURE_TRUTH, 1:].sum(axis=-1) / max(1, truth[1:].sum())
    background = sums[:, SURE_TRUTH, 0] / max(1, truth[0])
    values = np.nan_to_num(miou(counts[:, :, :SURE_TRUTH], counts[:, :, SURE_TRUTH]))
    enough = (foreground >= config.seed_coverage) & (background >= config.seed_coverage)
    own = config.settings.seed
    scored = [
        ScoredSeed(
            scales=scales,
            alpha_low=low,
            alpha_high=high,
            miou=float(values[index]),
            precision=float(right[index] / max(1, given[index])),
            sure_foreground=float(foreground[index]),
            sure_background=float(background[index]),
            enough=bool(enough[index]),
            is_default=(scales, low, high) == (scale_sets[0], own.alpha_low, own.alpha_high),
        )
        for index, (scales, (low, high)) in enumerate((scales, pair) for scales in scale_sets for pair in pairs)
    ]
    order = sorted(range(len(scored)), key=lambda index: (not enough[index], -values[index], index))
    counts = counts[order]
    masks, truths = counts[:, :, :SURE_TRUTH], counts[:, :, SURE_TRUTH]
    draws = {"num_draws": config.bootstrap, "rng_seed": config.rng_seed}
    ranked = judged([scored[index] for index in order], masks, truths, **draws)
    return [replace(one, tied=one.tied and one.enough) for one in ranked]
