"""The geometry of the permutohedral lattice."""

from __future__ import annotations

import numpy as np
import pytest

from engine.ops.lattice_keys import LARGEST_KEY, SigmaTooSmallError, elevation_scales, key_strides


def test_elevated_features_lie_on_the_plane_at_the_scale_of_the_blur() -> None:
    # rows of the elevation (Adams et al., p. 5) are orthogonal to (1, ..., 1), their lengths sqrt(2 / 3) * (D + 1)
    scales = elevation_scales(5)
    for i, scale in enumerate(scales.tolist()):
        column = np.array([1.0] * (i + 1) + [-(i + 1.0)] + [0.0] * (4 - i)) * scale
        assert column.sum() == pytest.approx(0, abs=1e-5)
        assert np.linalg.norm(column) == pytest.approx(np.sqrt(2 / 3) * 6, rel=1e-6)


def test_strides_give_each_corner_of_the_box_its_own_key() -> None:
    strides, span = key_strides([3.0, 2.0], elevation_scales(2))
    assert strides[-1] == 0
    sides = [int(strides[1]), span // int(strides[1])]
    keys = [a * strides[0] + b * strides[1] for a in range(sides[0]) for b in range(sides[1])]
    assert len(set(keys)) == len(keys) == span


def test_keys_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SigmaTooSmallError, match="on an axis"):
        key_strides([1e9], elevation_scales(1))
    with pytest.raises(SigmaTooSmallError, match="in all"):
        key_strides([2e5] * 5, elevation_scales(5))
    assert key_strides([2e3] * 5, elevation_scales(5))[1] < LARGEST_KEY
