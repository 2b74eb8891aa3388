"""True masks are found by stem or by the whole id, and no two images share one unnoticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import StorageError
from engine.records import encode_mask
from engine.storage.truth import open_truth


def _write(folder: Path, *names: str) -> str:
    """PNGs of one pixel, whose value is their place in the list."""
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode_mask(np.full((1, 1), number, dtype=np.uint8)))
    return str(folder)


def _value(folder: str, image_id: str, image: str) -> int | None:
    mask = open_truth(folder).mask_of(image_id, image)
    return None if mask is None else int(mask[0, 0])


def test_mask_is_found_by_stem_and_by_id(tmp_path: Path) -> None:
    folder = _write(tmp_path, "one.png", "dog%2F2.png", "my id.png", "2.png")
    assert _value(folder, "photos/one.jpg", "photos/one.jpg") == 0
    assert _value(folder, "dog/2.jpg", "dog/2.jpg") == 1  # the whole id comes before the stem
    assert _value(folder, "cat/2.jpg", "cat/2.jpg") == 3
    assert _value(folder, "my id", "photos/7.jpg") == 2
    assert _value(folder, "none", "none.jpg") is None


def test_images_of_the_same_stem_are_told_from_each_other_or_refused(tmp_path: Path) -> None:
    truth = open_truth(_write(tmp_path, "1.png"))
    assert truth.mask_of("dog/1.jpg", "dog/1.jpg") is not None
    assert truth.mask_of("again", "dog/1.jpg") is not None  # one picture under two ids
    with pytest.raises(StorageError, match=r"'dog/1.jpg' and 'cat/1.jpg' have .*'1.png'.*'cat%2F1.png'"):
        truth.mask_of("cat/1.jpg", "cat/1.jpg")


def test_folder_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds neither PNGs nor mask shards"):
        open_truth(str(tmp_path))
