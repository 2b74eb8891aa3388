"""Compute the mIoU of many configurations from counts, with bootstrap intervals over groups and cross-validation.

Letters: R configurations, G groups, C classes, B draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.metrics import class_iou, mean_over_classes
from engine.ops.sweep import INTERSECTION, PREDICTED

COVERAGE = (2.5, 97.5)
"""Percentiles of the bootstrap draws that bound an interval."""
_BLOCK = 64

Floats = NDArray[np.float64]


def iou(counts: NDArray[Any], truth: NDArray[Any]) -> Floats:
    """Compute the IoU of each class.

    Args:
        counts: (..., 2, C+1) pixels by intersection and prediction.
        truth: (..., C+1) pixels of each class in the truth.

    Returns:
        (..., C+1) float64 in [0, 1]; NaN for a class in neither truth nor masks.
    """
    return class_iou(counts[..., INTERSECTION, :], counts[..., PREDICTED, :], truth)


def miou(counts: NDArray[Any], truth: NDArray[Any]) -> Floats:
    """Compute the mIoU over all groups.

    Args:
        counts: (R, G, 2, C+1).
        truth: (G, C+1), or (R, G, C+1) where each configuration has its own.

    Returns:
        (R,) float64.
    """
    return mean_over_classes(iou(counts.sum(axis=1), truth.sum(axis=-2)))


def bootstrap(counts: NDArray[Any], truth: NDArray[Any], *, num_draws: int, rng_seed: int) -> Floats:
    """Compute the mIoU over groups drawn with replacement; all configurations share the draws, so they are comparable.

    Args:
        counts: (R, G, 2, C+1).
        truth: (G, C+1), or (R, G, C+1) where each configuration has its own.

    Returns:
        (R, B) float64.
    """
    num_groups = counts.shape[1]
    rng = np.random.default_rng(rng_seed)
    weights = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_draws).astype(np.float64)
    drawn = np.empty((len(counts), num_draws))
    for start in range(0, len(counts), _BLOCK):
        block = counts[start : start + _BLOCK]
        own_truth = truth[None] if truth.ndim == 2 else truth[start : start + _BLOCK]
        totals, drawn_truth = _totals(weights, block), _totals(weights, own_truth)
        drawn[start : start + _BLOCK] = mean_over_classes(iou(totals, drawn_truth)).T
    return drawn


def _totals(weights: Floats, counts: NDArray[Any]) -> Floats:
    # (B, G) draws of counts (R, G, ...): (B, R, ...)
    by_group = np.moveaxis(counts, 1, 0)
    flat = by_group.reshape(len(by_group), -1).astype(np.float64)
    return (weights @ flat).reshape(len(weights), *by_group.shape[1:])


def intervals(drawn: Floats) -> Floats:
    """Compute the bounds (R, 2) of the interval of each configuration."""
    return np.stack([np.nanpercentile(drawn, percentile, axis=1) for percentile in COVERAGE], axis=1)


def tied_with(best: int, drawn: Floats) -> NDArray[np.bool_]:
    """(R,) bool: whether the interval of the best configuration's lead over each includes zero."""
    lead = drawn[best] - drawn
    return np.asarray(np.nanpercentile(lead, COVERAGE[0], axis=1) <= 0)


def folds_of(num_groups: int, num_folds: int) -> NDArray[np.int64]:
    """(G,) int64: the fold of each group."""
    return np.arange(num_groups) % num_folds


def best_without_folds(counts: NDArray[Any], truth: NDArray[Any], *, num_folds: int, most: int) -> NDArray[np.bool_]:
    """Select, for each fold, the configurations that are best on the other folds.

    Args:
        counts: (R, G, 2, C+1).
        truth: (G, C+1).
        num_folds: F, 2 up to G.
        most: number of configurations per fold.

    Returns:
        (F, R) bool.
    """
    folds = folds_of(len(truth), num_folds)
    chosen = np.zeros((num_folds, len(counts)), dtype=np.bool_)
    for fold in range(num_folds):
        outside = folds != fold
        values = np.nan_to_num(miou(counts[:, outside], truth[outside]), nan=-1.0)
        chosen[fold, np.argsort(-values, kind="stable")[:most]] = True
    return chosen


def cross_validated(
    counts: NDArray[Any], truth: NDArray[Any], *, num_folds: int, candidates: NDArray[np.bool_] | None = None
) -> float:
    """Compute the cross-validated mIoU of a search.

    Each fold is scored with the configuration that is best on the other folds; the summed counts give one mIoU.

    Args:
        counts: (R, G, 2, C+1).
        truth: (G, C+1).
        num_folds: F, 2 up to G.
        candidates: (F, R) bool, configurations to choose from for each fold, at least one each; all by default.
    """
    folds = folds_of(len(truth), num_folds)
    held_out = np.zeros(counts.shape[2:])
    for fold in range(num_folds):
        inside = folds == fold
        values = np.nan_to_num(miou(counts[:, ~inside], truth[~inside]), nan=-1.0)
        if candidates is not None:
            values = np.where(candidates[fold], values, -2.0)
        held_out += counts[int(values.argmax())][inside].sum(axis=0)
    return float(mean_over_classes(iou(held_out, truth.sum(axis=0))))
