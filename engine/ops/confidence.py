"""Predict the IoU of a mask from its maps, without truth.

Source: our own. A logistic regression on five features of the walked maps and the mask, fitted once to the true IoU of
photographs (``experiments/confidence.py`` fits and cross-validates it; docs/decisions.md has the figures). A scale and
an offset calibrate it for other networks and data: see :func:`recalibrated`.

Letters: K classes present, (H, W) pixels, n images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURE_NAMES = ("stability", "margin", "tags", "border", "edges")
"""The features of :func:`quality_features`, in order."""
WEIGHTS = (0.3482, 1.519, -0.7923, -1.319, 25.17)
"""Weights of the features in the logistic regression."""
INTERCEPT = -0.2582
LEVELS = {"cam": (1.0, 0.0), "segmentation": (0.92, -0.44)}
"""Scale and offset of the logit by kind of network: a segmentation network is more confident than a classifier. They
apply with and without a walk. Fitted to 437 photographs."""

_SIDE = 96
"""Sample points per side: enough for averages, at a fraction of the cost of every pixel."""
_SMALLEST = 0.01
"""IoUs and probabilities are clipped to this distance from 0 and 1, where the logit is infinite."""

Floats = NDArray[np.floating[Any]]


def quality_features(walked: Floats, sharpened: Floats) -> NDArray[np.float64]:
    """Compute the features from which the IoU of a mask is predicted.

    ``stability``: logit of the mean IoU between the mask and the mask with half the background score, as with another
    alpha; an object whose outline depends on alpha is uncertain. ``margin``: mean difference between the highest and
    second-highest score on the objects of the mask. ``tags``: log K; with more classes, more are confused with each
    other. ``border``: fraction of the image border that is object. ``edges``: fraction of neighboring points with
    different classes.

    Args:
        walked: (K+1, H, W) float that sum to 1 over the channels, before the dCRF, which makes right and wrong
            pixels equally confident; K is 1 or more.
        sharpened: (K+1, H, W) float whose argmax is the mask.

    Returns:
        (5,) float64 in the order of :data:`FEATURE_NAMES`.
    """
    num_classes = len(walked) - 1
    assert num_classes >= 1
    height, width = walked.shape[1:]
    rows = ((np.arange(_SIDE) + 0.5) * height / _SIDE).astype(np.int64)[:, None]
    columns = ((np.arange(_SIDE) + 0.5) * width / _SIDE).astype(np.int64)[None]
    some = walked[:, rows, columns].astype(np.float32)
    chosen = sharpened[:, rows, columns].argmax(axis=0)
    is_object = chosen > 0

    first_two = np.partition(some, num_classes - 1, axis=0)[num_classes - 1 :]
    lead = first_two[1] - first_two[0]
    before = some.argmax(axis=0)
    some[0] *= 0.5
    border = np.concatenate([is_object[0], is_object[-1], is_object[:, 0], is_object[:, -1]])
    edges = (chosen[1:] != chosen[:-1]).mean() + (chosen[:, 1:] != chosen[:, :-1]).mean()
    return np.array(
        [
            _logit(_agreement(before, some.argmax(axis=0), num_classes)),
            lead[is_object].mean() if is_object.any() else 0.0,
            np.log(num_classes),
            border.mean(),
            edges / 2,
        ]
    )


def expected_iou(features: NDArray[np.float64], *, scale: float = 1.0, offset: float = 0.0) -> float:
    """Predict the IoU of a mask, as defined by :func:`engine.ops.metrics.image_iou`.

    Args:
        features: (5,) of :func:`quality_features`.
        scale: factor applied to the logit, above 0; fitted by :func:`recalibrated`, as is ``offset``.
        offset: added to the logit.

    Returns:
        [0, 1].
    """
    logit = float(np.dot(WEIGHTS, features)) + INTERCEPT
    return float(_sigmoid(np.array(scale * logit + offset)))


def recalibrated(confidences: Floats, ious: Floats, *, scale: float, offset: float) -> tuple[float, float]:
    """Fit scale and offset so that confidences match the true IoUs.

    Two parameters need only a few dozen images with truth and keep the ranking of the masks.

    Args:
        confidences: (n,) in [0, 1].
        ious: (n,) true IoUs in [0, 1].
        scale: the scale that the confidences were computed with.
        offset: the offset that the confidences were computed with.

    Returns:
        The new scale, at least 0.05, and offset.
    """
    logits = (_logits(confidences) - offset) / scale
    slope, shift = fit_logistic(logits[:, None], ious, ridge=1e-4)
    return max(float(slope), 0.05), float(shift)


def fit_logistic(features: NDArray[np.float64], targets: Floats, *, ridge: float = 3e-3) -> NDArray[np.float64]:
    """Fit a logistic regression to fractions by Newton's method.

    Args:
        features: (n, F), in any units.
        targets: (n,) in [0, 1].
        ridge: L2 penalty per sample on the coefficients of the standardized features.

    Returns:
        (F+1,) coefficients of ``features``, then the intercept.
    """
    center, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    inputs = np.column_stack([(features - center) / spread, np.ones(len(features))])
    penalty = np.diag([ridge * len(features)] * features.shape[1] + [1e-9])
    weights = np.zeros(inputs.shape[1])
    for _ in range(25):
        fitted = _sigmoid(inputs @ weights)
        slope = fitted * (1 - fitted) + 1e-6
        gradient = inputs.T @ (targets - fitted) - penalty @ weights
        weights += np.linalg.solve(inputs.T @ (inputs * slope[:, None]) + penalty, gradient)
    return np.append(weights[:-1] / spread, weights[-1] - (weights[:-1] * center / spread).sum())


def _agreement(first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]], num_classes: int) -> float:
    """Mean IoU over background and the K classes; a class in neither counts as 0, because its tag was not found."""
    size = num_classes + 1
    joint = np.bincount(first.ravel() * size + second.ravel(), minlength=size * size).reshape(size, size)
    same = np.diagonal(joint)
    union = joint.sum(axis=0) + joint.sum(axis=1) - same
    return float((same / np.maximum(union, 1)).mean())


def _logit(value: float) -> float:
    return float(_logits(np.array(value)))


def _logits(values: Floats) -> NDArray[np.float64]:
    inside = np.clip(np.asarray(values, np.float64), _SMALLEST, 1 - _SMALLEST)
    logits: NDArray[np.float64] = np.log(inside / (1 - inside))
    return logits


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    fractions: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return fractions
