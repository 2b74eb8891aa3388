"""The cross-validated fit of the confidence."""

from __future__ import annotations

import numpy as np
import pytest

from engine.ops.confidence import FEATURE_NAMES
from experiments import confidence


def test_folds_depend_on_the_id_alone_and_share_out_the_images() -> None:
    folds = [confidence.fold_of(f"images/{number}.jpg") for number in range(200)]
    assert folds == [confidence.fold_of(f"images/{number}.jpg") for number in range(200)]
    assert min(folds.count(fold) for fold in range(confidence.NUM_FOLDS)) > 20


def test_an_image_is_judged_by_weights_of_the_other_folds() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((60, len(FEATURE_NAMES)))
    folds = np.arange(60) % confidence.NUM_FOLDS
    ious = np.where(folds == 0, 0.0, 1 / (1 + np.exp(-features[:, 0])))
    expected = confidence.cross_validated(features, ious, folds)
    np.testing.assert_allclose(expected[folds == 0], 1 / (1 + np.exp(-features[folds == 0, 0])), atol=0.02)
    assert (expected[folds == 1] < ious[folds == 1]).all()


@pytest.mark.parametrize(("second", "shown"), [([3.0, 2.0, 1.0], "-1.000"), ([1.0, 1.0, 1.0], "-")])
def test_correlation_without_spread_is_a_dash(second: list[float], shown: str) -> None:
    assert confidence.rank(np.array([1.0, 2.0, 3.0]), np.array(second)) == shown
