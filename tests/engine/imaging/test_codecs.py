"""Masks and maps as bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.imaging.codecs import decode_map, decode_mask, encode_map, encode_mask, voc_palette


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (0, 4, 6)])
def test_map_comes_back_within_half_precision(shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    back = decode_map(encode_map(values))
    assert back.dtype == np.float32
    assert back.shape == shape
    np.testing.assert_allclose(back, values, atol=2**-11)


def test_map_that_lies_otherwise_in_memory_comes_back_the_same() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(0, 2, 1)
    np.testing.assert_array_equal(decode_map(encode_map(values)), values)


@pytest.mark.parametrize(("dtype", "highest"), [(np.dtype(np.uint8), 255), (np.dtype(np.uint16), 65535)])
def test_mask_comes_back_exactly(dtype: np.dtype[np.integer[Any]], highest: int) -> None:
    mask = np.random.default_rng(0).integers(0, highest, (17, 31), endpoint=True).astype(dtype)
    mask[0, 0], mask[0, 1] = 0, highest
    back = decode_mask(encode_mask(mask))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, mask)


def test_mask_of_few_ids_keeps_their_numbers() -> None:
    mask = np.full((4, 4), 200, dtype=np.uint8)  # a writer that packs palettes would renumber it
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


@pytest.mark.parametrize("dtype", [np.dtype(np.uint8), np.dtype(np.uint16)])
def test_mask_beyond_pillows_limit_comes_back_and_leaves_the_limit_alone(
    dtype: np.dtype[np.integer[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    mask = np.arange(20 * 20, dtype=np.uint16).reshape(20, 20).astype(dtype)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(encode_mask(mask)))
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_same_mask_gives_the_same_bytes() -> None:
    mask = np.eye(9, dtype=np.uint8)
    assert encode_mask(mask) == encode_mask(mask.copy())


def test_mask_shows_vocs_colours() -> None:
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 255: (224, 224, 192)}
    palette = voc_palette()
    assert len(palette) == 768
    for class_id, color in expected.items():
        assert tuple(palette[3 * class_id : 3 * class_id + 3]) == color
    mask = np.array([list(expected)], dtype=np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(encode_mask(mask))).convert("RGB"))
    assert [tuple(color) for color in shown[0].tolist()] == list(expected.values())
