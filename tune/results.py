"""From the counts of all passes to ranked configurations with mIoU, interval and cross-validation.

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
"""Scales, alpha, beta and number of steps; beta is 0 without a walk, where it has no effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """What a search compares, with its score."""

    scales: Scales
    """Of the class maps."""
    miou: float
    low: float | None = None
    """Ends of the 95 % interval; None where it was not computed."""
    high: float | None = None
    tied: bool = False
    """Not distinguishable from the best."""
    is_default: bool
    """What the search starts from."""


Item = TypeVar("Item", bound=Ranked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored(Ranked):
    """One configuration with its counts."""

    walk: Walk
    """All that makes the masks but the dCRF."""
    alpha: float
    beta: float
    num_steps: int
    crf: CrfConfig
    num_images: int
    complete: bool
    """Counted on all images, not stopped early."""
    counts: NDArray[np.int64]
    """(G, 2, C+1)."""
    truth: NDArray[np.int64]
    """(G, C+1)."""

    @property
    def with_crf(self) -> bool:
        """Whether there is a dense CRF at all."""
        return self.crf.num_iterations > 0

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C+1,) of each class, background first."""
        return iou(self.counts.sum(axis=0), self.truth.sum(axis=0))


def collect(counted: Sequence[tuple[Sequence[Slice], Counted]], default: Slice, *, num_images: int) -> list[Scored]:
    """Every configuration that was counted, the best first, each once.

    Args:
        counted: slices and what one pass has counted of them.
        default: the one that the search starts from, with the dCRF of the masks.
        num_images: of a complete pass.
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
    """The same with interval and ``tied``.

    Args:
        ranked: R, the best first.
        counts: (R, G, 2, C+1).
        truth: (G, C+1), or (R, G, C+1) where each has its own.
        num_draws: of the bootstrap; 0 leaves it out.
    """
    if not ranked or num_draws == 0:
        return list(ranked)
    drawn = bootstrap(counts, truth, num_draws=num_draws, rng_seed=rng_seed)
    return [
        replace(one, low=float(low), high=float(high), tied=bool(same))
        for one, (low, high), same in zip(ranked, intervals(drawn), tied_with(0, drawn), strict=True)
    ]


def of_complete(scored: Sequence[Scored]) -> tuple[list[Scored], NDArray[np.int64], NDArray[np.int64]]:
    """The R configurations that were counted on all images, their counts (R, G, 2, C+1), and the truth (G, C+1)."""
    complete = [one for one in scored if one.complete]
    if not complete:
        return [], np.zeros((0, 0, 2, 1), np.int64), np.zeros((0, 1), np.int64)
    return complete, np.stack([one.counts for one in complete]), complete[0].truth


def validated(scored: Sequence[Scored], *, num_folds: int, allowed: Sequence[Collection[Walk]] = ()) -> float | None:
    """The cross-validated mIoU of a search over these; None without folds, or with fewer images than folds.

    Args:
        allowed: for each fold what it may choose from; all by default.
    """
    complete, counts, truth = of_complete(scored)
    candidates = np.array([[one.walk in some for one in complete] for some in allowed]) if allowed else None
    if not 2 <= num_folds <= len(truth) or (candidates is not None and not candidates.any(axis=1).all()):
        return None
    return cross_validated(counts, truth, num_folds=num_folds, candidates=candidates)


def short_lists(ranked: Sequence[Scored], *, most: int, num_folds: int) -> list[list[Scored]]:
    """The best few on all images; then, for each fold, the best few on the other folds.

    Args:
        ranked: of :func:`collect`.
        most: length of a list.
        num_folds: 0 or too many gives the first list alone.
    """
    complete, counts, truth = of_complete(ranked)
    lists = [complete[:most]]
    if 2 <= num_folds <= len(truth):
        chosen = best_without_folds(counts, truth, num_folds=num_folds, most=most)
        lists += [[one for one, takes in zip(complete, row, strict=True) if takes] for row in chosen]
    return lists


def on_edge(best: Scored, ranked: Sequence[Scored]) -> dict[str, str]:
    """Which values of the best are the least or the greatest tried, so that better ones may lie beyond.

    Returns:
        ``alpha``, ``beta``, ``num_steps`` to ``smallest`` or ``largest``.
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
