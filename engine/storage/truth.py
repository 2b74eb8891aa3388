"""True masks: a folder of PNGs, or the shards of a labeling job.

A PNG is named by the image's stem, or, where images in several folders have the same, by its whole id without the
picture's ending and with ``%2F`` for ``/``. What ``jobs.export`` wrote as PNG is found by its ``index.csv``. A
``labelmap.txt`` names the colours of the PNGs (:mod:`engine.imaging.true_masks`).
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from engine.errors import MissingError, StorageError, about, first_line
from engine.imaging.codecs import decode_mask
from engine.imaging.mask_colors import Color, read_label_map
from engine.imaging.true_masks import LABEL_MAP, ColorError, ReadBy, decode_true_mask
from engine.storage.filesystem import absolute, exists, join, list_names, name_of, parent, read_bytes, stem
from engine.storage.run_record import read_record
from engine.storage.shards import committed_shards, read_shard

EXPORTED, INDEX = "masks", "index.csv"
"""Folder of the PNGs of jobs.export, and beside it what says which name belongs to which image."""


class Truth:
    """Gives the true mask of an image, where there is one."""

    def __init__(
        self,
        folder: str,
        *,
        class_names: tuple[str, ...] | None,
        png_names: Mapping[str, str],
        shard_of: Mapping[str, tuple[int, int]],
        exported: Mapping[str, str] | None,
        labels: Mapping[str, Color] | None,
    ) -> None:
        """Args:
        folder: path or URI.
        class_names: names of the classes; None where any class is allowed.
        png_names: name of each PNG by its stem.
        shard_of: shard and row of each image id.
        exported: name of the PNG of each image id, where a list says it.
        labels: the colours of the PNGs by the name of the label, where they are not VOC's.
        """
        self._folder = folder
        self._class_names = class_names
        self._labels = labels
        self._png_names = png_names
        self._shard_of = shard_of
        self._exported = exported
        self._image_of: dict[str, str] = {}
        self.read_by: Counter[ReadBy] = Counter()
        """How many PNGs were read in each way so far."""

    @property
    def remark(self) -> str:
        """What a user should know of the way in which PNGs were read; empty where there is nothing odd."""
        count = self.read_by["VOC colors"]
        return f"true masks read by VOC's colours, as their ids differ: {count}" if count else ""

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
        if self._exported is not None:
            name = self._exported.get(image_id)
        else:
            by_id, by_stem = [image_id, whole], [stem(image)]
            # an id that has nothing to do with the file's name comes after it
            names = by_id + by_stem if stem(image_id) == stem(image) else by_stem + by_id
            name = next((self._png_names[one] for one in names if one in self._png_names), None)
        if name is None:
            return None
        if self._image_of.setdefault(name, image) != image:
            raise StorageError(
                f"'{name}' is the true mask of both '{self._image_of[name]}' and '{image}'; name PNGs by the whole id, "
                f"'{whole}.png'",
                thing="truth",
            )
        location = join(self._folder, name)
        with about("truth"):
            png = read_bytes(location)
        try:
            mask, read_by = decode_true_mask(png, self._class_names, self._labels)
        except ColorError as error:
            raise StorageError(f"'{location}' {error}", thing="truth") from error
        except Exception as error:
            # Pillow's decoders raise anything, MemoryError included
            raise StorageError(f"'{location}' cannot be read: {first_line(error)}", thing="truth") from error
        self.read_by[read_by] += 1
        return mask


def open_truth(folder: str, class_names: tuple[str, ...] | None = None) -> Truth:
    """Find the true masks of a folder.

    Args:
        folder: path or URI with PNGs, or with mask shards.
        class_names: of the masks that are scored; shards of other classes are refused, since their ids mean others.

    Raises:
        StorageError: there are neither, or the classes are others.
    """
    with about("truth"):
        png_names = [name for name in list_names(folder) if name.lower().endswith(".png")]
    shard_of: dict[str, tuple[int, int]] = {}
    for shard in sorted(committed_shards(folder)):
        ids = read_shard(folder, shard, ("image_id",)).column("image_id").to_pylist()
        shard_of |= {image_id: (shard, row) for row, image_id in enumerate(ids)}
    if not png_names and not shard_of:
        raise StorageError(f"'{folder}' holds neither PNGs nor mask shards", thing="truth")
    own = (read_record(folder) or {}).get("class_names") if shard_of else None
    if class_names is not None and own is not None and tuple(own) != class_names:
        raise StorageError(
            f"'{folder}' has the classes {', '.join(own)}; the masks have {', '.join(class_names)}", thing="truth"
        )
    return Truth(
        folder,
        class_names=class_names,
        png_names={stem(name): name for name in png_names},
        shard_of=shard_of,
        exported=_exported(folder, png_names),
        labels=_label_map(folder) if png_names else None,
    )


def _label_map(folder: str) -> dict[str, Color] | None:
    """The colours of a folder's PNGs; CVAT and Datumaro write them beside ``SegmentationClass``."""
    beside = name_of(absolute(folder)) == "SegmentationClass"
    for place in (folder, parent(absolute(folder)))[: 1 + beside]:
        location = join(place, LABEL_MAP)
        with about("truth"):
            try:
                return read_label_map(read_bytes(location).decode("utf-8-sig"))
            except MissingError:
                continue
            except ValueError as error:
                raise StorageError(f"'{location}' {error}", thing="truth") from error
    return None


def _exported(folder: str, png_names: list[str]) -> dict[str, str] | None:
    """Name of the PNG of each image id, as the list beside a folder of jobs.export has it; None without one."""
    folder = absolute(folder)
    index = join(parent(folder), INDEX)
    if name_of(folder) != EXPORTED or not png_names or not exists(index):
        return None
    try:
        rows = list(csv.DictReader(io.StringIO(read_bytes(index).decode())))
        return {row["image_id"]: f"{row['name']}.png" for row in rows}
    except KeyError:  # somebody else's
        return None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StorageError(f"'{index}' cannot be read: {error}", thing="truth") from error
