"""The random walk, against the dense matrix power of the paper in float64."""

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from engine.ops import affinity, random_walk
from engine.ops.affinity import affinity_planes, half_plane_offsets
from engine.ops.random_walk import (
    chebyshev_coefficients,
    chebyshev_degree,
    difference_matrix,
    refine,
    refine_many,
    walk_together,
)

GRIDS = [(1, 1), (1, 7), (3, 40), (8, 8), (13, 17)]


def dense_transition(features: Tensor, radius: int, beta: float) -> NDArray[np.float64]:
    """The paper's T, a loop over all pairs of cells."""
    _, h, w = features.shape
    cells = features.double().flatten(1).t().numpy()
    weights = np.zeros((h * w, h * w))
    for (i, (y, x)), (j, (v, u)) in itertools.product(enumerate(itertools.product(range(h), range(w))), repeat=2):
        if math.hypot(y - v, x - u) < radius:
            weights[i, j] = np.exp(-np.abs(cells[i] - cells[j]).mean()) ** beta
    transition: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return transition


def dense_walk(cam: Tensor, transition: NDArray[np.float64], num_steps: int) -> Tensor:
    """The paper's ``T^t vec(M)``."""
    power = np.linalg.matrix_power(transition, num_steps)
    return torch.from_numpy((power @ cam.double().flatten(1).numpy().T).T.reshape(cam.shape))


def expansion(
    values: NDArray[np.float64], transition: NDArray[np.float64], coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``sum_k c_k T_k(T) m`` by the recurrence of the Chebyshev polynomials."""
    vectors = [values, transition @ values]
    while len(vectors) < len(coefficients):
        vectors.append(2 * transition @ vectors[-1] - vectors[-2])
    total: NDArray[np.float64] = coefficients @ np.stack(vectors[: len(coefficients)])
    return total


def scene(h: int, w: int, num_maps: int = 3, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Maps with a peak of 1, and features of a few regions with noise."""
    generator = torch.Generator().manual_seed(h * 100 + w)
    cam = torch.rand(num_maps, h, w, generator=generator) ** 4
    cam = cam / cam.amax(dim=(1, 2), keepdim=True)
    regions = torch.randint(0, 3, (h, w), generator=generator)
    features = torch.randn(16, 3, generator=generator)[:, regions] + 0.3 * torch.randn(16, h, w, generator=generator)
    return cam, features * spread


def sparse_differences(features: Tensor, radius: int = 5, beta: float = 8.0) -> Tensor:
    return difference_matrix(affinity_planes(features[None], radius)[0], radius=radius, beta=beta)


@pytest.mark.parametrize("radius", [1, 2, 5])
@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_differences_are_the_papers_matrix_less_the_identity(h: int, w: int, radius: int) -> None:
    _, features = scene(h, w)
    differences = sparse_differences(features, radius)
    expected = torch.from_numpy(dense_transition(features, radius, 8.0) - np.eye(h * w)).float()
    torch.testing.assert_close(differences.to_dense(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_rows_sum_to_zero_and_columns_ascend(h: int, w: int) -> None:
    differences = sparse_differences(scene(h, w)[1])
    sums = differences.to_dense().sum(dim=1)
    torch.testing.assert_close(sums, torch.zeros(h * w), atol=2e-7, rtol=0)
    rows, columns = differences.crow_indices().tolist(), differences.col_indices().tolist()
    for start, end in itertools.pairwise(rows):
        assert columns[start:end] == sorted(set(columns[start:end]))


@pytest.mark.parametrize("num_steps", [1, 2, 7, 256])
@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_walk_is_the_papers_matrix_power(h: int, w: int, num_steps: int) -> None:
    cam, features = scene(h, w)
    expected = dense_walk(cam, dense_transition(features, 5, 8.0), num_steps).float()
    for tolerance in (0.0, 1e-6):
        walked = refine(cam, features, num_steps=num_steps, tolerance=tolerance)
        torch.testing.assert_close(walked, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tolerance", [0.1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("num_steps", [64, 257])
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_chebyshev_keeps_within_its_tolerance(tolerance: float, num_steps: int, spread: float) -> None:
    cam, features = scene(9, 11, spread=spread)
    exact = dense_walk(cam, dense_transition(features, 5, 8.0), num_steps)
    walked = refine(cam, features, num_steps=num_steps, tolerance=tolerance)
    assert float((walked - exact).abs().max()) <= tolerance


def test_the_bound_holds_for_the_map_and_matrix_that_strain_it_most() -> None:
    # A chain with very unequal degrees and a map at one cell; the expansion's own polynomial in float64.
    weights = np.eye(40) + np.diag(np.full(39, 1.0), 1) + np.diag(np.full(39, 1.0), -1)
    weights[0, :] = weights[:, 0] = 1.0
    transition = weights / weights.sum(axis=1, keepdims=True)
    for cell, t in itertools.product((0, 1, 39), (30, 200)):
        cam = np.zeros(40)
        cam[cell] = 1
        exact = np.linalg.matrix_power(transition, t) @ cam
        for tolerance in (1e-2, 1e-5):
            degree = chebyshev_degree(t, tolerance / 0.5, num_entries=int(np.count_nonzero(transition)))
            walked = 0.5 + expansion(cam - 0.5, transition, chebyshev_coefficients(t)[: degree + 1])
            assert np.abs(walked - exact).max() <= tolerance


WALKERS = ["numba", "torch", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("walker", WALKERS)
@pytest.mark.parametrize("spread", [2.0, 0.5, 0.05])
@pytest.mark.parametrize(("h", "w"), [(17, 23), (3, 40)])
def test_weak_affinities_do_not_make_a_long_walk_drift(
    h: int, w: int, spread: float, walker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rows of T hold many weights around 1e-8 beside the diagonal's 1: their rounded sum is not 1
    if walker == "torch":
        monkeypatch.setattr(affinity, "_bands", lambda: None)
    if walker == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = "cuda" if walker == "cuda" else "cpu"
    cam, _ = scene(h, w)
    features = spread * torch.randn(64, h, w, generator=torch.Generator().manual_seed(h))
    exact = dense_walk(cam, dense_transition(features, 5, 8.0), 256)
    for tolerance, allowed in ((0.0, 5e-6), (1e-6, 5e-6), (1e-4, 1e-4)):
        walked = refine(cam.to(device), features.to(device), tolerance=tolerance).cpu()
        assert float((walked - exact).abs().max()) <= allowed


def test_a_tight_tolerance_still_saves_products() -> None:
    entries = 56 * 56 * 69
    assert chebyshev_degree(256, 2e-4, num_entries=entries) < 90
    assert chebyshev_degree(256, 2e-6, num_entries=entries) < 105


def test_a_constant_map_stays_as_it_is() -> None:
    _, features = scene(6, 9)
    cam = torch.full((2, 6, 9), 0.3)
    for tolerance in (0.0, 1e-2):
        assert torch.equal(refine(cam, features, tolerance=tolerance), cam)


def test_walk_never_crosses_a_zero_edge() -> None:
    cam = torch.zeros(1, 6, 9)
    cam[0, :, :4] = 1
    planes = torch.full((34, 6, 9), 0.7)
    for o, (dy, dx) in enumerate(half_plane_offsets(5)):
        for y, x in itertools.product(range(6), range(9)):
            inside = y + dy < 6 and 0 <= x + dx < 9
            if not inside or (x < 4) != (x + dx < 4):
                planes[o, y, x] = 0
    walked = walk_together(cam[None], planes[None], chebyshev_coefficients(256), radius=5, beta=8.0)
    torch.testing.assert_close(walked, cam[None], atol=1e-5, rtol=0)


def test_features_far_apart_leave_the_map_in_its_region() -> None:
    features = torch.zeros(4, 8, 8)
    features[:, :, 4:] = 1e4
    cam = torch.zeros(1, 8, 8)
    cam[0, 3, 2] = 1
    walked = refine(cam, features)
    assert (walked[0, :, 4:].abs() <= 1e-4).all()
    torch.testing.assert_close(walked[0, :, :4].mean(), torch.tensor(1 / 32), atol=1e-2, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 40), st.sampled_from([0.0, 1e-3]))
def test_any_grid_and_number_of_maps_keeps_shape_and_range(h: int, w: int, k: int, t: int, tolerance: float) -> None:
    cam, features = scene(h, w, num_maps=k) if k else (torch.empty(0, h, w), torch.rand(3, h, w))
    walked = refine(cam, features, num_steps=t, tolerance=tolerance)
    assert walked.shape == cam.shape
    assert walked.dtype == torch.float32
    assert ((walked >= 0) & (walked <= 1)).all()


def test_walk_is_linear_in_the_maps() -> None:
    cam, features = scene(7, 8)
    together = refine(cam, features, tolerance=0)
    torch.testing.assert_close(refine(2 * cam[:1] + cam[1:2], features, tolerance=0), 2 * together[:1] + together[1:2])


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3, 16, 33])
def test_coefficients_are_the_binomials_and_give_the_power(num_steps: int) -> None:
    coefficients = chebyshev_coefficients(num_steps)
    for k in range(num_steps + 1):
        expected = Fraction(0)
        if (num_steps - k) % 2 == 0:
            expected = Fraction(2 * math.comb(num_steps, (num_steps - k) // 2), 2**num_steps) / (1 if k else 2)
        assert coefficients[k] == pytest.approx(float(expected), rel=1e-13)
    x = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(np.polynomial.chebyshev.chebval(x, coefficients), x**num_steps, atol=1e-14)


def test_coefficients_of_a_very_long_walk_are_finite_and_sum_to_one() -> None:
    for num_steps in (5_000, 100_000, 100_001):
        coefficients = chebyshev_coefficients(num_steps)
        assert np.isfinite(coefficients).all()
        assert math.fsum(coefficients) == pytest.approx(1, abs=1e-12)
        # Of a binomial spread, half of it folded over: the standard deviation is sqrt(t).
        assert math.fsum(coefficients * np.arange(num_steps + 1) ** 2) == pytest.approx(num_steps, rel=1e-9)
        assert chebyshev_degree(num_steps, 2e-4, num_entries=10**6) < 7 * math.sqrt(num_steps)


def test_zero_steps_return_the_maps_unchanged() -> None:
    cam, features = scene(5, 6)
    assert torch.equal(refine(cam, features, num_steps=0), cam)


def test_half_precision_maps_walk_in_float32() -> None:
    cam, features = scene(5, 6)
    walked = refine(cam.half(), features.half())
    assert walked.dtype == torch.float32
    torch.testing.assert_close(walked, refine(cam.half().float(), features.half().float()))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"radius": 0}, "radius must be .*, got 0"),
        ({"beta": 0.0}, "beta must be above 0, got 0.0"),
        ({"beta": math.nan}, "beta must be above 0, got nan"),
        ({"num_steps": -1}, "num_steps must be .*, got -1"),
        ({"tolerance": -1e-3}, "tolerance must be .*, got -0.001"),
    ],
)
def test_a_setting_that_is_not_allowed_is_named(setting: dict[str, Any], message: str) -> None:
    cam, features = scene(4, 4)
    with pytest.raises(ValueError, match=message):
        refine(cam, features, **setting)


def test_maps_and_features_of_different_grids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features must be \(D, 4, 4\)"):
        refine(torch.rand(2, 4, 4), torch.rand(3, 4, 5))


@pytest.mark.parametrize("name", ["cam", "features"])
def test_nan_is_refused_not_spread(name: str) -> None:
    cam, features = scene(4, 4)
    (cam if name == "cam" else features)[0, 1, 1] = math.nan
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        refine(cam, features)


def test_a_matrix_that_keeps_its_zeros_is_the_same_matrix() -> None:
    for h, w in GRIDS:
        planes = affinity_planes(scene(h, w)[1][None], 5)[0]
        kept = difference_matrix(planes, radius=5, beta=8.0, keep_zeros=True)
        assert kept.values().numel() == (2 * len(planes) + 1) * h * w
        torch.testing.assert_close(kept.to_dense(), difference_matrix(planes, radius=5, beta=8.0).to_dense())


def _scenes(h: int, w: int) -> tuple[Tensor, Tensor]:
    """Three images on one grid."""
    some = [scene(h, w, spread=spread) for spread in (0.1, 0.5, 3.0)]
    return torch.stack([cam.roll(number) for number, (cam, _) in enumerate(some)]), torch.stack(
        [one for _, one in some]
    )


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_images_walk_together_as_alone(h: int, w: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(affinity, "_bands", lambda: None)
    cams, features = _scenes(h, w)
    together = walk_together(cams, affinity_planes(features, 5), chebyshev_coefficients(64), radius=5, beta=8.0)
    for walked, cam, one in zip(together, cams, features, strict=True):
        torch.testing.assert_close(
            walked, dense_walk(cam, dense_transition(one, 5, 8.0), 64).float(), atol=1e-5, rtol=0
        )


def test_refining_many_images_is_refining_each() -> None:
    cams, features = _scenes(9, 11)
    for walked, cam, one in zip(refine_many(cams, features), cams, features, strict=True):
        assert torch.equal(walked, refine(cam, one))
    assert refine_many(cams[:, :0], features).shape == (3, 0, 9, 11)


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
def test_without_numba_the_walk_is_the_same(monkeypatch: pytest.MonkeyPatch, tolerance: float) -> None:
    compiled = [refine(*scene(h, w), tolerance=tolerance) for h, w in GRIDS]
    monkeypatch.setattr(affinity, "_bands", lambda: None)
    for walked, (h, w) in zip(compiled, GRIDS, strict=True):
        torch.testing.assert_close(walked, refine(*scene(h, w), tolerance=tolerance), atol=1e-5, rtol=0)


class _Launches(TorchDispatchMode):
    """Counts the operations that start a kernel."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        self.count += not (func.is_view or name.startswith("prim::") or "empty" in name or name == "aten::_unsafe_view")
        return func(*args, **(kwargs or {}))


class _Csr:
    """A sparse matrix on a GPU that is not there; only its products count."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is torch.addmm, func
        return kwargs["out"].add_(args[2])


def test_images_on_a_gpu_walk_in_the_launches_of_one_and_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_walk, "_csr", lambda *_: _Csr())
    counts = []
    with FakeTensorMode():  # an operation for whose values the host would wait raises an error
        for num_images in (1, 16):
            cams, features = (torch.rand(num_images, d, 48, 64, device="cuda") for d in (3, 448))
            with _Launches() as launches:  # type: ignore[no-untyped-call]
                assert refine_many(cams, features).device.type == "cuda"
            counts.append(launches.count)
    assert max(counts) <= counts[0] + 2 < 350, counts


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
def test_walk_on_a_gpu_is_the_walk_on_a_processor(tolerance: float) -> None:
    cam, features = scene(13, 17)
    walked = refine(cam.cuda(), features.cuda(), tolerance=tolerance)
    assert walked.is_cuda
    torch.testing.assert_close(walked.cpu(), refine(cam, features, tolerance=tolerance), atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_many_images_on_a_gpu_walk_as_on_a_processor() -> None:
    cams, features = _scenes(13, 17)
    refined = refine_many(cams.cuda(), features.cuda())
    torch.testing.assert_close(refined.cpu(), refine_many(cams, features), atol=1e-4, rtol=0)
