"""The truth that a search reads, and the check against the images' sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OutsideError, StorageError
from engine.imaging.codecs import decode_mask, encode_mask
from tune.cache import TrueMasks, read_true_masks


def _folder(root: Path) -> Path:
    (root / "truth").mkdir()
    for number in range(3):
        mask = np.full((4, 5), number, np.uint8)
        mask[0] = 255
        (root / "truth" / f"{number}.png").write_bytes(encode_mask(mask))
    (root / "manifest.csv").write_text("image,tags\n" + "".join(f"{number}.png,cat\n" for number in range(4)))
    return root


def _read(root: Path, *class_names: str, rng_seed: int = 0) -> TrueMasks:
    return read_true_masks(str(root / "manifest.csv"), str(root / "truth"), class_names=class_names, rng_seed=rng_seed)


def test_images_with_truth_come_in_a_fixed_random_order_with_their_pixels(tmp_path: Path) -> None:
    truth = _read(_folder(tmp_path), "cat", "dog")
    assert {row[0] for row in truth.rows} == {"0.png", "1.png", "2.png"}
    assert truth.rows == _read(tmp_path, "cat", "dog").rows
    assert len({_read(tmp_path, "cat", "dog", rng_seed=seed).rows for seed in range(9)}) > 1
    for (image_id, _, _), size, pixels in zip(truth.rows, truth.sizes, truth.pixels, strict=True):
        assert size == decode_mask(truth.masks[image_id]).shape
        assert pixels[int(image_id[0])] == pixels.sum() == 15
    assert replace(truth, masks={}).hash != truth.hash


def test_mask_of_another_class_and_an_image_outside_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"truth has a mask of '2.png' that does not match the classes"):
        _read(_folder(tmp_path), "cat")
    (tmp_path / "manifest.csv").write_text("image,tags\n../0.png,cat\n")
    with pytest.raises(OutsideError, match="data"):
        _read(tmp_path, "cat", "dog")
