"""Training samples: an image decoded, augmented and cropped, with its target cut out the same way.

Source: jiwoon-ahn/psa, tool/imutils.py and voc12/data.py (the authors' augmentation).
Letters: B samples, C classes, (H, W) pixels, (h, w) cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import functional as color

from engine.config import TrainingConfig
from engine.errors import ImageError
from engine.records import IGNORE, IGNORE_16, Batch, decode_mask
from engine.stages.sample_order import samples_of_step
from engine.storage.images import decode_image
from engine.storage.manifest import open_manifest
from engine.storage.pictures import read_picture
from engine.storage.shards import read_shard

Target = Literal["tags", "seed", "mask"]
MAX_REDRAWS = 20
"""Unreadable images in a row after which training gives up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSource:
    """Where training samples come from."""

    manifest: str
    """Folder of the frozen manifest whose rows are the images."""
    target: Target
    """What is learned."""
    shards: str = ""
    """Folder of the shards with the target column; its rows are those of the manifest."""
    rows_of_shards: tuple[int, ...]
    num_classes: int
    grid_stride: int = 0
    """Pixels a cell of a seed."""
    max_pixels: int


class LoadSamples:
    """Reads ``step``; adds ``image`` (H, W, 3) uint8 and ``target``; ``batch_size`` rows for each step.

    ``target`` is (C,) float32 for tags, (h, w) int32 for a seed, (H, W) int32 for a mask; 255 (65535) does not count.
    """

    def __init__(self, source: SampleSource, config: TrainingConfig, *, rank: int, num_workers: int) -> None:
        """Args:
        rank: which part of each step's batch; 0 to num_workers - 1.
        """
        self._source = source
        self._config = config
        self._rank = rank
        self._num_workers = num_workers
        self._ignore = IGNORE if source.num_classes < IGNORE else IGNORE_16
        self._read = lru_cache(maxsize=256)(self._read_shard)

    def __call__(self, batch: dict[str, Any]) -> dict[str, NDArray[Any]]:
        pairs = [
            self.sample(epoch, shard, row) for step in batch["step"] for epoch, shard, row in self._assigned(int(step))
        ]
        return {
            "image": np.stack([image for image, _ in pairs]),
            "target": np.stack([target for _, target in pairs]),
        }

    def _assigned(self, step: int) -> list[tuple[int, int, int]]:
        config = self._config
        everyone = samples_of_step(
            self._source.rows_of_shards, step, batch_size=config.batch_size, rng_seed=config.rng_seed
        )
        return everyone[self._rank :: self._num_workers]

    def sample(self, epoch: int, shard: int, row: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """One sample; an image that cannot be used gives its place to another of its shard.

        Raises:
            ImageError: many in a row could not be read.
        """
        rng = np.random.default_rng([self._config.rng_seed, epoch, shard, row])
        failure: object = None
        for _ in range(MAX_REDRAWS):
            rows = self._read(shard)
            if rows["error"][row] is not None:
                failure = rows["error"][row]
            elif self._source.target == "tags" or rows["png"][row] is not None:
                try:
                    image = decode_image(
                        read_picture(rows["uri"][row]),
                        max_pixels=self._source.max_pixels,
                        draft_px=self._config.long_side_px[1],
                    )
                    return self._augmented(image, rows, row, rng)
                except (ImageError, OSError) as error:
                    failure = error
            shard = int(rng.choice(len(self._source.rows_of_shards), p=self._weights()))
            row = int(rng.integers(self._source.rows_of_shards[shard]))
        raise ImageError("training", f"{MAX_REDRAWS} images in a row cannot be used; the last: {failure}")

    def _weights(self) -> NDArray[np.float64]:
        rows = np.asarray(self._source.rows_of_shards, dtype=np.float64)
        weights: NDArray[np.float64] = rows / rows.sum()
        return weights

    def _read_shard(self, shard: int) -> Batch:
        rows = open_manifest(self._source.manifest).read_shard(shard)
        if self._source.target == "tags":
            return rows
        table = read_shard(self._source.shards, shard, ("image_id", self._source.target, "error"))
        assert table.column("image_id").to_pylist() == rows["image_id"], "shards and manifest disagree"
        pictures = table.column(self._source.target).to_pylist()
        return {
            **rows,
            "png": [None if picture is None else picture["bytes"] for picture in pictures],
            "error": table.column("error").to_pylist(),
        }

    def _augmented(
        self, image: NDArray[np.uint8], rows: Batch, row: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        crop = self._config.crop_px
        low, high = self._config.long_side_px
        factor = rng.integers(low, high, endpoint=True) / max(image.shape[:2])
        height, width = (max(1, round(side * factor)) for side in image.shape[:2])
        flip = bool(rng.random() < 0.5)
        top, left = _corner(height, crop, rng), _corner(width, crop, rng)

        picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        picture = _jittered(picture, self._config.color_jitter, rng)
        scaled = np.asarray(picture)
        pixels = np.full((crop, crop, 3), scaled.mean(axis=(0, 1)).astype(np.uint8), dtype=np.uint8)
        pixels[max(0, -top) : height - top, max(0, -left) : width - left] = scaled[
            max(0, top) : top + crop, max(0, left) : left + crop
        ]
        if flip:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if self._source.target == "tags":
            return pixels, image_labels(rows["class_ids"][row], self._source.num_classes)
        cell = self._source.grid_stride if self._source.target == "seed" else 1
        target = cut_labels(
            decode_mask(rows["png"][row]), (height, width), (top, left), crop=crop, cell=cell, ignore=self._ignore
        )
        return pixels, np.ascontiguousarray(target[:, ::-1]) if flip else target


def image_labels(class_ids: list[int], num_classes: int) -> NDArray[np.float32]:
    """The classes that an image's tags name: (C,) float32 of 0 and 1, for ids from 1."""
    labels = np.zeros(num_classes, dtype=np.float32)
    labels[np.asarray(class_ids, dtype=np.int64) - 1] = 1
    return labels


def cut_labels(
    labels: NDArray[np.integer[Any]],
    size: tuple[int, int],
    corner: tuple[int, int],
    *,
    crop: int,
    cell: int,
    ignore: int,
) -> NDArray[np.int32]:
    """The part of a map of labels that a crop of the scaled image covers, by the nearest label.

    Args:
        labels: (h', w') over the whole image, on any grid.
        size: height and width of the scaled image, pixels.
        corner: top and left of the crop in it, pixels; negative where the crop reaches beyond.
        crop: side of the crop, pixels.
        cell: pixels of the crop for one label of the result.

    Returns:
        (ceil(crop / cell), ceil(crop / cell)) int32; ``ignore`` beyond the image.
    """
    index: list[NDArray[np.int64]] = []
    inside: list[NDArray[np.bool_]] = []
    for start, length, num_labels in zip(corner, size, labels.shape, strict=True):
        centers = start + (np.arange(-(-crop // cell)) + 0.5) * cell
        inside.append((centers >= 0) & (centers < length))
        index.append(np.clip(centers * num_labels / length, 0, num_labels - 1).astype(np.int64))
    cut = labels[np.ix_(*index)].astype(np.int32)
    return np.where(np.outer(*inside), cut, np.int32(ignore))


def _corner(length: int, crop: int, rng: np.random.Generator) -> int:
    spare = length - crop
    return int(rng.integers(min(spare, 0), max(spare, 0), endpoint=True))


def _jittered(picture: Image.Image, jitter: tuple[float, float, float, float], rng: np.random.Generator) -> Image.Image:
    brightness, contrast, saturation = (float(rng.uniform(max(0, 1 - most), 1 + most)) for most in jitter[:3])
    picture = color.adjust_brightness(picture, brightness)
    picture = color.adjust_contrast(picture, contrast)
    picture = color.adjust_saturation(picture, saturation)
    if jitter[3] > 0:
        picture = color.adjust_hue(picture, float(rng.uniform(-jitter[3], jitter[3])))
    return picture
