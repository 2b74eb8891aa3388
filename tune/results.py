"""From the counts of all passes to ranked configurations with mIoU, interval and cross-validation.

Letters: R configurations, G groups of images, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.config import CrfConfig, MapKind, MapsConfig, Settings
from engine.ops.sweep_scores import best_without_folds, bootstrap, cross_validated, intervals, iou, miou, tied_with
from engine.stages.count import NO_CRF, Scales, Slice
from tune.counts import Counted

Walk = tuple[Scales, float, float, int]
"""Scales, alpha, beta and number of steps; beta is 0 without a walk, where it has no effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One configuration with its counts."""

    alpha: float
    beta: float
    num_steps: int
    scales: Scales
    crf: CrfConfig
    miou: float
    num_images: int
    complete: bool
    """Counted on all images, not stopped early."""
    counts: NDArray[np.int64]
    """(G, 2, C+1)."""
    truth: NDArray[np.int64]
    """(G, C+1)."""
    low: float | None = None
    high: float | None = None
    tied: bool = False
    """Not distinguishable from the best."""

    @property
    def with_crf(self) -> bool:
        """Whether there is a dense CRF at all."""
        return self.crf.num_iterations > 0

    @property
    def walk(self) -> Walk:
        """All that makes the masks but the dCRF."""
        return self.scales, self.alpha, self.beta if self.num_steps else 0.0, self.num_steps

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C+1,) of each class, background first."""
        return iou(self.counts.sum(axis=0), self.truth.sum(axis=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Default:
    """The settings that the search starts from."""

    settings: Settings
    kind: MapKind
    """Of the network that gives the maps."""

    @property
    def maps(self) -> MapsConfig:
        """How its maps are computed and walked."""
        return self.settings.maps_of(self.kind)

    def is_(self, one: Scored) -> bool:
        """Whether a configuration has these settings, with the dCRF or without."""
        walk = self.maps.walk
        beta = walk.beta if walk.num_steps else 0.0
        own = self.maps.inference.scales, walk.alpha, beta, walk.num_steps
        return one.walk == own and one.crf in (NO_CRF, self.settings.crf)


def collect(counted: Sequence[tuple[Sequence[Slice], Counted]], *, num_images: int) -> list[Scored]:
    """Every configuration that was counted, the best first, each once.

    Args:
        counted: slices and what one pass has counted of them.
        num_images: of a complete pass.
    """
    found: dict[tuple[Walk, CrfConfig], Scored] = {}
    for slices, sums in counted:
        if not sums.num_images:
            continue
        names = [(part, steps, alpha) for part in slices for steps in part.steps for alpha in part.alphas]
        for index, ((part, num_steps, alpha), value) in enumerate(
            zip(names, miou(sums.counts, sums.truth), strict=True)
        ):
            scored = Scored(
                alpha=alpha,
                beta=part.beta,
                num_steps=num_steps,
                scales=part.scales,
                crf=part.crf,
                miou=float(value),
                num_images=sums.num_images,
                complete=sums.num_images == num_images,
                counts=sums.counts[index],
                truth=sums.truth,
            )
            earlier = found.get((scored.walk, scored.crf))
            if earlier is None or earlier.num_images < scored.num_images:
                found[(scored.walk, scored.crf)] = scored
    return sorted(found.values(), key=lambda one: (one.complete, one.miou), reverse=True)


def judged(ranked: Sequence[Scored], *, num_draws: int, rng_seed: int) -> list[Scored]:
    """The same with interval and ``tied``; those that were stopped early have neither.

    Args:
        ranked: of :func:`collect`.
        num_draws: of the bootstrap; 0 leaves it out.
    """
    complete = [one for one in ranked if one.complete]
    if not complete or num_draws == 0:
        return list(ranked)
    counts = np.stack([one.counts for one in complete])
    drawn = bootstrap(counts, complete[0].truth, num_draws=num_draws, rng_seed=rng_seed)
    marked = [
        replace(one, low=float(low), high=float(high), tied=bool(same))
        for one, (low, high), same in zip(complete, intervals(drawn), tied_with(0, drawn), strict=True)
    ]
    return marked + [one for one in ranked if not one.complete]


def validated(scored: Sequence[Scored], *, num_folds: int, allowed: Sequence[Collection[Walk]] = ()) -> float | None:
    """The cross-validated mIoU of a search over these; None without folds, or with fewer images than folds.

    Args:
        allowed: for each fold what it may choose from; all by default.
    """
    complete = [one for one in scored if one.complete]
    if not _can_fold(complete, num_folds):
        return None
    candidates = np.array([[one.walk in some for one in complete] for some in allowed]) if allowed else None
    if candidates is not None and not candidates.any(axis=1).all():
        return None
    counts = np.stack([one.counts for one in complete])
    return cross_validated(counts, complete[0].truth, num_folds=num_folds, candidates=candidates)


def short_lists(ranked: Sequence[Scored], *, most: int, num_folds: int) -> list[list[Scored]]:
    """The best few on all images; then, for each fold, the best few on the other folds.

    Args:
        ranked: of :func:`collect`.
        most: length of a list.
        num_folds: 0 or too many gives the first list alone.
    """
    complete = [one for one in ranked if one.complete]
    lists = [complete[:most]]
    if _can_fold(complete, num_folds):
        counts = np.stack([one.counts for one in complete])
        chosen = best_without_folds(counts, complete[0].truth, num_folds=num_folds, most=most)
        lists += [[one for one, takes in zip(complete, row, strict=True) if takes] for row in chosen]
    return lists


def _can_fold(complete: Sequence[Scored], num_folds: int) -> bool:
    return num_folds >= 2 and bool(complete) and len(complete[0].truth) >= num_folds


def on_edge(best: Scored, ranked: Sequence[Scored]) -> dict[str, str]:
    """Which values of the best are the least or the greatest tried, so that better ones may lie beyond.

    Returns:
        ``alpha``, ``beta``, ``num_steps`` to ``smallest`` or ``largest``.
    """
    tried: dict[str, tuple[float, set[float]]] = {
        "alpha": (best.alpha, {one.alpha for one in ranked}),
        "beta": (best.beta, {one.beta for one in ranked if one.num_steps} if best.num_steps else set()),
        "num_steps": (best.num_steps, {float(one.num_steps) for one in ranked}),
    }
    edges: dict[str, str] = {}
    for name, (value, values) in tried.items():
        if len(values) > 1 and value == max(values):
            edges[name] = "largest"
        elif len(values) > 1 and value == min(values) and value > 0:
            edges[name] = "smallest"
    return edges
