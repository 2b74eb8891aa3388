"""A finished jobs.run with its settings and folders, and the images that have truth, split into the two parts.

Settings were chosen on part ``dev``, a third of the images by the hash of their ids; ``held`` are the others, not used
for tuning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Settings
from engine.errors import StorageError
from engine.imaging.codecs import encode_mask
from engine.records import Batch
from engine.storage.filesystem import join, stem
from engine.storage.pictures import read_picture
from engine.storage.recorded_settings import recorded_settings
from engine.storage.run_record import RECORD_NAME, read_json
from engine.storage.subsets import is_held_out
from engine.storage.truth import open_truth
from engine.storage.user_manifest import iter_manifest

PARTS = ("dev", "held")
DEV_FRACTION = 1 / 3
MAX_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """The record of a finished jobs.run."""

    folder: Path
    data: str
    """The manifest."""
    truth: str
    """True masks; empty if the run was made without."""
    settings: Settings
    class_names: tuple[str, ...]

    def location(self, name: str) -> str:
        """Return a folder of the run."""
        return str(self.folder / name)


def read_run(folder: str) -> FinishedRun:
    """Read the finished run in a folder.

    Raises:
        StorageError: The folder has no finished run.
    """
    record = read_json(join(folder, RECORD_NAME))
    if record is None or record["job"] != "run":
        raise StorageError(f"'{folder}' has no {RECORD_NAME} of a finished jobs.run")
    options, settings = record["options"], recorded_settings({"run": (folder, ())})
    assert settings is not None
    return FinishedRun(
        folder=Path(folder),
        data=options["data"],
        truth=options["truth"],
        settings=settings,
        class_names=tuple(record["class_names"]),
    )


def in_part(image_id: str, part: str) -> bool:
    """Whether an image belongs to ``dev``, ``held`` or ``all``."""
    return part == "all" or is_held_out(image_id, DEV_FRACTION) == (part == "dev")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueImage:
    """An image with its tags and its true mask."""

    image_id: str
    image: str
    uri: str
    tags: list[str]
    mask: NDArray[np.integer[Any]]

    def batch(self, class_names: tuple[str, ...]) -> Batch:
        """The image as the first stage of a chain reads it."""
        class_ids = [class_names.index(tag) + 1 for tag in self.tags]
        empty: Batch = {name: [None] for name in ("height", "width", "error")}
        return {"encoded": [read_picture(self.uri)], "class_ids": [class_ids], **empty}


def images_with_truth(data: str, truth: str, part: str = "all") -> Iterator[TrueImage]:
    """The images of a manifest that have a true mask and belong to the part."""
    true_masks = open_truth(truth)
    for batch in iter_manifest(data):
        columns = (batch[name] for name in ("image_id", "image", "uri", "tags"))
        for image_id, image, uri, tags in zip(*columns, strict=True):
            mask = true_masks.mask_of(image_id, image) if in_part(image_id, part) else None
            if mask is not None:
                yield TrueImage(image_id=image_id, image=image, uri=uri, tags=tags, mask=mask)


def write_parts(data: str, truth: str, folder: Path) -> dict[str, str]:
    """Write the true masks of each part as a folder of PNGs; returns the folders."""
    folders = {part: folder / part for part in PARTS}
    for part, place in folders.items():
        place.mkdir(parents=True, exist_ok=True)
        for one in images_with_truth(data, truth, part):
            (place / f"{stem(one.image)}.png").write_bytes(encode_mask(one.mask))
    return {part: str(place) for part, place in folders.items()}
