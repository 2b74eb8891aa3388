"""Read tags from masks in VOC's ``SegmentationClass``, by ids or by the colors of a ``labelmap.txt``."""

from __future__ import annotations

import numpy as np

from engine.errors import StorageError, first_line
from engine.imaging.codecs import class_color, decode_mask
from engine.imaging.mask_colors import VOC_COLORS, Color, ids_by_color, read_label_map
from engine.imports.remarks import Remarks
from engine.records import IGNORE
from engine.storage.class_names import BACKGROUND
from engine.storage.filesystem import exists, join, read_bytes
from engine.storage.retries import readable

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_IGNORED = -1
_PALETTE = b"\x03"
"""Color type in a PNG's header, at byte 25."""


class MaskTags:
    """Reads the class names in masks, and checks at the end that any mask had a class."""

    def __init__(self, source: str, remarks: Remarks) -> None:
        """Args:
        source: The VOC folder. The classes are the lines of its ``classes.txt``, as jobs.export writes it, else the
            labels of its ``labelmap.txt``, else VOC's twenty.
        remarks: Records masks that are read by color.

        Raises:
            StorageError: One of these files cannot be read.
        """
        self.names: tuple[str, ...] = VOC_CLASSES
        self._remarks = remarks
        self._label_map = ""
        self._ids: dict[Color, int] = {}
        self._some_class = self._some_ignored = False
        names, label_map = join(source, "classes.txt"), join(source, "labelmap.txt")
        if exists(names):
            self.names = tuple(_text(names).rstrip().split("\n"))
        elif exists(label_map):
            self._label_map = label_map
            self._read_label_map(label_map)
        if not self._ids:
            self._ids = {color: class_id for color, class_id in VOC_COLORS.items() if class_id <= len(self.names)}
        self._ids.setdefault(class_color(0), 0)
        self._ids.setdefault(class_color(IGNORE), _IGNORED)

    def _read_label_map(self, location: str) -> None:
        try:
            labels = read_label_map(_text(location))
        except ValueError as error:
            raise StorageError(f"'{location}' {error}") from error
        unlabeled = {name for name, color in labels.items() if name == BACKGROUND or color == class_color(IGNORE)}
        self.names = tuple(name for name in labels if name not in unlabeled)
        self._ids = {labels[name]: class_id for class_id, name in enumerate(self.names, start=1)}
        if BACKGROUND in labels:
            self._ids[labels[BACKGROUND]] = 0

    def of(self, location: str) -> tuple[str, ...]:
        """Return the class names in a mask.

        Raises:
            StorageError: The mask cannot be read, or contains an unknown id or color.
        """
        png = read_bytes(location)
        try:
            mask = decode_mask(png)
        except (OSError, SyntaxError, ValueError) as error:
            raise StorageError(f"'{location}' is not a readable mask: {first_line(error)}") from error
        if self._label_map or mask.ndim == 3:
            try:
                ids = set(np.unique(ids_by_color(png, self._ids)).tolist())
            except ValueError as error:
                reason = self._label_map or "VOC's palette; add a labelmap.txt that lists it next to JPEGImages"
                raise StorageError(f"'{location}' {error} of {reason}") from error
        else:
            ignored = np.iinfo(mask.dtype).max
            ids = {_IGNORED if value == ignored else value for value in np.unique(mask).tolist()}
            if png[25:26] == _PALETTE:
                ids = self._ids_of_palette(png, ids, location)
        self._some_ignored |= _IGNORED in ids
        ids -= {0, _IGNORED}
        self._some_class |= bool(ids)
        if ids and max(ids) > len(self.names):
            raise StorageError(
                f"'{location}' contains class {max(ids)}, but there are {len(self.names)} classes; add a classes.txt "
                "next to JPEGImages"
            )
        return tuple(self.names[class_id - 1] for class_id in sorted(ids))

    def _ids_of_palette(self, png: bytes, ids: set[int], location: str) -> set[int]:
        """Read ids by color, because PNG optimizers reorder the palette; a custom palette keeps its ids."""
        try:
            by_color = set(np.unique(ids_by_color(png, self._ids)).tolist())
        except ValueError:  # a custom palette
            return ids
        if by_color != ids:
            self._remarks.add("masks with VOC's colors in another order (read by color)", location)
        return by_color

    def check(self) -> None:
        """Raise StorageError if no mask had a class, but some contained 255."""
        if self._some_ignored and not self._some_class:
            raise StorageError(
                "has only masks of 0 (background) and 255 (ignore); use class ids, or add a labelmap.txt next to "
                "JPEGImages with the line name:255,255,255::"
            )


def _text(location: str) -> str:
    with readable(location, "list of classes"):
        return read_bytes(location).decode("utf-8-sig")
