"""CAMs and the background map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ops.cam import background_map, merge_cams, normalize_cam, with_background


def test_merged_cam_sums_the_positive_part_of_every_scale_on_the_common_grid() -> None:
    fine = torch.full((2, 8, 6), 3.0)
    coarse = torch.full((2, 4, 3), 2.0)
    coarse[1] = -5
    merged = merge_cams([fine, coarse], (4, 3))
    assert merged.shape == (2, 4, 3)
    torch.testing.assert_close(merged[0], torch.full((4, 3), 5.0))
    torch.testing.assert_close(merged[1], torch.full((4, 3), 3.0))


def test_merging_agrees_with_bilinear_weights_written_by_hand() -> None:
    row = torch.tensor([[[0.0, 4.0]]])
    # Pixel centres of four cells fall at -.25, .25, .75, 1.25 of two; those outside take the edge's value.
    torch.testing.assert_close(merge_cams([row], (1, 4)), torch.tensor([[[0.0, 1.0, 3.0, 4.0]]]))


def test_merging_no_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="cams must hold one or more maps"):
        merge_cams([], (4, 4))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(1, 9), st.integers(1, 9), st.floats(1e-30, 1e30))
def test_every_active_class_peaks_at_exactly_one(k: int, h: int, w: int, scale: float) -> None:
    cam = normalize_cam(torch.rand(k, h, w).clamp(min=1e-3) * scale)
    assert cam.shape == (k, h, w)
    assert (cam >= 0).all()
    assert (cam.flatten(1).amax(dim=1) == 1).all() if k else True


def test_a_class_without_activation_stays_zero() -> None:
    cam = torch.stack([torch.zeros(3, 4), torch.rand(3, 4) + 0.1])
    assert (normalize_cam(cam)[0] == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_cam_is_not_hidden(bad: float) -> None:
    cam = torch.rand(2, 3, 3)
    cam[1, 1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        normalize_cam(cam)


def test_background_is_the_power_of_what_no_class_claims() -> None:
    cam = torch.tensor([[[0.0, 0.5, 1.0]], [[0.2, 0.1, 0.3]]])
    torch.testing.assert_close(background_map(cam, 2.0), torch.tensor([[0.64, 0.25, 0.0]]))
    torch.testing.assert_close(with_background(cam, 2.0)[1:], cam)
    images = torch.rand(3, 2, 4, 5)
    torch.testing.assert_close(with_background(images, 2.0), torch.stack([with_background(cam, 2.0) for cam in images]))


def test_a_larger_alpha_never_adds_background() -> None:
    cam = torch.rand(3, 10, 10)
    assert (background_map(cam, 16.0) <= background_map(cam, 4.0)).all()


def test_an_image_without_classes_is_all_background() -> None:
    assert (background_map(torch.empty(0, 3, 4), 16.0) == 1).all()
    assert with_background(torch.empty(0, 3, 4), 16.0).shape == (1, 3, 4)


def test_alpha_must_be_positive() -> None:
    with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
        background_map(torch.rand(1, 2, 2), 0)
