"""The method's steps, one after the other, on maps and pictures of any size: finite numbers that keep their sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ops.cam import merge_cams, normalize_cam, with_background
from engine.ops.crf import dense_crf
from engine.ops.mask import class_areas, pseudo_mask, to_probabilities, upsample
from engine.ops.random_walk import refine
from engine.ops.seed import sure_cells, to_grid

SIDES = st.integers(1, 12)
KINDS = ["random", "zero", "one class zero", "all ones", "one cell", "tiny", "equal classes"]


def _cam(kind: str, num_classes: int, h: int, w: int, rng_seed: int) -> torch.Tensor:
    """(K, h, w) as a classifier may give them, kinds that divide by nothing among them."""
    raw = torch.rand(num_classes, h, w, generator=torch.Generator().manual_seed(rng_seed))
    if kind == "zero":
        raw = torch.zeros_like(raw)
    elif kind == "one class zero" and num_classes:
        raw[0] = 0
    elif kind == "all ones":
        raw = torch.ones_like(raw)
    elif kind == "one cell":
        raw = torch.zeros_like(raw)
        raw[:, 0, 0] = 1
    elif kind == "tiny":
        raw = raw * 1e-38
    elif kind == "equal classes" and num_classes:
        raw = raw[:1].expand(num_classes, -1, -1)
    return normalize_cam(merge_cams([raw, raw.flip(-1)], (h, w)))


def _check_maps(maps: torch.Tensor) -> None:
    assert bool(torch.isfinite(maps).all())
    assert bool((maps >= 0).all())
    assert bool((maps <= 1 + 1e-5).all())


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 6),
    SIDES,
    SIDES,
    st.sampled_from(["random", "constant", "far apart"]),
    st.sampled_from([0.5, 1.0, 16.0]),
    st.integers(0, 300),
    st.integers(0, 99),
)
def test_every_map_becomes_a_mask_without_a_number_that_is_none(
    kind: str, num_classes: int, h: int, w: int, affinities: str, alpha: float, num_steps: int, rng_seed: int
) -> None:
    cam = _cam(kind, num_classes, h, w, rng_seed)
    _check_maps(cam)
    features = torch.rand(4, h, w, generator=torch.Generator().manual_seed(rng_seed))
    if affinities == "constant":
        features = torch.full_like(features, 0.3)
    elif affinities == "far apart":
        features = features * 1e6
    start = with_background(cam, alpha)
    refined = refine(start, features, radius=3, num_steps=num_steps)
    _check_maps(refined)
    probabilities = to_probabilities(upsample(refined, (2 * h + 1, w))).numpy()
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-4)
    class_ids = list(range(3, 3 + num_classes))
    mask = pseudo_mask(probabilities, class_ids)
    assert mask.shape == (2 * h + 1, w)
    assert set(np.unique(mask)) <= {0, *class_ids}
    assert class_areas(mask, class_ids).sum() == pytest.approx(1, abs=1e-5)
    if kind == "zero" or num_classes == 0:
        assert not mask.any()


@settings(max_examples=8, deadline=None)
@given(SIDES, SIDES, st.integers(1, 4), st.integers(0, 99))
def test_walk_over_equal_affinities_keeps_a_flat_map_and_draws_others_to_their_mean(
    h: int, w: int, num_classes: int, rng_seed: int
) -> None:
    flat = torch.full((num_classes, h, w), 0.25)
    features = torch.ones(3, h, w)
    assert torch.allclose(refine(flat, features, radius=3, num_steps=100), flat, atol=1e-4)
    cam = torch.rand(num_classes, h, w, generator=torch.Generator().manual_seed(rng_seed))
    walked = refine(cam, features, radius=12, num_steps=1000)
    # every cell sees nearly every other one, and all alike
    assert float((walked.amax(dim=(1, 2)) - walked.amin(dim=(1, 2))).max()) < 0.02


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([(1, 1), (1, 7), (9, 1), (2, 2), (13, 8)]),
    st.integers(1, 4),
    st.sampled_from(["random", "constant", "sure", "black and white"]),
    st.integers(0, 99),
)
def test_dense_crf_gives_probabilities_for_any_picture(
    size: tuple[int, int], num_maps: int, kind: str, rng_seed: int
) -> None:
    rng = np.random.default_rng(rng_seed)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    scores = rng.random((num_maps, *size), dtype=np.float32) + 1e-3
    if kind == "constant":
        image[:] = 7
    elif kind == "black and white":
        image = np.where(image > 127, 255, 0).astype(np.uint8)
    elif kind == "sure":
        scores[:] = 0
        scores[-1] = 1
    probabilities = scores / scores.sum(axis=0)
    refined = dense_crf(image, probabilities, num_iterations=3)
    assert refined.shape == probabilities.shape
    assert np.isfinite(refined).all()
    assert np.allclose(refined.sum(axis=0), 1, atol=1e-3)
    if kind == "sure":
        assert (refined.argmax(axis=0) == num_maps - 1).all()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 4), SIDES, SIDES, SIDES, SIDES, st.integers(0, 99))
def test_seed_has_classes_present_or_ignore_whatever_the_grid(
    kind: str, num_classes: int, h: int, w: int, grid_h: int, grid_w: int, rng_seed: int
) -> None:
    maps = upsample(_cam(kind, num_classes, h, w, rng_seed), (h, w))
    low, high = (to_grid(to_probabilities(with_background(maps, alpha)), (grid_h, grid_w)) for alpha in (1.2, 5.0))
    class_ids = list(range(1, num_classes + 1))
    cells = sure_cells(low, high, class_ids)
    assert cells.shape == (grid_h, grid_w)
    assert set(cells.unique().tolist()) <= {0, 255, *class_ids}
    if kind == "zero" or num_classes == 0:
        assert not cells.any()
