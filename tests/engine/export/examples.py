"""Labeled images and their export without Ray: the stage and the lists, as jobs.export puts them together."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.export import FORMATS, Exported, FormatOptions, plan_names
from engine.imaging.codecs import encode_mask
from engine.records import mask_schema, shard_table
from engine.resources import Decoding
from engine.stages.export import ExportImages
from engine.storage.filesystem import atomic_file, join, write_bytes
from engine.storage.manifest import freeze_manifest
from engine.storage.run_record import write_json
from engine.storage.shards import write_shard

IDS = ("photos/a.jpg", "../b c.jpg", "photos/broken.jpg", "photos/unsure.jpg", "photos/lost.jpg")
FOLDER_CLASSES = ("cat", "dog", "cow")
CLASS_NAMES = ("cat", 'a dog\'s "bed"', "кот")


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """An image of a test with its mask."""

    image_id: str
    mask: NDArray[Any]
    encoded: bytes
    tags: tuple[str, ...] = ("cat",)
    confidence: float = 0.5
    error: str | None = None


def jpeg(height: int, width: int, *, orientation: int = 1, kind: str = "JPEG") -> bytes:
    """A smooth picture; with an EXIF orientation it is ``height`` x ``width`` before it is turned."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, 0 * rows], axis=2).astype(np.uint8)
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(buffer, format=kind, exif=exif)
    return buffer.getvalue()


def ring(height: int = 40, width: int = 60, dtype: type[Any] = np.uint8, class_id: int = 2) -> NDArray[Any]:
    """A mask with a ring (a hole), a single pixel, a diagonal line and a part that touches the border."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - 20, columns - 25)
    mask = np.zeros((height, width), dtype=dtype)
    mask[(distance < 15) & (distance > 6)] = class_id
    mask[20, 25] = 1
    mask[rows == columns - 20] = 1
    mask[30:, 50:] = class_id
    mask[0, 0] = np.iinfo(dtype).max  # does not count
    return mask


def export(
    out: str,
    format_name: str,
    items: list[Labeled],
    *,
    class_names: tuple[str, ...] = CLASS_NAMES,
    copy: bool = True,
    val_fraction: float = 0.0,
    image_url_prefix: str = "",
) -> list[Exported]:
    """Write an export and give what the lists were made from."""
    shared = FormatOptions(
        class_names=class_names,
        out=out,
        val_fraction=val_fraction,
        rows_per_shard=2,
        image_url_prefix=image_url_prefix,
    )
    stage = ExportImages(
        format_name,
        shared,
        plan_names(lambda: [item.image_id for item in items]),
        decoding=Decoding(max_pixels=10**6),
        threads=2,
    )
    batch: dict[str, list[Any]] = {
        "shard": [0] * len(items),
        "row": list(range(len(items))),
        "image_id": [item.image_id for item in items],
        "image": [f"photos/{number}.jpg" for number in range(len(items))],
        "tags": [list(item.tags) for item in items],
        "height": [None if item.error else item.mask.shape[0] for item in items],
        "width": [None if item.error else item.mask.shape[1] for item in items],
        "mask": [None if item.error else encode_mask(item.mask) for item in items],
        "confidence": [item.confidence for item in items],
        "error": [item.error for item in items],
    }
    batch |= {"encoded": [item.encoded for item in items]} if copy else {"uri": [f"/data/{n}" for n in batch["row"]]}
    made = stage(batch)
    exported = [
        Exported(name=name, image_id=image_id, subset=subset, entry=json.loads(entry))
        for name, image_id, subset, entry, error in zip(
            *(made[column] for column in ("name", "image_id", "subset", "entry", "error")), strict=True
        )
        if error is None
    ]
    FORMATS[format_name](shared).finish(lambda: iter(exported), partial(open_text, out))
    return exported


@contextmanager
def open_text(out: str, path: str) -> Iterator[TextIO]:
    with atomic_file(join(out, *path.split("/"))) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield file


def write_labeled_folder(folder: Path) -> Path:
    """A manifest of five images (``IDS``) and their masks: one an error, one unsure; the last image is gone.

    ``data/manifest.csv`` and ``masks/``, as jobs.label leaves them, in shards of two rows.
    """
    (folder / "data" / "photos").mkdir(parents=True)
    lines = ["image_id,image,tags", *(f"{image_id},photos/{n}.jpg,cat" for n, image_id in enumerate(IDS))]
    (folder / "data" / "manifest.csv").write_text("\n".join(lines) + "\n")
    for number in range(4):
        (folder / "data" / "photos" / f"{number}.jpg").write_bytes(jpeg(40, 60))
    masks = folder / "masks"
    manifest = freeze_manifest(
        str(folder / "data" / "manifest.csv"), str(masks / ".tag2mask"), rows_per_shard=2, class_names=FOLDER_CLASSES
    )
    good = [image_id != "photos/broken.jpg" for image_id in IDS]
    columns: dict[str, list[Any]] = {
        "image_id": list(IDS),
        "image": [f"photos/{n}.jpg" for n in range(5)],
        "height": [40 if ok else None for ok in good],
        "width": [60 if ok else None for ok in good],
        "tags": [["cat"]] * 5,
        "mask": [encode_mask(ring(class_id=1 + n % 3)) if ok else None for n, ok in enumerate(good)],
        "areas": [None] * 5,
        "confidence": [0.1 if image_id == "photos/unsure.jpg" else 0.9 for image_id in IDS],
        "error": [None if ok else "decode: truncated" for ok in good],
    }
    for shard in range(manifest.num_shards):
        part = {name: values[2 * shard : 2 * shard + 2] for name, values in columns.items()}
        write_shard(str(masks), shard, shard_table(part, mask_schema(keep_stages=False, metadata={})))
    record = {"job": "label", "settings": {}, "inputs": {}, "class_names": list(FOLDER_CLASSES)}
    write_json(str(masks / ".tag2mask" / "run.json"), record)
    return folder


def upload_labeled_folder(folder: Path, bucket: str) -> None:
    """The same in a bucket, where its images then lie too."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "manifest":
            write_bytes(f"{bucket}/{path.relative_to(folder)}", path.read_bytes())
    freeze_manifest(
        f"{bucket}/data/manifest.csv", f"{bucket}/masks/.tag2mask", rows_per_shard=2, class_names=FOLDER_CLASSES
    )
