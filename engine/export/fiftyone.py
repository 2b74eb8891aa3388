"""FiftyOne: ``samples.json``, ``metadata.json``, and the masks in ``fields/pseudo_mask/``.

Source: FiftyOne's own JSON on disk without the version of its database, as ``LegacyFiftyOneDatasetImporter`` of
``fiftyone.utils.data.importers`` reads it. ``fiftyone.Dataset.from_dir`` with ``fiftyone.types.FiftyOneDataset`` takes
that way where ``metadata.json`` names no version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from engine.export.format import Exported, FormatOptions, Item, Opener, Subset
from engine.imaging.codecs import decode_mask, encode_mask

FIELD = "pseudo_mask"
"""Name of the samples' field with the mask."""


class FiftyOne:
    """A sample an image: a Segmentation by its path, the tags as Classifications, confidence and image id."""

    writes: ClassVar[tuple[str, ...]] = ("samples.json", "metadata.json", "fields", "data")
    copies_images: ClassVar[bool] = False
    needs_images: ClassVar[bool] = False
    only_jpeg: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        self._class_names = options.class_names

    def picture_folder(self, subset: Subset) -> str:
        return "data"

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        path = f"fields/{FIELD}/{item.name}.png"
        tags = [{"_cls": "Classification", "label": tag, "tags": []} for tag in item.tags]
        sample = {
            "filepath": item.picture or item.uri,
            "tags": [item.subset],
            "image_id": item.image_id,
            "confidence": item.confidence,
            "image_tags": {"_cls": "Classifications", "classifications": tags},
            FIELD: {"_cls": "Segmentation", "tags": [], "mask_path": path},
        }
        # OpenCV, by which FiftyOne reads, makes colours of a palette
        return {path: encode_mask(decode_mask(item.png), grey=True)}, sample

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        targets = {str(class_id): name for class_id, name in enumerate(self._class_names, start=1)}
        info = {"classes": {FIELD: list(self._class_names)}, "mask_targets": {FIELD: targets}}
        with open_text("metadata.json") as file:
            json.dump({"name": "tag2mask", "media_type": "image", "info": info}, file, ensure_ascii=False)
        with open_text("samples.json") as file:
            file.write('{"samples": [')
            for number, one in enumerate(exported()):
                file.write((",\n" if number else "\n") + json.dumps(one.entry, ensure_ascii=False))
            file.write("]}\n")
