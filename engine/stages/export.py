"""Write the files of each image in the format of another program."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from engine.errors import ImageError, StoreUnavailableError
from engine.export import FORMATS, FormatOptions, Item, Naming, Subset
from engine.imaging.decoding import decode_image, image_size, stored_form
from engine.records import Batch
from engine.resources import Decoding
from engine.storage.filesystem import join, write_bytes
from engine.storage.subsets import is_held_out

_JPEG_QUALITY = 95


class ExportImages:
    """Reads ``mask``, ``height``, ``width``, ``encoded`` or ``uri``, ``row``, ``tags``, ``confidence``; writes the
    files of each image.

    Adds ``name``, ``subset`` and ``entry`` (JSON); keeps only ``shard``, ``image_id`` and ``error``.
    """

    def __init__(
        self,
        format_name: str,
        options: FormatOptions,
        naming: Naming,
        *,
        decoding: Decoding,
        threads: int,
    ) -> None:
        """Args:
        threads: images whose files are written at the same time.
        """
        self._format = FORMATS[format_name](options)
        self._out = options.out
        self._naming = naming
        self._val_fraction = options.val_fraction
        self._decoding = decoding
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, batch: Batch) -> Batch:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        done = list(self._pool.map(self._export, rows))
        return {
            **{name: batch[name] for name in ("shard", "image_id")},
            "name": [name for name, _, _, _ in done],
            "subset": [subset for _, subset, _, _ in done],
            "entry": [entry for _, _, entry, _ in done],
            "error": [error for _, _, _, error in done],
        }

    def _export(self, row: dict[str, Any]) -> tuple[str | None, Subset | None, str | None, str | None]:
        if row["error"] is not None:
            return None, None, None, row["error"]
        name = self._naming.name_of(row["image_id"])
        subset: Subset = "val" if is_held_out(row["image_id"], self._val_fraction) else "train"
        picture = ""
        files: dict[str, bytes] = {}
        height, width = row["height"], row["width"]
        try:
            if row.get("encoded") is not None:
                ending, data = self._picture(row["encoded"], (height, width))
                picture = f"{self._format.picture_folder(subset)}/{name}{ending}"
                files[picture] = data
        except ImageError as error:
            return None, None, None, str(error)
        item = Item(
            name=name,
            row=row["row"],
            image_id=row["image_id"],
            image=row["image"],
            uri=row.get("uri") or "",
            picture=picture,
            subset=subset,
            png=row["mask"],
            height=height,
            width=width,
            tags=tuple(row["tags"]),
            confidence=row["confidence"],
        )
        own, entry = self._format.files(item)
        try:
            for path, data in (files | own).items():
                write_bytes(join(self._out, *path.split("/")), data)
        except OSError as error:  # such as a full disk, which no image causes
            raise StoreUnavailableError(str(error)) from error
        return name, subset, json.dumps(entry, ensure_ascii=False), None

    def _picture(self, encoded: bytes, size: tuple[int, int]) -> tuple[str, bytes]:
        """The image file: the original bytes, or re-encoded if other programs would not show it upright or read it."""
        if image_size(encoded, self._decoding.max_pixels) != size:
            raise ImageError("fetch", f"the size of the image no longer matches its mask ({size[1]} x {size[0]})")
        kind, is_upright = stored_form(encoded)
        if kind == "JPEG" and is_upright:
            return ".jpg", encoded
        if kind == "PNG" and is_upright and not self._format.only_jpeg:
            return ".png", encoded
        buffer = io.BytesIO()
        pixels = decode_image(encoded, self._decoding)
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
        return ".jpg", buffer.getvalue()
