"""Count the pixels of the seeds of many pairs of alphas against the truth, for a search.

Letters: R combinations of a set of scales and a pair of alphas, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engine.config import SeedConfig
from engine.imaging.codecs import decode_map, decode_mask
from engine.imaging.decoding import decode_image
from engine.ops.seed_counts import cell_pixels, seed_counts
from engine.records import Batch, ignore_value
from engine.resources import PassConfig
from engine.stages.seed import MakeSeed


class CountSeeds:
    """Reads ``cams`` (one CAM per set of scales), ``truth``, ``class_ids``, ``encoded``; adds ``counts``
    (R, 3, C+1) int32, ordered by set of scales, then pair, null for an image with an error; drops the columns that it
    reads.
    """

    def __init__(
        self, pairs: Sequence[tuple[float, float]], seed: SeedConfig, passes: PassConfig, *, num_classes: int
    ) -> None:
        """Args:
        pairs: ``alpha_low`` and ``alpha_high`` of each configuration.
        seed: the other settings of the seeds; its alphas are ignored.
        passes: device and decoding for the dCRF.
        num_classes: C.
        """
        self._pairs = tuple(pairs)
        self._make_seed = MakeSeed(seed, passes, num_classes=num_classes)
        self._decoding = passes.decoding
        self._num_classes = num_classes
        self._ignore = ignore_value(num_classes)

    def __call__(self, batch: Batch) -> Batch:
        counts: list[bytes | None] = []
        for row, error in enumerate(batch["error"]):
            one = {name: values[row] for name, values in batch.items()}
            counts.append(None if error is not None else self._counts(one))
        dropped = {"cams", "distances", "truth", "encoded", "class_ids"}
        return {**{name: values for name, values in batch.items() if name not in dropped}, "counts": counts}

    def _counts(self, row: dict[str, Any]) -> bytes:
        image, truth = decode_image(row["encoded"], self._decoding), decode_mask(row["truth"])
        found = []
        for cam in row["cams"]:
            seeds = self._make_seed.seeds(torch.from_numpy(decode_map(cam)), image, row["class_ids"], self._pairs)
            pixels = cell_pixels(truth, seeds[0].shape, num_classes=self._num_classes, ignore=self._ignore)
            found += [seed_counts(seed, pixels, ignore=self._ignore) for seed in seeds]
        return np.stack(found).astype(np.int32).tobytes()
