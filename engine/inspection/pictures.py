"""What a sample of the images is: formats, modes, sizes, blank and identical files, and those that cannot be read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from engine.errors import ImageError
from engine.imaging.decoding import decode_image, image_size, stored_mode
from engine.records import Batch
from engine.resources import Decoding
from engine.stages.fetch import FetchImages
from engine.storage.manifest import Manifest, SingleRows
from engine.storage.pictures import page_bytes

NUM_DECODED, NUM_COMPARED = 128, 1000
_COMPARED_BYTES = 256 << 20
"""Most that is read to find identical files."""
_THREADS = 4
"""Files in memory at once; a picture may be large."""
_DRAFT_PX = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One image of the sample."""

    image_id: str
    error: str = ""
    """``stage: reason`` where it cannot be used."""
    kind: str = ""
    """Format and mode, such as ``JPEG RGB``."""
    height: int = 0
    width: int = 0
    num_bytes: int = 0
    is_blank: bool = False
    """Whether all pixels are alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureStatistics:
    """The sample."""

    pictures: list[Picture]
    num_compared: int
    """Images whose files were compared."""
    identical: list[tuple[str, str]]
    """(id, id of an earlier image) of files that are the same byte for byte."""
    largest_page: int
    """Most bytes of a Parquet file that are read for one image, with its neighbors; 0 for other files."""

    @property
    def read(self) -> list[Picture]:
        """Those that can be used."""
        return [one for one in self.pictures if not one.error]


def sample_rows(manifest: Manifest, num: int) -> Batch:
    """Rows of a manifest, evenly spread; their tags do not matter."""
    numbers = np.unique(np.linspace(0, manifest.num_rows - 1, min(num, manifest.num_rows)).astype(int))
    single = SingleRows(manifest=replace(manifest, needs_tags=False))
    rows = [single.read_shard(int(number)) for number in numbers]
    return {name: [row[name][0] for row in rows] for name in rows[0]}


def picture_statistics(manifest: Manifest, decoding: Decoding) -> PictureStatistics:
    """Read some images and decode fewer.

    Raises:
        StoreUnavailableError: The store of the images does not respond or rejects the credentials.
        StorageError: The frozen manifest is damaged or cannot be read.
    """
    look = partial(_look_at, decoding=decoding)
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = sample_rows(manifest, NUM_DECODED)
        pictures = [one for files in _files(rows) for one in pool.map(look, *files)]
    num_bytes = sum(one.num_bytes for one in pictures)
    num = min(NUM_COMPARED, _COMPARED_BYTES * len(pictures) // max(1, num_bytes)) if num_bytes else 0
    seen: dict[bytes, str] = {}
    identical: list[tuple[str, str]] = []
    for image_ids, encoded, _ in _files(sample_rows(manifest, num)) if num else ():
        for image_id, file in zip(image_ids, encoded, strict=True):
            first = image_id if file is None else seen.setdefault(hashlib.sha256(file).digest(), image_id)
            if first != image_id:
                identical.append((image_id, first))
    return PictureStatistics(
        pictures=pictures,
        num_compared=min(num, manifest.num_rows),
        identical=identical,
        largest_page=max(map(page_bytes, rows["uri"])),
    )


def _files(rows: Batch) -> Iterator[tuple[list[str], list[bytes | None], list[str | None]]]:
    """Ids, files and errors of some rows at a time."""
    fetch = FetchImages(threads=_THREADS)
    for start in range(0, len(rows["uri"]), _THREADS):
        batch = fetch({name: values[start : start + _THREADS] for name, values in rows.items()})
        yield batch["image_id"], batch["encoded"], batch["error"]


def _look_at(image_id: str, encoded: bytes | None, error: str | None, *, decoding: Decoding) -> Picture:
    if encoded is None:
        return Picture(image_id=image_id, error=error or "")
    try:
        height, width = image_size(encoded, decoding.max_pixels)
        pixels = decode_image(encoded, decoding, draft_px=_DRAFT_PX)
    except ImageError as failure:
        return Picture(image_id=image_id, error=str(failure), num_bytes=len(encoded))
    return Picture(
        image_id=image_id,
        kind=stored_mode(encoded),
        height=height,
        width=width,
        num_bytes=len(encoded),
        is_blank=bool((pixels == pixels[0, 0]).all()),
    )
