"""Mask shards in PyTorch: images with their masks, by index or as a stream.

The images are found through the manifest that the masks were made from, wherever they lie. Rows that carry an error,
and masks that are too unsure, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from engine.checks import require_at_least, require_fractions
from engine.errors import StorageError
from engine.imaging.codecs import decode_mask
from engine.imaging.decoding import decode_image
from engine.storage.filesystem import as_location, join
from engine.storage.labeled import LabeledManifest
from engine.storage.manifest import has_manifest, open_manifest
from engine.storage.pictures import read_picture
from engine.storage.run_record import WORK_FOLDER
from engine.storage.shards import committed_shards

Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image and its mask."""

    image_id: str
    image: Tensor
    """(3, H, W) uint8 RGB, upright; (3, 0, 0) where images are not read."""
    mask: Tensor
    """(H, W) uint8, int32 beyond 254 classes: 0 background, 1.. the classes, 255 (65535) does not count."""
    tags: tuple[str, ...]
    confidence: float
    """[0, 1]: how good the mask is expected to be."""


def collate(samples: Sequence[Sample], **_: Any) -> dict[str, Any]:
    """A batch of samples, padded at the right and bottom to the largest; what a DataLoader does with them by default.

    Returns:
        ``image``: (B, 3, H, W) uint8, padded with 0; ``mask``: (B, H, W), padded with what does not count;
        ``confidence``: (B,) float32; ``image_id`` and ``tags``: lists.
    """
    ignore = 255 if samples[0].mask.dtype == torch.uint8 else 65535
    return {
        "image_id": [sample.image_id for sample in samples],
        "image": _padded([sample.image for sample in samples], 0),
        "mask": _padded([sample.mask for sample in samples], ignore),
        "tags": [sample.tags for sample in samples],
        "confidence": torch.tensor([sample.confidence for sample in samples]),
    }


def _padded(parts: Sequence[Tensor], value: int) -> Tensor:
    height, width = (max(part.shape[side] for part in parts) for side in (-2, -1))
    return torch.stack(
        [functional.pad(part, (0, width - part.shape[-1], 0, height - part.shape[-2]), value=value) for part in parts]
    )


default_collate_fn_map[Sample] = collate


class _Shards:
    """Reads the samples of mask shards; small until it is used, so that it travels to the workers of a DataLoader."""

    def __init__(self, masks: str, *, images: bool, min_confidence: float, max_pixels: int) -> None:
        if not has_manifest(join(masks, WORK_FOLDER)):
            raise StorageError(
                f"'{masks}' holds no masks; give the output folder of jobs.label or jobs.segment", thing="masks"
            )
        manifest = open_manifest(join(masks, WORK_FOLDER))
        if missing := manifest.num_shards - len(committed_shards(masks)):
            raise StorageError(f"'{masks}' lacks {missing} of {manifest.num_shards} shards; run the job again")
        self.rows = LabeledManifest.of(manifest, masks=masks, min_confidence=min_confidence)
        self._images = images
        self._max_pixels = max_pixels
        self._rank: tuple[int, int] | None = None
        self._start_cache()

    def _start_cache(self) -> None:
        # a shard stays while its rows are asked for one by one
        self._read = lru_cache(maxsize=8)(self.rows.read_shard)

    def __getstate__(self) -> dict[str, Any]:
        # a worker that is not forked knows nothing of the process group
        kept = {name: value for name, value in self.__dict__.items() if name != "_read"}
        return {**kept, "_rank": self.rank()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_cache()

    def rank(self) -> tuple[int, int]:
        """This process's rank, or that of the process that sent this here, and how many there are."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._rank or (0, 1)

    def good_rows(self, shard: int) -> list[int]:
        return [row for row, error in enumerate(self._read(shard)["error"]) if error is None]

    def samples(self, shard: int, rows: list[int]) -> Iterator[Sample]:
        batch = self._read(shard)
        for row in rows:
            yield self._sample({name: values[row] for name, values in batch.items()})

    def _sample(self, row: dict[str, Any]) -> Sample:
        mask = decode_mask(row["mask"])
        image = np.zeros((0, 0, 3), dtype=np.uint8)
        if self._images:
            image = decode_image(read_picture(row["uri"]), self.rows.decoding(self._max_pixels))
        return Sample(
            image_id=row["image_id"],
            image=torch.from_numpy(image).permute(2, 0, 1),
            mask=torch.from_numpy(mask.astype(np.int32 if mask.dtype == np.uint16 else np.uint8)),
            tags=tuple(row["tags"]),
            confidence=row["confidence"],
        )


@dataclass(eq=False)
class _Masks(Generic[Result]):
    """What index and stream have in common.

    Raises:
        ConfigError: a value is not allowed.
        StorageError: the masks are missing, damaged or not complete.
    """

    masks: str | Path
    """Folder or URI that jobs.label or jobs.segment wrote, complete."""
    transform: Callable[[Sample], Result] | None = None
    """Applied to each :class:`Sample`; without it, a DataLoader pads its batches to one size (:func:`collate`)."""
    _: KW_ONLY
    images: bool = True
    """Whether the images are read, or the masks alone."""
    min_confidence: float = 0.0
    """Masks with less are left out."""
    max_pixels: int = 100_000_000
    """A larger image is an error."""

    def __post_init__(self) -> None:
        require_fractions(min_confidence=self.min_confidence)
        require_at_least(1, max_pixels=self.max_pixels)
        self._shards = _Shards(
            as_location(self.masks, "masks"),
            images=self.images,
            min_confidence=self.min_confidence,
            max_pixels=self.max_pixels,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 1.. of the masks."""
        return self._shards.rows.class_names

    def _samples(self, shard: int, rows: list[int]) -> Iterator[Result]:
        for sample in self._shards.samples(shard, rows):
            yield cast(Result, sample) if self.transform is None else self.transform(sample)


@dataclass(eq=False)
class MaskDataset(_Masks[Result], Dataset[Result]):
    """Images and masks by index, in the manifest's order.

    Opening it reads every shard once, to know which rows have a mask; for millions of images take :class:`MaskStream`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._good = [self._shards.good_rows(shard) for shard in range(self._shards.rows.num_shards)]
        self._ends = np.cumsum([len(rows) for rows in self._good])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Result:
        """One sample.

        Raises:
            IndexError: there is no such sample.
            OSError: the image cannot be read.
            ImageError: it cannot be decoded.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        index %= len(self)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        row = self._good[shard][index - int(self._ends[shard])]  # negative: from the end of the shard's rows
        (sample,) = self._samples(shard, [row])
        return sample


@dataclass(eq=False)
class MaskStream(_Masks[Result], IterableDataset[Result]):
    """Images and masks as a stream: the shards are divided among ranks and DataLoader workers, each row comes once."""

    _: KW_ONLY
    shuffle: bool = False
    """Shards, and the rows within each, in a random order, another one each epoch (:meth:`set_epoch`)."""
    rng_seed: int = 0
    """Seed of the order; the same on every rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass; call it on every rank before the DataLoader is iterated."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Result]:
        """The samples of this rank and worker.

        Raises:
            OSError: an image cannot be read.
            ImageError: it cannot be decoded.
        """
        shards = np.arange(self._shards.rows.num_shards)
        if self.shuffle:
            np.random.default_rng([self.rng_seed, self._epoch]).shuffle(shards)
        part, num_parts = _part(*self._shards.rank())
        for shard in shards[part::num_parts].tolist():
            rows = self._shards.good_rows(shard)
            if self.shuffle:
                np.random.default_rng([self.rng_seed, self._epoch, shard]).shuffle(rows)
            yield from self._samples(shard, rows)


def _part(rank: int, num_ranks: int) -> tuple[int, int]:
    """Which part of how many this process reads."""
    worker = get_worker_info()
    if worker is None:
        return rank, num_ranks
    return rank * worker.num_workers + worker.id, num_ranks * worker.num_workers
