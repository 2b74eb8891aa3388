"""Statistics of the tags of a frozen manifest, gathered as a stream in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.storage.filesystem import open_filesystem
from engine.storage.manifest import Manifest, hashes_of
from engine.storage.retries import readable

TOGETHER, LEAST_IMAGES = 0.95, 5
"""Fraction of a tag's images from which another tag counts as always present, and the fewest images to say so."""
_BATCH_ROWS = 65536
_MOST_COMPARED, _MOST_TAGS = 1024, 16
"""Pairs are counted of the most common classes, in images of no more tags."""
_MOST_HELD, _MOST_KEPT = 1_000_000, 100

Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TagStatistics:
    """The tags of a data set."""

    num_images: int
    counts: dict[str, int]
    """Images of each class, most common first; classes without an image are included."""
    histogram: dict[int, int]
    """Images by number of tags."""
    unknown: dict[str, int]
    """Images of the most common tags that are no classes."""
    num_unknown_images: int
    """Images with such a tag."""
    together: list[tuple[str, str, float]]
    """(tag, other tag, fraction of the first one's images that also have the other), from :data:`TOGETHER`."""
    num_repeated: int
    """Images whose file already occurred under another id."""


def tag_statistics(manifest: Manifest) -> TagStatistics:
    """Read the tags of all images.

    Raises:
        StorageError: The frozen manifest is damaged or cannot be read.
    """
    names = manifest.class_names
    counts = np.zeros(len(names), np.int64)
    histogram, unknown = Counter[int](), Counter[str]()
    num_unknown_images = 0
    for ids, lengths, others in _tags(manifest):
        counts += np.bincount(ids[ids >= 0], minlength=len(names))
        histogram.update({int(n): int(k) for n, k in zip(*np.unique(lengths, return_counts=True), strict=True)})
        if others:
            num_unknown_images += len(np.unique(np.repeat(np.arange(len(lengths)), lengths)[ids < 0]))
            unknown.update(others)
            if len(unknown) > _MOST_HELD:
                unknown = Counter(dict(unknown.most_common(_MOST_HELD // 2)))
    order = np.argsort(-counts, kind="stable")
    return TagStatistics(
        num_images=manifest.num_rows,
        counts={names[number]: int(counts[number]) for number in order},
        histogram=dict(sorted(histogram.items())),
        unknown=dict(unknown.most_common(_MOST_KEPT)),
        num_unknown_images=num_unknown_images,
        together=_together(manifest, order[:_MOST_COMPARED]) if max(histogram) > 1 else [],
        num_repeated=_num_repeated(manifest),
    )


def _tags(manifest: Manifest) -> Iterator[tuple[Ints, Ints, dict[str, int]]]:
    """The tags of a batch of images: number of the class or -1 of each, tags per image, and counts of the others."""
    numbers = {name: number for number, name in enumerate(manifest.class_names)}
    for batch in _batches(manifest, ["tags"]):
        lengths = pc.list_value_length(batch.column(0)).to_numpy(zero_copy_only=False)
        encoded = pc.list_flatten(batch.column(0)).dictionary_encode()
        found, indices = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        of_name = np.array([numbers.get(name, -1) for name in found], np.int64)
        others = np.flatnonzero(of_name < 0)
        times = np.bincount(indices, minlength=len(found))
        yield of_name[indices], lengths, {found[number]: int(times[number]) for number in others}


def _batches(manifest: Manifest, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    filesystem, path = open_filesystem(manifest.location)
    with readable(manifest.location, "frozen manifest"), filesystem.open_input_file(path) as file:
        yield from pq.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS, columns=list(columns))


def _together(manifest: Manifest, chosen: Ints) -> list[tuple[str, str, float]]:
    """Compare the chosen classes with each other."""
    num = len(chosen)
    place = np.full(len(manifest.class_names) + 1, -1)  # the last is that of -1: tags that are no classes
    place[chosen] = np.arange(num)
    both = np.zeros(num * num, np.int64)
    """Images that have both; on the diagonal, those of each class."""
    for ids, lengths, _ in _tags(manifest):
        starts = np.cumsum(lengths) - lengths
        for length in np.unique(lengths[(lengths > 0) & (lengths <= _MOST_TAGS)]):
            rows = place[ids[starts[lengths == length, None] + np.arange(length)]]
            kept = (rows[:, :, None] >= 0) & (rows[:, None, :] >= 0)
            both += np.bincount((rows[:, :, None] * num + rows[:, None, :])[kept], minlength=num * num)
    of_pair = both.reshape(num, num)
    of_class = of_pair.diagonal()
    shares = of_pair / np.maximum(1, of_class)[:, None]
    np.fill_diagonal(shares, 0)
    found = np.argwhere((shares >= TOGETHER) & (of_class >= LEAST_IMAGES)[:, None])
    names = [manifest.class_names[number] for number in chosen]
    return [(names[one], names[other], float(shares[one, other])) for one, other in found]


def _num_repeated(manifest: Manifest) -> int:
    """Count images whose file occurred before; where ids are the images, they are unique already."""
    hashes: list[NDArray[np.int64]] = []
    for image_ids, images, uris in (batch.columns for batch in _batches(manifest, ["image_id", "image", "uri"])):
        if not hashes and images.equals(image_ids):
            return 0
        hashes.append(hashes_of(pc.coalesce(uris, images)))
    every = np.concatenate(hashes)
    return len(every) - len(np.unique(every))
