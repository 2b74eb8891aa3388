"""The numbers of the dCRF, from the settings to the dCRF of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.config import CrfConfig
from engine.ops.crf import DenseCrf, dense_crf
from tests.engine.stages.examples import picture


@pytest.mark.parametrize(
    "setting",
    [
        {"spatial_sigma_px": 1.5},
        {"spatial_weight": 30.0},
        {"bilateral_sigma_px": 9.0},
        {"bilateral_sigma_rgb": 40.0},
        {"bilateral_weight": 1.0},
        {"backend": "torch"},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_each_setting_reaches_the_dense_crf(setting: dict[str, Any]) -> None:
    image = picture(20, 30)
    scores = np.random.default_rng(0).random((3, 20, 30), np.float32)
    probabilities = scores / scores.sum(axis=0)
    refined, usual = (
        DenseCrf(image, 3, kernels=crf, backend=crf.backend).infer(probabilities, 2)
        for crf in (CrfConfig(**setting), CrfConfig())
    )
    np.testing.assert_array_equal(refined, dense_crf(image, probabilities, num_iterations=2, **setting))
    assert (refined != usual).any()
