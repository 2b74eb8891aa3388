"""How good a mask is expected to be, from what its maps say about it: no truth is needed to use it, only to fit it.

Source: our own. Five signs are read off the walked maps and the mask, and a logistic regression, fitted once to the
true IoU of photographs, turns them into the IoU to expect (``experiments/confidence.py`` fits and cross-validates it;
docs/decisions.md has the figures). Two numbers bring it to other networks and data: see :func:`recalibrated`.

Letters: K classes present, (H, W) pixels, n images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURE_NAMES = ("stability", "margin", "tags", "border", "edges")
"""What :func:`quality_features` gives, in order."""
WEIGHTS = (0.3482, 1.519, -0.7923, -1.319, 25.17)
"""Of the features."""
INTERCEPT = -0.2582
LEVELS = {"cam": (1.0, 0.0), "segmentation": (0.92, -0.44)}
"""Scale and offset of the logit for masks that were made of the maps of such a network, walked or, for its own masks,
not; a segmentation network is surer of itself than a classifier. Fitted to 437 photographs."""

_SIDE = 96
"""Points a side that are looked at: enough for an average, and a fraction of the pixels of a photograph."""
_SMALLEST = 0.01
"""IoUs and probabilities are kept this far from 0 and 1, where a logit has no end."""

Floats = NDArray[np.floating[Any]]


def quality_features(walked: Floats, sharpened: Floats) -> NDArray[np.float64]:
    """The signs of a good or bad mask.

    ``stability``: mean IoU, as a logit, between what wins now and what would with half as much background, as another
    alpha gives: an object whose rim depends on it is a guess. ``margin``: mean lead of the first class over the second
    where the mask has an object. ``tags``: log K; the classes of an image are taken for each other. ``border``: share
    of the image's border that is object. ``edges``: share of neighbouring points with different classes.

    Args:
        walked: (K+1, H, W) float that sum to 1 over the channels, after the walk and before the dCRF, which is sure of
            every pixel, right or wrong; K is 1 or more.
        sharpened: (K+1, H, W) float whose greatest channel is the mask.

    Returns:
        (5,) float64 by :data:`FEATURE_NAMES`.
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
    """The IoU to expect of a mask, as :func:`engine.ops.metrics.image_iou` counts it.

    Args:
        features: (5,) of :func:`quality_features`.
        scale: of the logit, above 0; with ``offset`` from :func:`recalibrated`, if there was truth to fit them to.
        offset: added to the logit.

    Returns:
        [0, 1].
    """
    logit = float(np.dot(WEIGHTS, features)) + INTERCEPT
    return float(_sigmoid(np.array(scale * logit + offset)))


def recalibrated(confidences: Floats, ious: Floats, *, scale: float, offset: float) -> tuple[float, float]:
    """The scale and offset with which confidences would have met the true IoUs.

    Two numbers, so that a few dozen images with truth are enough, and no mask changes its place among the others.

    Args:
        confidences: (n,) in [0, 1], made with ``scale`` and ``offset``.
        ious: (n,) in [0, 1], true.
        scale: as the confidences were made.
        offset: as the confidences were made.

    Returns:
        scale, not below 0.05, and offset to make them with.
    """
    logits = (_logits(confidences) - offset) / scale
    slope, shift = fit_logistic(logits[:, None], ious, ridge=1e-4)
    return max(float(slope), 0.05), float(shift)


def fit_logistic(features: NDArray[np.float64], targets: Floats, *, ridge: float = 3e-3) -> NDArray[np.float64]:
    """Logistic regression of fractions, by Newton's method.

    Args:
        features: (n, F) of any scale.
        targets: (n,) in [0, 1].
        ridge: weight of the squared coefficients of the standardised features, a sample.

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
    """Mean IoU over background and the K classes; one that is in neither counts as 0: its tag found nothing."""
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
