"""Sizes at which networks see images."""

from __future__ import annotations

import numpy as np
import pytest

from engine.imaging.scaling import as_tensor, equal_groups, resized, scaled_size
from tests.engine.stages.examples import picture


@pytest.mark.parametrize(
    ("size", "long_side_px", "scale", "expected"),
    [
        ((300, 600), 320, 1.0, (160, 320)),
        ((600, 300), 320, 0.5, (160, 80)),
        ((301, 599), 0, 1.0, (301, 599)),
        ((301, 600), 0, 2.0, (602, 1200)),
        ((10, 1000), 320, 1.0, (32, 320)),
        ((1, 1), 0, 1.0, (32, 32)),
    ],
)
def test_long_side_and_scale_set_the_size(
    size: tuple[int, int], long_side_px: int, scale: float, expected: tuple[int, int]
) -> None:
    assert scaled_size(*size, long_side_px=long_side_px, scale=scale) == expected


def test_resized_gives_height_and_width_in_this_order_and_keeps_what_fits() -> None:
    image = picture(40, 60)
    assert resized(image, (50, 30)).shape == (50, 30, 3)
    assert resized(image, (40, 60)) is image
    assert np.ptp(resized(np.full((9, 9, 3), 77, dtype=np.uint8), (31, 5))) == 0


def test_pictures_become_channels_first() -> None:
    images = [picture(4, 6, number) for number in range(2)]
    tensor = as_tensor(images, "cpu")
    assert tensor.shape == (2, 3, 4, 6)
    assert tensor[1, 2, 3, 5] == images[1][3, 5, 2]


def test_groups_hold_one_size_each_and_every_index_once() -> None:
    sizes = [(8, 8), (4, 8), (8, 8), (8, 8), (4, 8), (2, 2)]
    groups = list(equal_groups(sizes, 2))
    assert groups == [[0, 2], [3], [1, 4], [5]]
    assert list(equal_groups([], 3)) == []
