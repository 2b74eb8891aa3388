"""Images of a report as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.report.pictures import color_of, css_color, heat_uri, mask_uri, photograph_uri, thumbnail_size, wrong_uri


def decoded(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGBA"))


def test_thumbnails_keep_the_shape_of_large_pictures_and_the_size_of_small_ones() -> None:
    assert thumbnail_size(720, 1440) == (180, 360)
    assert thumbnail_size(20, 30) == (20, 30)
    assert thumbnail_size(1, 10_000) == (1, 360)
    assert decoded(photograph_uri(np.zeros((720, 1440, 3), np.uint8))).shape == (180, 360, 4)


def test_a_mask_is_clear_outside_objects_and_has_an_opaque_outline_with_a_dark_line_around_it() -> None:
    mask = np.zeros((13, 13), np.uint8)
    mask[3:10, 3:10] = 2
    shown = decoded(mask_uri(mask, (13, 13)))
    assert css_color(2) == "#{:02x}{:02x}{:02x}".format(*color_of(2))
    assert tuple(shown[6, 6, :3]) == tuple(shown[3, 6, :3]) == tuple(shown[4, 6, :3]) == color_of(2)
    assert shown[3, 6, 3] == shown[4, 6, 3] == 255 > shown[6, 6, 3] > 60
    assert shown[2, 6].tolist() == [0, 0, 0, 200]
    assert not shown[1, :, 3].any()


def test_colors_of_twenty_classes_are_bright_and_differ() -> None:
    colors = np.array([color_of(class_id) for class_id in range(1, 21)])
    apart = np.abs(colors[:, None] - colors[None]).max(2) + 255 * np.eye(20, dtype=np.int64)
    assert apart.min() > 25
    assert colors.max(1).min() > 200


def test_wrong_pixels_are_those_that_differ_where_truth_counts() -> None:
    truth = np.array([[0, 1, 255]], np.uint8)
    shown = decoded(wrong_uri(np.array([[0, 2, 2]], np.uint8), truth, (1, 3)))
    assert (shown[..., 3] > 0).tolist() == [[False, True, False]]


def test_a_map_is_strongest_where_its_class_fires() -> None:
    maps = np.zeros((2, 4, 4))
    maps[0, :, :2], maps[1, :, 2:] = 1.0, 0.5
    shown = decoded(heat_uri(maps, [1, 2], (8, 8)))
    assert shown[0, 0, 3] > shown[0, 3, 3] > 0
    assert shown[0, 0, 0] > shown[0, 0, 1]
    assert shown[0, 3, 1] > shown[0, 3, 0]
    assert decoded(heat_uri(np.zeros((0, 4, 4)), [], (8, 8)))[0, 0, 3] == 0
