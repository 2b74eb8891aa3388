"""Count pixels of the cached images under each configuration, as shards, and sum the counts.

Images are assigned to at most :data:`MAX_GROUPS` groups, so the memory for the counts and the cost of the bootstrap do
not grow with the data set.

Letters: R configurations, G groups, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config import SeedConfig, WalkConfig
from engine.ops.sweep import INTERSECTION, PREDICTED
from engine.resources import PassConfig
from engine.runs.options import ShardOptions
from engine.runs.output import Claimed
from engine.runs.shards import check_errors, do_shards
from engine.stages.count import CountMasks, Scales, Slice
from engine.stages.count_seeds import CountSeeds
from engine.step import Step
from engine.storage.cached_maps import CachedMaps
from engine.storage.filesystem import join
from engine.storage.manifest import Manifest
from engine.storage.run_record import fingerprint
from engine.storage.shards import committed_shards, read_shard
from engine.storage.tally import Tally

MAX_GROUPS = 500
NUM_PARTS = 8
"""Number of parts of the images; a trial reports after each."""
SCHEMA = pa.schema([("image_id", pa.string()), ("counts", pa.large_binary()), ("error", pa.string())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One pass over the images: the counting step and the folder of its shards."""

    folder: str
    step: Step
    num_configurations: int
    of_seeds: bool = False
    """Whether it counts seeds instead of masks."""
    fetch: bool
    """Whether it reads the images themselves."""


@dataclass(kw_only=True, slots=True)
class Counted:
    """The counts of a pass, summed over each group of images."""

    num_images: int = 0
    counts: NDArray[np.int64]
    """(R, G, 2, C+1) for masks, (R, G, 3, C+1) for seeds."""
    truth: NDArray[np.int64]
    """(G, C+1) pixels of each class in the truth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counting:
    """Creates and runs the passes of a search; holds what they share."""

    maps: CachedMaps
    true_pixels: NDArray[np.int64]
    """(N, C+1) pixels of each class in the truth."""
    scale_sets: tuple[Scales, ...]
    """The scales of each cached CAM."""
    folder: str
    """Folder for the counts."""
    walk: WalkConfig
    """Only radius and tolerance are used."""
    config: ShardOptions

    def masks(self, slices: Sequence[Slice]) -> Pass:
        """Create the pass that counts the masks of slices; either all of them have a dCRF or none."""
        with_crf, num_classes = slices[0].with_crf, len(self.maps.class_names)
        assert all(part.with_crf == with_crf for part in slices)
        key = fingerprint({"slices": [asdict(part) for part in slices]})
        passes = PassConfig(decoding=self.maps.decoding(self.config.max_pixels))
        build = partial(CountMasks, slices, self.scale_sets, self.walk, passes, num_classes=num_classes)
        return Pass(
            folder=join(self.folder, f"{'crf' if with_crf else 'walk'}-{slices[0].beta:g}-{key}"),
            step=Step(name="count", build=build, on="crf"),
            num_configurations=sum(part.num_configurations for part in slices),
            fetch=with_crf,
        )

    def seeds(self, pairs: Sequence[tuple[float, float]], seed: SeedConfig) -> Pass:
        """Create the pass that counts the seeds of pairs of alphas."""
        seed = replace(seed, alpha_low=pairs[0][0], alpha_high=pairs[0][1])  # unused: keep them out of the hash
        key = fingerprint({"pairs": pairs, "seed": asdict(seed), "scales": self.scale_sets})
        passes = PassConfig(decoding=self.maps.decoding(self.config.max_pixels))
        build = partial(CountSeeds, pairs, seed, passes, num_classes=len(self.maps.class_names))
        return Pass(
            folder=join(self.folder, f"seed-{key}"),
            step=Step(name="seed", build=build, on="crf"),
            num_configurations=len(pairs) * len(self.scale_sets),
            of_seeds=True,
            fetch=True,
        )

    def finish(self, name: str, one: Pass) -> dict[str, int]:
        """Count the images not yet counted; returns and raises as :func:`do_pass` does."""
        return do_pass(name, self.config, self.maps, [one.step], folder=one.folder, schema=SCHEMA, fetch=one.fetch)

    def parts(self) -> list[list[int]]:
        """Divide the shards into :data:`NUM_PARTS` parts, or fewer if there are fewer shards."""
        number = min(NUM_PARTS, self.maps.num_shards)
        return [part.tolist() for part in np.array_split(np.arange(self.maps.num_shards), number)]

    def empty(self, one: Pass) -> Counted:
        """Return counts of zero, for a pass that has counted no image."""
        num_images, size = self.true_pixels.shape
        shape = (one.num_configurations, min(MAX_GROUPS, num_images), 3 if one.of_seeds else 2, size)
        return Counted(counts=np.zeros(shape, np.int64), truth=np.zeros((shape[1], size), np.int64))

    def read(self, one: Pass) -> Counted:
        """Sum the counts of a pass over its completed parts, up to the first incomplete one."""
        counted, committed = self.empty(one), committed_shards(one.folder)
        for shards in self.parts():
            if not committed.issuperset(shards):
                break
            self.add(counted, one, shards)
        return counted

    def add(self, counted: Counted, one: Pass, shards: Sequence[int]) -> None:
        """Add the counts of committed shards.

        Raises:
            StorageError: A shard cannot be read.
        """
        counts, truth = counted.counts, counted.truth
        for shard in shards:
            first = shard * self.maps.rows_per_shard
            encoded = read_shard(one.folder, shard, ("counts",)).column("counts").to_pylist()
            for row, own in enumerate(encoded, start=first):
                group, true_pixels = row % len(truth), self.true_pixels[row]
                truth[group] += true_pixels
                if own is not None:
                    counts[:, group] += np.frombuffer(own, np.int32).reshape(len(counts), *counts.shape[2:])
                elif not one.of_seeds:  # an error counts as all background
                    counts[:, group, INTERSECTION, 0] += true_pixels[0]
                    counts[:, group, PREDICTED, 0] += true_pixels.sum()
            counted.num_images += len(encoded)


def do_pass(
    name: str,
    config: ShardOptions,
    manifest: Manifest,
    steps: Sequence[Step],
    *,
    folder: str,
    schema: pa.Schema,
    fetch: bool,
) -> dict[str, int]:
    """Run the steps on shards that are not committed or are :func:`stale`.

    Returns:
        Number of images with an error, by stage.

    Raises:
        TooManyErrors: Too many images ended in an error, or a shard could not be processed.
    """
    claimed = Claimed(record={"job": name, "settings": {}, "inputs": {}}, manifest=manifest)
    again = partial(stale, config, manifest)
    summary = do_shards(config, claimed, folder=folder, schema=schema, steps=steps, fetch=fetch, stale=again)
    check_errors(summary, replace(config, out=folder))
    errors: dict[str, int] = summary["errors"]
    return errors


def stale(config: ShardOptions, manifest: Manifest, tally: Tally) -> list[int]:
    """List the shards to redo: those with errors, if there are too many errors overall."""
    too_many = tally.errors.total() > config.max_error_fraction * manifest.num_rows
    return [shard for shard in tally.shards if too_many and tally.errors_of(shard)]
