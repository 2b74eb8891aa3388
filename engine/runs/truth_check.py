"""Check true masks against their images before the training, to report problems early."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ImageError, StorageError
from engine.imaging.decoding import image_size
from engine.imaging.true_masks import LABEL_MAP
from engine.ops.metrics import confusion_matrix
from engine.records import ignore_value
from engine.storage.pictures import read_picture
from engine.storage.roots import lies_outside
from engine.storage.sources.find import find_source
from engine.storage.truth import open_truth
from engine.storage.user_manifest import iter_manifest

_THREADS = 16


def check_truth(
    data: str, truth: str, class_names: tuple[str, ...], *, max_pixels: int, allow_outside: bool
) -> dict[str, str]:
    """Read every true mask and the size of its image; warn of masks that cannot be scored.

    Args:
        data: The manifest.
        truth: Folder of PNGs or of mask shards.
        class_names: The C classes.
        max_pixels, allow_outside: As for jobs; images that will become error rows are not compared.

    Returns:
        Why a true mask will be left out, by image id.

    Raises:
        UserError: Manifest or truth cannot be read, a mask has an unknown class, or no mask can be scored.
    """
    true_masks, folder = open_truth(truth, class_names), find_source(data).folder
    blank = np.zeros((len(class_names) + 1,) * 2, np.int64)

    def check(row: tuple[str, str, str]) -> tuple[str, str, NDArray[np.int64], bool] | None:
        image_id, image, uri = row
        mask = true_masks.mask_of(image_id, image)
        if mask is None:
            return None
        confusion = confusion_of(image_id, mask, np.zeros_like(mask), len(class_names))
        size = mask.shape
        if not image or allow_outside or not lies_outside(image, folder):
            with suppress(ImageError, StorageError):  # reported later as an error row
                size = image_size(read_picture(uri), max_pixels)
        reason = "" if size == mask.shape else other_size(mask.shape, size)
        return image_id, reason, confusion, holds_ignored(mask, len(class_names))

    left_out: dict[str, str] = {}
    num_masks, total, ignores = 0, blank, False
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in iter_manifest(data):
            rows = zip(*(batch[name] for name in ("image_id", "image", "uri")), strict=True)
            for found in filter(None, pool.map(check, rows)):
                image_id, reason, confusion, ignored = found
                num_masks, total, ignores = num_masks + 1, total + confusion, ignores or ignored
                if reason:
                    left_out[image_id] = reason
    check_scored(truth, f"data '{data}'", num_masks - len(left_out), left_out)
    check_classes(truth, total, num_masks, class_names, ignores=ignores)
    if true_masks.remark:
        print(f"note: {true_masks.remark}", file=sys.stderr)
    warn_of_left_out(left_out)
    return left_out


def confusion_of(
    image_id: str, true_mask: NDArray[np.integer[Any]], mask: NDArray[np.integer[Any]], num_classes: int
) -> NDArray[np.int64]:
    """Compute the confusion matrix of an image.

    Raises:
        StorageError: One of the masks contains an unknown class.
    """
    try:
        return confusion_matrix(true_mask, mask, num_classes, ignore=ignore_value(num_classes))
    except ValueError as error:
        raise StorageError(f"the mask of '{image_id}' does not match its truth: {error}") from error


def holds_ignored(mask: NDArray[np.integer[Any]], num_classes: int) -> bool:
    """Whether a true mask has ignored pixels."""
    return bool((mask == ignore_value(num_classes)).any())


def other_size(truth: tuple[int, ...], image: tuple[int, ...]) -> str:
    """Describe the mismatch between the sizes of a true mask and its image, both (height, width)."""
    turned = "; was it made without applying the EXIF orientation?" if truth == image[::-1] else ""
    return f"the true mask is {truth[1]} x {truth[0]} pixels, the image {image[1]} x {image[0]}{turned}"


def check_scored(truth: str, images: str, num_scored: int, left_out: Mapping[str, str]) -> None:
    """Raises:
    StorageError: No true mask can be scored.
    """
    if num_scored == 0:
        reason = f" of its image's size: {_first(left_out)}" if left_out else f" for any image in {images}"
        raise StorageError(f"'{truth}' has no mask{reason}", thing="truth")


def check_classes(
    truth: str, confusion: NDArray[np.int64], num_masks: int, class_names: tuple[str, ...], *, ignores: bool
) -> None:
    """Reject true masks that contain only background and ignored pixels, such as binary masks of 0 and 255.

    Args:
        confusion: (C+1, C+1) int64, over all masks.
        ignores: Whether any pixel is ignored.

    Raises:
        StorageError: The masks contain no class.
    """
    if ignores and not confusion[1:].any():
        raise StorageError(
            f"'{truth}' has no class in {num_masks} masks, only background and {ignore_value(len(class_names))} "
            f"(ignore); if they are binary, add a {LABEL_MAP} with the line {class_names[0]}:255,255,255",
            thing="truth",
        )


def warn_of_left_out(left_out: Mapping[str, str]) -> None:
    """Warn on standard error about true masks that are not scored, with the first reason."""
    if left_out:
        print(f"warning: true masks not scored: {len(left_out)}; {_first(left_out)}", file=sys.stderr)


def _first(left_out: Mapping[str, str]) -> str:
    image_id, reason = next(iter(left_out.items()))
    return f"'{image_id}': {reason}" + (f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else "")
