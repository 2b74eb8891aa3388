"""Hugging Face ``datasets``: ``train/`` (and ``val/``) with ``images/``, ``masks/``, ``metadata.jsonl``; ``README.md``.

Source: huggingface.co/docs/datasets, "Create an image dataset" (ImageFolder): ``load_dataset("exported")`` gives a row
an image, with the columns ``image`` and ``mask`` as pictures. The folder can be uploaded to the Hub as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from engine.export.format import Exported, FormatOptions, Item, Opener, Subset
from engine.imaging.codecs import decode_mask, encode_mask

_SPLITS: dict[Subset, str] = {"train": "train", "val": "validation"}
METADATA = "metadata.jsonl"


class Datasets:
    """Image and mask (grey, class ids) of each row, its tags, confidence and image id."""

    writes: ClassVar[tuple[str, ...]] = ("train", "val", "README.md")
    copies_images: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True
    only_jpeg: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        self._class_names = options.class_names

    def picture_folder(self, subset: Subset) -> str:
        return f"{subset}/images"

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        mask = f"masks/{item.name}.png"
        row = {
            "file_name": item.picture.removeprefix(f"{item.subset}/"),
            "mask_file_name": mask,
            "image_id": item.image_id,
            "tags": item.tags,
            "confidence": item.confidence,
        }
        return {f"{item.subset}/{mask}": encode_mask(decode_mask(item.png), grey=True)}, row

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        subsets = [subset for subset in _SPLITS if any(one.subset == subset for one in exported())]
        for subset in subsets:
            with open_text(f"{subset}/{METADATA}") as file:
                for one in exported():
                    if one.subset == subset:
                        file.write(json.dumps(one.entry, ensure_ascii=False) + "\n")
        with open_text("README.md") as file:
            file.write("---\ntask_categories: [image-segmentation]\nconfigs:\n- config_name: default\n  data_files:\n")
            file.writelines(f"  - split: {_SPLITS[subset]}\n    path: {subset}/**\n" for subset in subsets)
            file.write("---\nMasks hold class ids: 0 is background, 255 (65535 in 16 bits) is ignore.\n\n")
            file.writelines(f"{class_id}. {name}\n" for class_id, name in enumerate(self._class_names, start=1))
