"""True masks: a folder of PNGs, or the shards of a labeling job.

A PNG is named by the image's stem, or, where images in several folders have the same, by its whole id without the
picture's ending and with ``%2F`` for ``/``. (``jobs.export`` leaves out the folder that all ids share.)
"""

from __future__ import annotations

import posixpath
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from engine.errors import StorageError
from engine.records import decode_mask
from engine.storage.filesystem import join, list_names, read_bytes, stem
from engine.storage.shards import committed_shards, read_shard


class Truth:
    """Gives the true mask of an image, where there is one."""

    def __init__(self, folder: str, png_names: dict[str, str], shard_of: dict[str, tuple[int, int]]) -> None:
        self._folder = folder
        self._png_names = png_names
        self._shard_of = shard_of
        self._image_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._png_names) + len(self._shard_of)

    def mask_of(self, image_id: str, image: str) -> NDArray[np.integer[Any]] | None:
        """The true mask of an image.

        Args:
            image_id: finds the row of shards, or the PNG.
            image: its path; the stem finds the PNG.

        Returns:
            (H, W) uint8 or uint16, or None when there is no truth for the image.

        Raises:
            StorageError: the file cannot be read, or two images have the same.
        """
        if image_id in self._shard_of:
            shard, row = self._shard_of[image_id]
            picture = read_shard(self._folder, shard, ("mask",)).column("mask")[row].as_py()
            return None if picture is None else decode_mask(picture["bytes"])
        whole = quote(posixpath.splitext(image_id)[0], safe="")
        found = (self._png_names.get(one) for one in (image_id, whole, stem(image)))
        name = next((one for one in found if one is not None), None)
        if name is None:
            return None
        if self._image_of.setdefault(name, image) != image:
            raise StorageError(
                f"images '{self._image_of[name]}' and '{image}' have the same true mask '{name}'; allowed: PNGs that "
                f"are named by the whole id, '{whole}.png'"
            )
        location = join(self._folder, name)
        try:
            return decode_mask(read_bytes(location))
        except (OSError, SyntaxError, ValueError) as error:
            raise StorageError(f"the true mask '{location}' cannot be read: {error}") from error


def open_truth(folder: str) -> Truth:
    """Find the true masks of a folder.

    Args:
        folder: path or URI with PNGs, or with mask shards.

    Raises:
        StorageError: there are neither.
    """
    try:
        png_names = list_names(folder, suffix=".png")
    except OSError as error:
        raise StorageError(f"--truth cannot be read: {error}") from error
    shard_of: dict[str, tuple[int, int]] = {}
    for shard in sorted(committed_shards(folder)):
        ids = read_shard(folder, shard, ("image_id",)).column("image_id").to_pylist()
        shard_of |= {image_id: (shard, row) for row, image_id in enumerate(ids)}
    if not png_names and not shard_of:
        raise StorageError(f"--truth '{folder}' holds neither PNGs nor mask shards")
    return Truth(folder, {stem(name): name for name in png_names}, shard_of)
