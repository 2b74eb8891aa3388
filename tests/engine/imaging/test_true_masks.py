"""True masks of other programs against the ids that they were made of."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.imaging.codecs import class_color, encode_mask
from engine.imaging.true_masks import ColorError, decode_true_mask

NAMES = ("cat", "dog", "cow")
MASK = np.array([[0, 3, 3], [255, 1, 2]], dtype=np.uint8)
LABELS = {"background": (0, 0, 0), "dog": (250, 50, 83), "cat": (51, 221, 255), "cow": (255, 255, 255)}
"""In another order than the classes."""


def _png(image: Image.Image | NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def _with_palette(indices: NDArray[np.uint8], colors: list[tuple[int, int, int]]) -> bytes:
    image = Image.fromarray(indices)
    image.putpalette([channel for color in colors for channel in color])
    return _png(image)


def _painted(mask: NDArray[np.uint8], colors: dict[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    return np.array([[colors[value] for value in row] for row in mask.tolist()], np.uint8)


VOC = {value: class_color(value) for value in (0, 1, 2, 3, 255)}
ORDER = [3, 255, 0, 2, 1]
"""Ids in the order of a palette that was sorted anew."""
SORTED = np.array([[ORDER.index(value) for value in row] for row in MASK.tolist()], np.uint8)


@pytest.mark.parametrize(
    ("png", "read_by"),
    [
        (encode_mask(MASK), "ids"),
        (_png(MASK), "ids"),
        (_png(np.stack([MASK] * 3, axis=-1)), "ids"),
        (_png(np.stack([MASK, np.full_like(MASK, 255)], axis=-1)), "ids"),
        (_with_palette(MASK, [(value, 9, 9) for value in range(256)]), "ids"),
        (_with_palette(SORTED, [VOC[value] for value in ORDER]), "VOC colors"),
        (_png(_painted(MASK, VOC)), "VOC colors"),
        (_png(Image.fromarray(_painted(MASK, VOC)).convert("RGBA")), "VOC colors"),
    ],
)
def test_mask_is_the_same_in_every_kind_of_png(png: bytes, read_by: str) -> None:
    mask, how = decode_true_mask(png, NAMES)
    np.testing.assert_array_equal(mask, MASK)
    assert mask.dtype == np.uint8
    assert how == read_by


def test_grey_of_one_bit_is_black_and_white_as_in_any_other_depth() -> None:
    mask, _ = decode_true_mask(_png(Image.fromarray(MASK > 2)), NAMES)
    np.testing.assert_array_equal(mask, np.where(MASK > 2, 255, 0))


def test_wide_masks_keep_their_ids() -> None:
    wide = np.where(MASK == 255, 65535, MASK * 100).astype(np.uint16)
    mask, _ = decode_true_mask(encode_mask(wide), [str(number) for number in range(300)])
    np.testing.assert_array_equal(mask, wide)
    voc = _with_palette(SORTED, [VOC[value] for value in ORDER])  # 255 is a class there, so VOC's palette says nothing
    np.testing.assert_array_equal(decode_true_mask(voc, [str(number) for number in range(300)])[0], SORTED)


def test_label_map_names_colors_and_grey_and_the_numbers_of_labels() -> None:
    by_name = {0: (0, 0, 0), 255: class_color(255), 1: LABELS["cat"], 2: LABELS["dog"], 3: LABELS["cow"]}
    for png in (_png(_painted(MASK, by_name)), _with_palette(SORTED, [by_name[value] for value in ORDER])):
        mask, how = decode_true_mask(png, NAMES, LABELS)
        np.testing.assert_array_equal(mask, MASK)
        assert how == "label map"
    binary = np.where(MASK == 3, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(decode_true_mask(_png(binary), NAMES, LABELS)[0], np.where(MASK == 3, 3, 0))
    numbers = np.array([[0, 1, 2, 3]], np.uint8)
    np.testing.assert_array_equal(decode_true_mask(_png(numbers), NAMES, LABELS)[0], [[0, 2, 1, 3]])
    np.testing.assert_array_equal(decode_true_mask(_png(numbers), None, LABELS)[0], numbers)


def test_color_of_no_class_is_refused() -> None:
    odd = _png(np.array([[[1, 2, 3], [0, 0, 0]]], np.uint8))
    with pytest.raises(ColorError, match=r"holds the colour \(1, 2, 3\).* of VOC's palette; add a labelmap.txt"):
        decode_true_mask(odd, NAMES)
    with pytest.raises(ColorError, match=r"holds the colour \(1, 2, 3\).* of labelmap.txt$"):
        decode_true_mask(odd, NAMES, LABELS)
    with pytest.raises(ColorError, match=r"holds 'cow' of labelmap.txt, which is not one of the classes"):
        decode_true_mask(_png(np.full((2, 2), 255, np.uint8)), NAMES[:2], LABELS)
