"""Count the pixels of the masks of many configurations against the truth, for a search.

Letters: R configurations, C classes, K classes present, (h, w) grid cells, (H, W) pixels, O offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import CrfConfig, WalkConfig
from engine.imaging.codecs import decode_map, decode_mask, encode_map
from engine.ops.sweep import WalkGrid, grid_counts, mask_counts, refined_maps
from engine.records import Batch, ignore_value
from engine.resources import PassConfig
from engine.stages.mask import MakeMask

NO_CRF = CrfConfig(num_iterations=0)
Scales = tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Configurations that are counted together: one set of scales, one beta, all pairs of alpha and steps."""

    scales: Scales
    """Scales of the class maps."""
    beta: float
    alphas: tuple[float, ...]
    """Ascending."""
    steps: tuple[int, ...]
    """Ascending; 0 skips the walk."""
    crf: CrfConfig = NO_CRF
    """Dense CRF; a slice that uses one has a single alpha and a single number of steps."""

    def __post_init__(self) -> None:
        assert list(self.alphas) == sorted(set(self.alphas)), self.alphas
        assert list(self.steps) == sorted(set(self.steps)), self.steps
        assert not self.with_crf or self.num_configurations == 1

    @property
    def with_crf(self) -> bool:
        """Whether the slice uses a dense CRF."""
        return self.crf.num_iterations > 0

    @property
    def num_configurations(self) -> int:
        """Number of configurations in this slice."""
        return len(self.alphas) * len(self.steps)


class CountMasks:
    """Reads ``cams`` (one CAM per set of scales), ``distances``, ``truth``, ``class_ids``, for a dCRF ``encoded``;
    adds ``counts`` (R, 2, C+1) int32; drops the columns that it reads.

    In each slice the counts are ordered by number of steps, then alpha. ``counts`` is null for an image without tags,
    for which every mask is background, or with an error.
    """

    def __init__(
        self,
        slices: Sequence[Slice],
        scale_sets: Sequence[Scales],
        walk: WalkConfig,
        passes: PassConfig,
        *,
        num_classes: int,
    ) -> None:
        """Args:
        slices: the configurations to count.
        scale_sets: the scales of each entry of ``cams``.
        walk: radius and tolerance.
        passes: device and decoding for the dCRF.
        num_classes: C.
        """
        self._slices = tuple(slices)
        self._scale_sets = tuple(scale_sets)
        self._walk = walk
        self._size: dict[str, int] = {"num_classes": num_classes, "ignore": ignore_value(num_classes)}
        self._stages = {
            crf: MakeMask(crf, walk, passes, num_classes=num_classes, keep_stages=False)
            for crf in dict.fromkeys(part.crf for part in slices if part.with_crf)
        }

    def __call__(self, batch: Batch) -> Batch:
        counts: list[bytes | None] = []
        for row, class_ids in enumerate(batch["class_ids"]):
            if batch["error"][row] is not None or not class_ids:
                counts.append(None)
                continue
            one = {name: values[row] for name, values in batch.items()}
            counts.append(np.concatenate(self._counts(one)).astype(np.int32).tobytes())
        dropped = {"cams", "distances", "truth", "encoded", "class_ids"}
        return {**{name: values for name, values in batch.items() if name not in dropped}, "counts": counts}

    def _counts(self, row: dict[str, Any]) -> list[NDArray[np.int64]]:
        cams = [torch.from_numpy(decode_map(cam)) for cam in row["cams"]]
        distances = cams[0].new_zeros((1, 1, 1))  # ignored without a walk
        if row["distances"] is not None:
            distances = torch.from_numpy(decode_map(row["distances"]))
        truth = decode_mask(row["truth"])
        found: list[NDArray[np.int64]] = []
        for part in self._slices:
            cam = cams[self._scale_sets.index(part.scales)]
            grid = WalkGrid(part.beta, part.alphas, part.steps, self._walk.radius, self._walk.tolerance)
            if part.with_crf:
                mask = self._mask(row, cam, distances, grid, part.crf)
                found.append(mask_counts(truth, mask, **self._size)[None])
            else:
                counts = grid_counts(cam, distances, truth, row["class_ids"], grid, **self._size)
                found.append(counts.reshape(-1, *counts.shape[2:]))
        return found

    def _mask(
        self, row: dict[str, Any], cam: Tensor, distances: Tensor, grid: WalkGrid, crf: CrfConfig
    ) -> NDArray[np.integer[Any]]:
        (maps,) = refined_maps(cam, distances, grid)
        batch = {name: [row[name]] for name in ("class_ids", "height", "width", "error", "encoded")}
        made = self._stages[crf]({**batch, "refined_cam": [encode_map(maps.numpy())]})
        mask: NDArray[np.integer[Any]] = decode_mask(made["mask"][0])
        return mask
