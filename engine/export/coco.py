"""COCO: ``annotations/instances_train.json`` (and ``_val``), a segment in RLE for each class of each image.

Source: cocodataset.org, format-data; pycocotools reads it, and torchvision's ``CocoDetection`` with ``images`` as root.
As in COCO-stuff a segment is all of a class in an image, not one object. Pixels that do not count are in no segment.
Image ids are numbers in COCO, so ``image_id`` keeps ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TextIO

import numpy as np

from engine.errors import ConfigError
from engine.export.format import Exported, FormatOptions, Item, Opener, Subset
from engine.imaging.codecs import decode_mask


class Coco:
    """A segment for each class in RLE, with its area, box, and the mask's confidence as score."""

    writes: ClassVar[tuple[str, ...]] = ("annotations", "images")
    copies_images: ClassVar[bool] = True
    needs_images: ClassVar[bool] = False
    only_jpeg: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        """Raises:
        ConfigError: pycocotools is not installed.
        """
        try:
            import pycocotools.mask  # noqa: F401
        except ImportError as error:
            raise ConfigError("coco needs pycocotools: pip install pycocotools", thing="format") from error
        self._class_names = options.class_names

    def picture_folder(self, subset: Subset) -> str:
        return "images"

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        image = {
            "id": item.row + 1,
            "file_name": item.picture.removeprefix("images/") or item.image,
            "height": item.height,
            "width": item.width,
            "image_id": item.image_id,
        }
        return {}, {"image": image, "annotations": self._annotations(item)}

    def _annotations(self, item: Item) -> list[dict[str, Any]]:
        from pycocotools import mask as rle

        mask, num_classes = decode_mask(item.png), len(self._class_names)
        found = np.unique(mask)
        class_ids = found[(found > 0) & (found <= num_classes)].tolist()
        annotations = []
        for class_id in class_ids:
            encoded = rle.encode(np.asfortranarray((mask == class_id).astype(np.uint8)))
            annotations.append(
                {
                    "id": item.row * num_classes + class_id,
                    "image_id": item.row + 1,
                    "category_id": class_id,
                    "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
                    "area": int(rle.area(encoded)),
                    "bbox": rle.toBbox(encoded).tolist(),
                    "iscrowd": 0,
                    "score": item.confidence,
                }
            )
        return annotations

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        subsets: list[Subset] = ["train"]
        if any(one.subset == "val" for one in exported()):
            subsets.append("val")
        for subset in subsets:
            with open_text(f"annotations/instances_{subset}.json") as file:
                self._write(file, exported, subset)

    def _write(self, file: TextIO, exported: Callable[[], Iterator[Exported]], subset: Subset) -> None:
        """The file in one stream: a million segments do not fit into memory."""

        def entries() -> Iterator[Any]:
            return (one.entry for one in exported() if one.subset == subset)

        categories = [
            {"id": class_id, "name": name, "supercategory": ""} for class_id, name in enumerate(self._class_names, 1)
        ]
        info = {"description": "tag2mask; sizes and segments are those after EXIF orientation"}
        file.write(f'{{"info": {json.dumps(info)}, "licenses": [],\n"categories": ')
        file.write(json.dumps(categories, ensure_ascii=False))
        file.write(',\n"images": [')
        _write_list(file, (entry["image"] for entry in entries()))
        file.write('],\n"annotations": [')
        _write_list(file, (annotation for entry in entries() for annotation in entry["annotations"]))
        file.write("]}\n")


def _write_list(file: TextIO, values: Iterator[Any]) -> None:
    for number, value in enumerate(values):
        file.write((",\n" if number else "\n") + json.dumps(value, ensure_ascii=False))
