"""PASCAL VOC: ``VOCdevkit/VOC2012/`` with SegmentationClass, JPEGImages and ImageSets/Segmentation.

Source: the VOC2012 development kit; ``torchvision.datasets.VOCSegmentation(out)`` reads it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from engine.export.format import Exported, FormatOptions, Item, Opener, Subset

_ROOT = "VOCdevkit/VOC2012"


class Voc:
    """Masks as PNGs with VOC's palette (16-bit grey beyond 254 classes), 255 (65535) for what does not count."""

    writes: ClassVar[tuple[str, ...]] = ("VOCdevkit",)
    copies_images: ClassVar[bool] = True
    needs_images: ClassVar[bool] = False
    only_jpeg: ClassVar[bool] = True

    def __init__(self, options: FormatOptions) -> None:
        self._class_names = options.class_names

    def picture_folder(self, subset: Subset) -> str:
        return f"{_ROOT}/JPEGImages"

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        return {f"{_ROOT}/SegmentationClass/{item.name}.png": item.png}, None

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        sets = f"{_ROOT}/ImageSets/Segmentation"
        with (
            open_text(f"{sets}/train.txt") as train,
            open_text(f"{sets}/val.txt") as val,
            open_text(f"{sets}/trainval.txt") as both,
        ):
            for one in exported():
                line = f"{one.name}\n"
                both.write(line)
                (train if one.subset == "train" else val).write(line)
        with open_text(f"{_ROOT}/classes.txt") as file:
            file.writelines(f"{name}\n" for name in self._class_names)
