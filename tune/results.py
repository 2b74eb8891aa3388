"""Rank configurations by mIoU from the counts of all passes, with intervals and cross-validation.

Letters: R configurations, G groups of images, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.config import CrfConfig
from engine.ops.sweep_scores import best_without_folds, bootstrap, cross_validated, intervals, iou, miou, tied_with
from engine.stages.count import NO_CRF, Scales, Slice
from tune.counts import Counted

Walk = tuple[Scales, float, float, int]
"""Scales, alpha, beta and number of steps; without a walk, beta has no effect and is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A candidate of a search with its score."""

    scales: Scales
    """Scales of the class maps."""
    miou: float
    low: float | None = None
    """Lower end of the 95 % interval; None if not computed."""
    high: float | None = None
    tied: bool = False
    """Not distinguishable from the best."""
    is_default: bool
    """Whether it has the settings from before the search."""


Item = TypeVar("Item", bound=Ranked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored(Ranked):
    """One configuration with its counts."""

    walk: Walk
    """Everything that determines the masks, except the dCRF."""
    alpha: float
    beta: float
    num_steps: int
    crf: CrfConfig
    num_images: int
    complete: bool
    """Counted on all images, not stopped early."""
    counts: NDArray[np.int64]
    """(G, 2, C+1) pixels."""
    truth: NDArray[np.int64]
    """(G, C+1) pixels."""

    @property
    def with_crf(self) -> bool:
        """Whether the masks go through the dense CRF."""
        return self.crf.num_iterations > 0

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C+1,) IoU of each class, background first."""
        return iou(self.counts.sum(axis=0), self.truth.sum(axis=0))


def collect(counted: Sequence[tuple[Sequence[Slice], Counted]], default: Slice, *, num_images: int) -> list[Scored]:
    """Collect every configuration that was counted, without duplicates, best first.

    Args:
        counted: The slices of each pass, and its counts.
        default: The configuration from before the search, with the dCRF of the masks.
        num_images: Number of images in a complete pass.
    """
    start = _walk(default, default.alphas[0], default.steps[0])
    found: dict[tuple[Walk, CrfConfig], Scored] = {}
    for slices, sums in counted:
        names = [(part, steps, alpha) for part in slices for steps in part.steps for alpha in part.alphas]
        values = miou(sums.counts, sums.truth) if sums.num_images else ()
        for (part, num_steps, alpha), value, counts in zip(names, values, sums.counts, strict=False):
            walk = _walk(part, alpha, num_steps)
            earlier = found.get((walk, part.crf))
            if earlier is not None and earlier.num_images >= sums.num_images:
                continue
            found[(walk, part.crf)] = Scored(
                walk=walk,
                alpha=alpha,
                beta=part.beta,
                num_steps=num_steps,
                scales=part.scales,
                crf=part.crf,
                miou=float(value),
                num_images=sums.num_images,
                complete=sums.num_images == num_images,
                is_default=walk == start and part.crf in (NO_CRF, default.crf),
                counts=counts,
                truth=sums.truth,
            )
    return sorted(found.values(), key=lambda one: (one.complete, one.miou), reverse=True)


def _walk(part: Slice, alpha: float, num_steps: int) -> Walk:
    return part.scales, alpha, part.beta if num_steps else 0.0, num_steps


def judged(
    ranked: Sequence[Item], counts: NDArray[np.int64], truth: NDArray[np.int64], *, num_draws: int, rng_seed: int
) -> list[Item]:
    """Add bootstrap intervals and ``tied`` to candidates.

    Args:
        ranked: The R candidates, best first.
        counts: (R, G, 2, C+1) int64.
        truth: (G, C+1) int64, or (R, G, C+1) if it differs between candidates.
        num_draws: Number of bootstrap samples; 0 returns the candidates unchanged.
    """
    if not ranked or num_draws == 0:
        return list(ranked)
    drawn = bootstrap(counts, truth, num_draws=num_draws, rng_seed=rng_seed)
    return [
        replace(one, low=float(low), high=float(high), tied=bool(same))
        for one, (low, high), same in zip(ranked, intervals(drawn), tied_with(0, drawn), strict=True)
    ]


def of_complete(scored: Sequence[Scored]) -> tuple[list[Scored], NDArray[np.int64], NDArray[np.int64]]:
    """Return the R configurations counted on all images, their counts (R, G, 2, C+1), and the truth (G, C+1)."""
    complete = [one for one in scored if one.complete]
    if not complete:
        return [], np.zeros((0, 0, 2, 1), np.int64), np.zeros((0, 1), np.int64)
    return complete, np.stack([one.counts for one in complete]), complete[0].truth


def validated(scored: Sequence[Scored], *, num_folds: int, allowed: Sequence[Collection[Walk]] = ()) -> float | None:
    """Cross-validate a search over these configurations; None without folds, or with fewer images than folds.

    Args:
        allowed: The configurations that each fold may choose from; all by default.
    """
    complete, counts, truth = of_complete(scored)
    candidates = np.array([[one.walk in some for one in complete] for some in allowed]) if allowed else None
    if not 2 <= num_folds <= len(truth) or (candidates is not None and not candidates.any(axis=1).all()):
        return None
    return cross_validated(counts, truth, num_folds=num_folds, candidates=candidates)


def short_lists(ranked: Sequence[Scored], *, most: int, num_folds: int) -> list[list[Scored]]:
    """List the best configurations on all images; then, for each fold, the best on the other folds.

    Args:
        ranked: Result of :func:`collect`.
        most: Length of each list.
        num_folds: With 0, or more folds than images, only the first list is returned.
    """
    complete, counts, truth = of_complete(ranked)
    lists = [complete[:most]]
    if 2 <= num_folds <= len(truth):
        chosen = best_without_folds(counts, truth, num_folds=num_folds, most=most)
        lists += [[one for one, takes in zip(complete, row, strict=True) if takes] for row in chosen]
    return lists


def on_edge(best: Scored, ranked: Sequence[Scored]) -> dict[str, str]:
    """Find the values of the best configuration that are the smallest or largest tried: better ones may lie beyond.

    Returns:
        Maps ``alpha``, ``beta``, ``num_steps`` to ``smallest`` or ``largest``.
    """
    edges: dict[str, str] = {}
    for name in ("alpha", "beta", "num_steps") if best.num_steps else ("alpha", "num_steps"):
        values = {float(getattr(one, name)) for one in ranked if name != "beta" or one.num_steps}
        value = getattr(best, name)
        if len(values) > 1 and value == max(values):
            edges[name] = "largest"
        elif len(values) > 1 and value == min(values) and value > 0:
            edges[name] = "smallest"
    return edges
