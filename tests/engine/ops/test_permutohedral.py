"""The dense CRF's lattices: what is refused, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from engine.ops import permutohedral
from engine.ops.lattice_keys import SigmaTooSmallError
from engine.ops.permutohedral import build_lattice


def test_a_sigma_whose_keys_do_not_fit_is_refused() -> None:
    with pytest.raises(SigmaTooSmallError, match="on an axis"):
        build_lattice(np.zeros((2, 3, 3), np.uint8), sigma_px=80.0, sigma_rgb=1e-5)
    with pytest.raises(SigmaTooSmallError, match="in all"):
        build_lattice(np.zeros((2, 3, 3), np.uint8), sigma_px=80.0, sigma_rgb=1e-3)


def test_spatial_lattices_are_kept_up_to_a_bound_on_memory() -> None:
    size = build_lattice(np.zeros((10, 10, 0), np.uint8), sigma_px=3.0).num_bytes
    kept = permutohedral._SpatialLattices(5 * size // 2)
    first, second = kept.get(10, 10, 3.0), kept.get(10, 10, 3.1)
    assert kept.get(10, 10, 3.0) is first
    kept.get(10, 10, 2.9)
    assert kept.get(10, 10, 3.0) is first
    assert kept.get(10, 10, 3.1) is not second
