"""Label Studio: brush pre-annotations as tasks to import, and the labeling interface that they need.

Source: labelstud.io, "Import pre-annotations", and its brush RLE (``label_studio_converter/brush.py``; the original is
``rle-pack`` of thi.ng/umbrella): a stream of bits with a head (32 bits: number of values; 5: bits of a value less one;
four times 4: the bits of a length less one, to choose from), then runs: a bit 1, 2 bits that choose among the four, the
length less one, the value. The values are those of a picture of red, green, blue and alpha, all 255 inside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from engine.export.format import Exported, FormatOptions, Item, Opener, Subset
from engine.imaging.codecs import decode_mask, voc_palette
from engine.storage.filesystem import absolute, is_uri, join

TASKS_PER_FILE = 1000
"""Tasks in one file; Label Studio takes files of some 200 MB."""
_CHANNELS = 4
_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)


class LabelStudio:
    """A task an image, whose prediction has a brush region for each class."""

    writes: ClassVar[tuple[str, ...]] = ("tasks", "images", "labeling_config.xml")
    copies_images: ClassVar[bool] = False
    needs_images: ClassVar[bool] = False
    only_jpeg: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        self._options = options

    def picture_folder(self, subset: Subset) -> str:
        return "images"

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        mask = decode_mask(item.png)
        shared = {
            "from_name": "tag",
            "to_name": "image",
            "type": "brushlabels",
            "original_width": item.width,
            "original_height": item.height,
            "image_rotation": 0,
        }
        regions = [
            {
                **shared,
                "id": f"{item.row}-{class_id}",
                "value": {
                    "format": "rle",
                    "rle": list(encode_brush(mask == class_id)),
                    "brushlabels": [self._options.class_names[class_id - 1]],
                },
            }
            for class_id in np.unique(mask).tolist()
            if 0 < class_id <= len(self._options.class_names)
        ]
        prediction = {"model_version": "tag2mask", "score": item.confidence, "result": regions}
        return {}, {"data": {"image": self._url(item), "image_id": item.image_id}, "predictions": [prediction]}

    def _url(self, item: Item) -> str:
        """How Label Studio finds the image: through its storage for S3, else through its local files from ``/``."""
        path = item.picture or item.image
        if self._options.image_url_prefix:
            return self._options.image_url_prefix + quote(path)
        location = join(absolute(self._options.out), item.picture) if item.picture else item.uri
        return location if is_uri(location) else "/data/local-files/?d=" + quote(location.lstrip("/"))

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        tasks = (one.entry for one in exported())
        number = 0
        while some := list(islice(tasks, TASKS_PER_FILE)):
            with open_text(f"tasks/tasks-{number:06d}.json") as file:
                json.dump(some, file, ensure_ascii=False)
            number += 1
        with open_text("labeling_config.xml") as file:
            file.write(self._interface())

    def _interface(self) -> str:
        palette = voc_palette()
        lines = ["<View>", '  <Image name="image" value="$image"/>', '  <BrushLabels name="tag" toName="image">']
        for class_id, name in enumerate(self._options.class_names, start=1):
            color = palette[class_id % 256 * 3 : class_id % 256 * 3 + 3].hex()
            lines.append(f'    <Label value={quoteattr(name)} background="#{color}"/>')
        return "\n".join([*lines, "  </BrushLabels>", "</View>", ""])


def encode_brush(region: NDArray[np.bool_]) -> bytes:
    """A region in Label Studio's brush RLE.

    Args:
        region: (H, W) bool.
    """
    flat = region.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    starts = np.append(0, ends[:-1])
    bits = [f"{flat.size * _CHANNELS:032b}{_VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        value = "11111111" if flat[start] else "00000000"
        left = (end - start) * _CHANNELS
        while left > 0:
            length = min(left, 1 << _LENGTH_BITS[-1])
            choice = next(index for index, size in enumerate(_LENGTH_BITS) if length <= 1 << size)
            bits.append(f"1{choice:02b}{length - 1:0{_LENGTH_BITS[choice]}b}{value}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
