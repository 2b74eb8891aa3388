"""The dense CRF, against pydensecrf as its own documentation uses it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.ops.crf import DenseCrf, dense_crf

densecrf = pytest.importorskip("pydensecrf.densecrf")
utils = pytest.importorskip("pydensecrf.utils")

Probabilities = NDArray[np.float32]


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
    return (scores / scores.sum(axis=0)).astype(np.float32)


def plain_pydensecrf(image: NDArray[np.uint8], values: Probabilities, num_iterations: int) -> Probabilities:
    crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(values))
    crf.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(values)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.ascontiguousarray(image), compat=10)
    return np.array(crf.inference(num_iterations)).reshape(values.shape).astype(np.float32)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_the_authors_settings_give_plain_pydensecrf(image: NDArray[np.uint8], num_labels: int) -> None:
    values = probabilities(num_labels)
    refined = dense_crf(image, values)
    np.testing.assert_allclose(refined, plain_pydensecrf(image, values, 10), atol=1e-6)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)


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
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        dense_crf(image, values, backend="gpu")
    with pytest.raises(ValueError, match="num_iterations is -1"):
        dense_crf(image, values, num_iterations=-1)
    with pytest.raises(ValueError, match="spatial_sigma_px is 0"):
        dense_crf(image, values, spatial_sigma_px=0)
    with pytest.raises(ValueError, match="probabilities has the shape"):
        dense_crf(image[:-1], values)
    with pytest.raises(ValueError, match="image is"):
        dense_crf(image[..., :1], values)
    values[0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        dense_crf(image, values)
