"""The dense CRF, against pydensecrf as its own documentation uses it."""

import builtins
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.ops.crf import DenseCrf, dense_crf

densecrf = pytest.importorskip("pydensecrf.densecrf")
utils = pytest.importorskip("pydensecrf.utils")

Probabilities = NDArray[np.float32]

ROOT = Path(__file__).parents[3]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "voc12_animals" / "images"


@pytest.fixture
def image() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 40, (24, 32, 3))
    picture[6:18, 8:24] += 150
    return picture.astype(np.uint8)


def probabilities(num_labels: int, rng_seed: int = 1) -> Probabilities:
    scores = np.random.default_rng(rng_seed).random((num_labels, 24, 32), np.float32)
    scores[-1, 5:17, 9:23] += 1
    scores[0, 0, 0] = 0
    scores /= scores.sum(axis=0)
    return scores


def plain_pydensecrf(image: NDArray[np.uint8], values: Probabilities, num_iterations: int) -> Probabilities:
    crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(values))
    crf.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(values)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.ascontiguousarray(image), compat=10)
    refined: Probabilities = np.reshape(crf.inference(num_iterations), values.shape)
    return refined


def scores_for(shape: tuple[int, int], num_labels: int, rng_seed: int = 1) -> Probabilities:
    """Broad blobs, as class activation maps are, with some noise."""
    rng = np.random.default_rng(rng_seed)
    coarse = rng.standard_normal((num_labels, 6, 8)).repeat(-(-shape[0] // 6), axis=1).repeat(-(-shape[1] // 8), axis=2)
    scores = np.exp(coarse[:, : shape[0], : shape[1]] + 0.3 * rng.standard_normal((num_labels, *shape)))
    probabilities: Probabilities = (scores / scores.sum(axis=0)).astype(np.float32)
    return probabilities


@pytest.mark.parametrize("backend", ["numba", "torch", "pydensecrf"])
@pytest.mark.parametrize("num_labels", [2, 3, 4, 6, 21])
def test_the_authors_settings_give_plain_pydensecrf(image: NDArray[np.uint8], num_labels: int, backend: str) -> None:
    values = probabilities(num_labels)
    refined = dense_crf(image, values, backend=backend)
    np.testing.assert_allclose(refined, plain_pydensecrf(image, values, 10), atol=1e-5)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("num_iterations", [1, 2, 25])
def test_any_number_of_iterations_gives_plain_pydensecrf(image: NDArray[np.uint8], num_iterations: int) -> None:
    values = probabilities(3)
    refined = dense_crf(image, values, num_iterations=num_iterations, backend="numba")
    np.testing.assert_allclose(refined, plain_pydensecrf(image, values, num_iterations), atol=1e-5)


def test_other_settings_give_pydensecrf_too(image: NDArray[np.uint8]) -> None:
    refined = partial(
        dense_crf,
        spatial_sigma_px=1.7,
        spatial_weight=40.0,
        bilateral_sigma_px=11.0,
        bilateral_sigma_rgb=4.3,
        bilateral_weight=200.0,
    )
    values = probabilities(4)
    reference = refined(image, values, backend="pydensecrf")
    for backend in ("numba", "torch"):
        np.testing.assert_allclose(refined(image, values, backend=backend), reference, atol=1e-4)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("shape", [(1, 4), (1, 50), (50, 1), (2, 2), (13, 17), (31, 33), (64, 129)])
def test_any_size_stays_close_to_pydensecrf(shape: tuple[int, int], backend: str) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (*shape, 3)).astype(np.uint8)
    values = scores_for(shape, 3)
    refined = dense_crf(picture, values, backend=backend)
    reference = plain_pydensecrf(picture, values, 10)
    # Where the number of pixels is no multiple of 4, pydensecrf adds up to three black ones at (0, 0) of its own.
    np.testing.assert_allclose(refined, reference, atol=1e-5 if shape[0] * shape[1] % 4 == 0 else 2e-2)
    assert (refined.argmax(axis=0) == reference.argmax(axis=0)).mean() > 0.99


@pytest.mark.real
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs in {PHOTOGRAPHS}")
@pytest.mark.parametrize(("backend", "num_images"), [("numba", 6), ("torch", 2)])
def test_photographs_get_the_labels_that_pydensecrf_gives_them(backend: str, num_images: int) -> None:
    equal, pixels = 0, 0
    for number, path in enumerate(sorted(PHOTOGRAPHS.glob("*.jpg"))[:num_images]):
        with Image.open(path) as opened:
            photograph = np.array(opened.convert("RGB"))
        # Cropped to a multiple of 4 pixels, because of those that pydensecrf adds.
        photograph = np.ascontiguousarray(photograph[:, : photograph.shape[1] // 4 * 4])
        values = scores_for(photograph.shape[:2], 2 + number % 3, number)
        refined = dense_crf(photograph, values, backend=backend)
        reference = plain_pydensecrf(photograph, values, 10)
        assert np.abs(refined - reference).max() < 1e-4
        equal += int((refined.argmax(axis=0) == reference.argmax(axis=0)).sum())
        pixels += values[0].size
    assert equal >= 0.9999 * pixels


def test_labels_that_change_places_change_them_in_the_result(image: NDArray[np.uint8]) -> None:
    values, order = probabilities(4), [2, 0, 3, 1]
    refined = dense_crf(image, values, backend="numba")
    np.testing.assert_allclose(dense_crf(image, values[order], backend="numba"), refined[order], atol=1e-5)


def test_a_picture_of_one_color_and_even_probabilities_stay_even() -> None:
    picture, values = np.full((20, 30, 3), 77, np.uint8), np.full((4, 20, 30), 0.25, np.float32)
    np.testing.assert_allclose(dense_crf(picture, values, backend="numba"), 0.25, atol=1e-6)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize(("num_labels", "num_unaries"), [(2, 2), (3, 2), (4, 2), (3, 5)])
def test_several_unaries_in_one_pass_equal_one_after_the_other(
    image: NDArray[np.uint8], num_labels: int, num_unaries: int, backend: str
) -> None:
    crf = DenseCrf(image, num_labels, backend=backend)
    unaries = [probabilities(num_labels, rng_seed) for rng_seed in range(num_unaries)]
    together = crf.infer_many(unaries, 10)
    assert len(together) == num_unaries
    for values, refined in zip(unaries, together, strict=True):
        np.testing.assert_allclose(refined, crf.infer(values, 10), atol=1e-6)


def test_no_unary_gives_no_result(image: NDArray[np.uint8]) -> None:
    assert DenseCrf(image, 2).infer_many([]) == []


def test_auto_falls_back_to_pydensecrf_for_a_tiny_sigma_and_numba_refuses_it(image: NDArray[np.uint8]) -> None:
    values = probabilities(2)
    refined = dense_crf(image, values, bilateral_sigma_rgb=1e-3)
    reference = dense_crf(image, values, bilateral_sigma_rgb=1e-3, backend="pydensecrf")
    np.testing.assert_array_equal(refined, reference)
    with pytest.raises(ValueError, match="a sigma is too small"):
        dense_crf(image, values, bilateral_sigma_rgb=1e-3, backend="numba")


@pytest.mark.parametrize(
    ("missing", "expected"), [(("numba",), "pydensecrf"), (("numba", "pydensecrf"), "torch")], ids=str
)
def test_auto_falls_back_to_what_is_installed(
    image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], expected: str
) -> None:
    def without_missing(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith(missing):
            raise ImportError(f"No module named {name!r}", name=name)
        return plain_import(name, *arguments, **named)

    plain_import = builtins.__import__
    for module in ("permutohedral", "lattice_kernels", "mean_field_kernels"):
        monkeypatch.delitem(sys.modules, f"engine.ops.{module}", raising=False)
        monkeypatch.delattr(f"engine.ops.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_missing)
    values = probabilities(3)
    refined = dense_crf(image, values)
    with pytest.raises(ImportError, match="numba"):
        dense_crf(image, values, backend="numba")
    monkeypatch.undo()
    np.testing.assert_array_equal(refined, dense_crf(image, values, backend=expected))


def test_two_unaries_on_one_lattice_equal_two_lattices(image: NDArray[np.uint8]) -> None:
    first, second = probabilities(3, 1), probabilities(3, 2)
    shared = DenseCrf(image, 3)
    refined_first = shared.infer(first, 10)
    refined_second = shared.infer(second, 10)
    np.testing.assert_array_equal(refined_first, dense_crf(image, first))
    np.testing.assert_array_equal(refined_second, dense_crf(image, second))


def test_image_and_probabilities_are_left_alone_even_as_read_only_views(image: NDArray[np.uint8]) -> None:
    view = image[:, ::-1]
    view.setflags(write=False)
    values = probabilities(2)[:, :, ::-1]
    before = values.copy()
    refined = dense_crf(view, values)
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(refined, dense_crf(np.ascontiguousarray(view), np.ascontiguousarray(values)))


@pytest.mark.parametrize("num_iterations", [0, 3])
def test_tensors_are_taken_like_arrays_and_give_a_tensor(image: NDArray[np.uint8], num_iterations: int) -> None:
    values = probabilities(3)
    expected = dense_crf(image, values, num_iterations=num_iterations)
    tensor = torch.from_numpy(values).requires_grad_()
    for picture in (image, torch.from_numpy(image)):
        refined = dense_crf(picture, tensor, num_iterations=num_iterations)
        np.testing.assert_array_equal(refined.detach().numpy(), expected)
    as_array = dense_crf(torch.from_numpy(image), values, num_iterations=num_iterations)
    np.testing.assert_array_equal(as_array, expected)
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8, got \(24, 32, 3\) float32"):
        dense_crf(torch.from_numpy(image).float(), tensor)


def test_no_iterations_return_the_probabilities_unchanged(image: NDArray[np.uint8]) -> None:
    values = probabilities(3)
    assert dense_crf(image, values, num_iterations=0) is values


def test_a_single_label_is_certain(image: NDArray[np.uint8]) -> None:
    assert (dense_crf(image, np.full((1, 24, 32), 0.5, np.float32)) == 1).all()


def test_a_picture_of_one_pixel_is_refined_too() -> None:
    values = np.array([0.25, 0.75], np.float32).reshape(2, 1, 1)
    refined = dense_crf(np.zeros((1, 1, 3), np.uint8), values)
    assert refined.argmax(axis=0).item() == 1


def test_what_is_not_allowed_is_named(image: NDArray[np.uint8]) -> None:
    values = probabilities(2)
    with pytest.raises(ValueError, match=r"backend must be one of .*, got 'gpu'"):
        dense_crf(image, values, backend="gpu")
    with pytest.raises(ValueError, match="num_iterations must be 0 or more, got -1"):
        dense_crf(image, values, num_iterations=-1)
    with pytest.raises(ValueError, match="spatial_sigma_px must be above 0, got 0"):
        dense_crf(image, values, spatial_sigma_px=0)
    with pytest.raises(ValueError, match="probabilities must be "):
        dense_crf(image[:-1], values)
    with pytest.raises(ValueError, match="image must be"):
        dense_crf(image[..., :1], values)
    values[0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        dense_crf(image, values)
