"""Training samples: images decoded, augmented and cropped, with targets cropped the same way.

Source: jiwoon-ahn/psa, tool/imutils.py and voc12/data.py (the authors' augmentation).
Letters: B samples, C classes, (H, W) pixels, (h, w) cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from engine.config import TrainingConfig
from engine.errors import ImageError, TooManyErrors
from engine.fitting.sample_order import WINDOW_ROWS, held_out_of_step, num_steps, samples_of_step
from engine.imaging.codecs import decode_mask
from engine.imaging.decoding import decode_image
from engine.records import IGNORE, IGNORE_16, Batch
from engine.storage.manifest import Manifest, open_manifest
from engine.storage.pictures import file_of, read_picture
from engine.storage.probes import check_store
from engine.storage.retries import expect_stores
from engine.storage.shards import read_shard
from engine.storage.subsets import is_held_out

Target = Literal["tags", "seed", "mask"]
MAX_REDRAWS = 20
"""Unusable images in a row before training fails."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSource:
    """What training samples are read from."""

    manifest: str
    """Folder of the frozen manifest whose rows are the images."""
    target: Target
    """What the network learns to predict."""
    shards: str = ""
    """Folder of the shards with the target column; its rows match the manifest."""
    rows_of_shards: tuple[int, ...]
    """Training images in each shard."""
    held_out_of_shards: tuple[int, ...] = ()
    """Held-out images in each shard."""
    val_fraction: float = 0.0
    """Fraction of the images that is held out: see :func:`engine.storage.subsets.is_held_out`."""
    confidence_power: float = 0.0
    """The weight of a mask is its confidence to this power."""
    min_confidence: float = 0.0
    """Training uses only masks of at least this confidence; validation uses all held-out masks."""
    num_classes: int
    grid_stride: int = 0
    """Pixels per cell of a seed."""
    max_pixels: int


def steps_of(source: SampleSource, config: TrainingConfig) -> int:
    """Number of steps of a training."""
    return num_steps(sum(source.rows_of_shards), num_epochs=config.num_epochs, batch_size=config.batch_size)


Sample = tuple[NDArray[np.uint8], NDArray[Any], float]
"""Image, target and weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """A crop of the scaled image."""

    size: tuple[int, int]
    """Height and width of the scaled image, pixels."""
    corner: tuple[int, int]
    """Top and left of the crop in the scaled image, pixels; negative if the crop extends beyond it."""
    flip: bool = False


class LoadSamples:
    """Reads ``step``, ``held_out``; adds ``image`` (H, W, 3) uint8, ``target``, ``weight`` float32.

    Each step becomes this worker's part of its ``batch_size`` samples: random crops of training images, or whole
    held-out images. ``target`` is (C,) float32 for tags, (h, w) int32 for a seed, (H, W) int32 for a mask; 255 (65535)
    is ignored. ``weight`` is 0 for a held-out image that cannot be used and for the padding of the last batch.
    """

    def __init__(self, source: SampleSource, config: TrainingConfig, *, rank: int, num_workers: int) -> None:
        """Args:
        rank: this worker's part of each batch; 0 to num_workers - 1.
        """
        self._source = source
        self._config = config
        self._rank = rank
        self._num_workers = num_workers
        self._ignore = IGNORE if source.num_classes < IGNORE else IGNORE_16
        shards = WINDOW_ROWS // max(1, *source.rows_of_shards) + 2  # the shards whose rows are shuffled together
        self._read = lru_cache(maxsize=shards)(self._read_shard)

    @cached_property
    def _manifest(self) -> Manifest:
        return open_manifest(self._source.manifest)

    def __call__(self, batch: dict[str, Any]) -> dict[str, NDArray[Any]]:
        expect_stores()
        samples = [
            sample
            for step, held_out in zip(batch["step"], batch["held_out"], strict=True)
            for sample in (self._held_out(int(step)) if held_out else self._training(int(step)))
        ]
        return {
            "image": np.stack([image for image, _, _ in samples]),
            "target": np.stack([target for _, target, _ in samples]),
            "weight": np.array([weight for _, _, weight in samples], dtype=np.float32),
        }

    def _training(self, step: int) -> list[Sample]:
        return [self.sample(*place) for place in self._places(step)[self._rank :: self._num_workers]]

    def _places(self, step: int) -> list[tuple[int, int, int]]:
        config = self._config
        return samples_of_step(
            self._source.rows_of_shards, step, batch_size=config.batch_size, rng_seed=config.rng_seed
        )

    def first(self) -> Sample:
        """The first training sample; raises as :meth:`sample`."""
        return self.sample(*self._places(0)[0])

    def _held_out(self, number: int) -> list[Sample]:
        everyone = held_out_of_step(self._source.held_out_of_shards, number, batch_size=self._config.batch_size)
        return [self.held_out(place) for place in everyone[self._rank :: self._num_workers]]

    def sample(self, epoch: int, shard: int, row: int) -> Sample:
        """One training sample; an image that cannot be used is replaced by another.

        Raises:
            TooManyErrors: many images in a row could not be used.
            StoreUnavailableError: the store of the images stays unavailable or refuses the credentials.
        """
        rng, jitter = np.random.default_rng([self._config.rng_seed, epoch, shard, row]), self._config.color_jitter
        failure: object = None
        for _ in range(MAX_REDRAWS):
            rows = self._read(shard, held_out=False)
            try:
                image = self._image(rows, row)
                view = self._random_view(image, rng)
                return self._cut(image, rows, row, view, lambda picture: _jittered(picture, jitter, rng))
            except (ImageError, FileNotFoundError) as error:
                failure = error
            except OSError as error:
                check_store(file_of(rows["uri"][row]))  # if the store is down, no other image can be read either
                failure = error
            shard = int(rng.choice(len(self._source.rows_of_shards), p=self._weights()))
            row = int(rng.integers(self._source.rows_of_shards[shard]))
        raise TooManyErrors(f"{MAX_REDRAWS} images in a row cannot be used; the last: {failure}")

    def held_out(self, place: tuple[int, int] | None) -> Sample:
        """One validation sample: a whole image without augmentation, or weight 0 if there is none.

        Args:
            place: shard, and row among its held-out rows.

        Raises:
            StoreUnavailableError: as for :meth:`sample`.
        """
        crop = self._config.crop_px
        if place is not None:
            rows = self._read(place[0], held_out=True)
            try:
                image = self._image(rows, place[1])
            except (ImageError, FileNotFoundError):
                pass
            except OSError:
                check_store(file_of(rows["uri"][place[1]]))
            else:
                height, width = (max(1, round(side * crop / max(image.shape[:2]))) for side in image.shape[:2])
                view = _View(size=(height, width), corner=(-((crop - height) // 2), -((crop - width) // 2)))
                pixels, target, _ = self._cut(image, rows, place[1], view, lambda picture: picture)
                return pixels, target, 1.0
        target = np.full((-(-crop // self._cell),) * 2, self._ignore, dtype=np.int32)
        if self._source.target == "tags":
            target = image_labels([], self._source.num_classes)
        return np.zeros((crop, crop, 3), dtype=np.uint8), target, 0.0

    @property
    def _cell(self) -> int:
        return self._source.grid_stride if self._source.target == "seed" else 1

    def _weights(self) -> NDArray[np.float64]:
        rows = np.asarray(self._source.rows_of_shards, dtype=np.float64)
        weights: NDArray[np.float64] = rows / rows.sum()
        return weights

    def _read_shard(self, shard: int, *, held_out: bool) -> Batch:
        """The training rows or the held-out rows of one shard."""
        source = self._source
        rows = self._manifest.read_shard(shard)
        if source.target != "tags":
            columns = ["image_id", source.target, "error"]
            if source.confidence_power or source.min_confidence:
                columns.append("confidence")
            table = read_shard(source.shards, shard, columns)
            assert table.column("image_id").to_pylist() == rows["image_id"], "shards and manifest disagree"
            pictures = table.column(source.target).to_pylist()
            rows = {**rows, **{name: table.column(name).to_pylist() for name in columns[2:]}}
            rows["png"] = [None if picture is None else picture["bytes"] for picture in pictures]
        if not (source.val_fraction or source.min_confidence):
            return rows
        kept = kept_rows(source, rows["image_id"], rows.get("confidence"), held_out=held_out)
        return {name: [values[row] for row in kept] for name, values in rows.items()}

    def _image(self, rows: Batch, row: int) -> NDArray[np.uint8]:
        """The decoded image of a row.

        Raises:
            ImageError: the row carries an error, or the image cannot be decoded.
            OSError: it cannot be read.
        """
        if rows["error"][row] is not None:
            stage, _, reason = rows["error"][row].partition(": ")
            raise ImageError(stage, reason)
        if self._source.target != "tags" and rows["png"][row] is None:
            raise ImageError("training", f"the row has no {self._source.target}")
        return decode_image(
            read_picture(rows["uri"][row]),
            self._manifest.decoding(self._source.max_pixels),
            draft_px=self._config.long_side_px[1],
        )

    def _random_view(self, image: NDArray[np.uint8], rng: np.random.Generator) -> _View:
        low, high = self._config.long_side_px
        factor = rng.integers(low, high, endpoint=True) / max(image.shape[:2])
        height, width = (max(1, round(side * factor)) for side in image.shape[:2])
        flip, crop = bool(rng.random() < 0.5), self._config.crop_px
        return _View(size=(height, width), corner=(_corner(height, crop, rng), _corner(width, crop, rng)), flip=flip)

    def _cut(
        self,
        image: NDArray[np.uint8],
        rows: Batch,
        row: int,
        view: _View,
        colored: Callable[[Image.Image], Image.Image],
    ) -> Sample:
        """Crop an image and its target."""
        crop, (height, width), (top, left) = self._config.crop_px, view.size, view.corner
        picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        scaled = np.asarray(colored(picture))
        pixels = np.full((crop, crop, 3), scaled.mean(axis=(0, 1)).astype(np.uint8), dtype=np.uint8)
        pixels[max(0, -top) : height - top, max(0, -left) : width - left] = scaled[
            max(0, top) : top + crop, max(0, left) : left + crop
        ]
        if view.flip:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if self._source.target == "tags":
            return pixels, image_labels(rows["class_ids"][row], self._source.num_classes), 1.0
        target = cut_labels(
            decode_mask(rows["png"][row]), view.size, view.corner, crop=crop, cell=self._cell, ignore=self._ignore
        )
        power = self._source.confidence_power
        weight = float(rows["confidence"][row]) ** power if power else 1.0
        return pixels, np.ascontiguousarray(target[:, ::-1]) if view.flip else target, weight


def kept_rows(
    source: SampleSource, image_ids: Sequence[str], confidences: Sequence[float | None] | None, *, held_out: bool
) -> list[int]:
    """Indices of the training rows or of the held-out rows of a shard.

    Args:
        confidences: of the masks, None in an error row; required with ``min_confidence``.
    """
    kept = [row for row, name in enumerate(image_ids) if is_held_out(name, source.val_fraction) == held_out]
    if held_out or not source.min_confidence:
        return kept
    assert confidences is not None
    return [row for row in kept if (confidences[row] or 0.0) >= source.min_confidence]


def image_labels(class_ids: list[int], num_classes: int) -> NDArray[np.float32]:
    """Encode the classes of an image's tags: (C,) float32 of 0 and 1, for ids from 1."""
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
    """Crop a label map like its scaled image, by nearest neighbor.

    Args:
        labels: (h', w') over the whole image, at any resolution.
        size: height and width of the scaled image, pixels.
        corner: top and left of the crop in the scaled image, pixels; negative if the crop extends beyond it.
        crop: side of the crop, pixels.
        cell: pixels of the crop per label of the result.

    Returns:
        (ceil(crop / cell), ceil(crop / cell)) int32; ``ignore`` outside the image.
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
    """The image in other colors, as by torchvision's ``ColorJitter``, whose import takes seconds."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhancer, most in zip(enhancers, jitter[:3], strict=True):
        picture = enhancer(picture).enhance(float(rng.uniform(max(0, 1 - most), 1 + most)))
    if jitter[3] > 0:
        turn = int(255 * rng.uniform(-jitter[3], jitter[3]))
        hue, *others = picture.convert("HSV").split()
        turned = hue.point([(value + turn) % 256 for value in range(256)])
        picture = Image.merge("HSV", (turned, *others)).convert("RGB")
    return picture
