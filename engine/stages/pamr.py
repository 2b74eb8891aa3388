"""Pixel-adaptive refinement of the walked maps, before the dCRF or in its place.

Source: engine/ops/pamr.py. Letters: K classes present, (h, w) cells, (H, W) pixels.
"""

from __future__ import annotations

import numpy as np
import torch

from engine.config import PamrConfig
from engine.imaging.codecs import decode_map, encode_map
from engine.imaging.decoding import decode_image
from engine.imaging.memory import working_size
from engine.imaging.scaling import as_tensor, equal_groups, resized, scaled_size
from engine.ops.mask import to_probabilities, upsample
from engine.ops.pamr import pamr
from engine.records import Batch
from engine.resources import PassConfig
from engine.timing import measured

_WEIGHTS_AS_MAPS = 10
"""Maps whose memory the weights of a pixel's 48 neighbours take."""
_MOST_PIXELS_IN_A_PASS = 1 << 19
"""An image with more has a pass of its own."""


class AdaptMaps:
    """Reads ``encoded``, ``refined_cam`` (K+1, h, w), ``height``, ``width``; replaces ``refined_cam`` by finer maps."""

    def __init__(self, config: PamrConfig, passes: PassConfig) -> None:
        """Args:
        passes: where and how many at once; a pass holds images of one size and one number of classes.
        """
        self._config = config
        self._passes = passes

    def __call__(self, batch: Batch) -> Batch:
        refined, passes = list(batch["refined_cam"]), self._passes
        maps = {row: decode_map(encoded) for row, encoded in enumerate(refined) if encoded is not None}
        rows = [row for row, scores in maps.items() if len(scores) > 1]  # background alone stays what it is
        sizes = [
            working_size(
                *scaled_size(batch["height"][row], batch["width"][row], long_side_px=self._config.long_side_px),
                len(maps[row]) + _WEIGHTS_AS_MAPS,
            )
            for row in rows
        ]
        kinds = [
            (size, len(maps[row]), row if size[0] * size[1] > _MOST_PIXELS_IN_A_PASS else None)
            for size, row in zip(sizes, rows, strict=True)
        ]
        for group in equal_groups(kinds, passes.images_per_pass):
            members = [rows[index] for index in group]
            size = sizes[group[0]]
            pictures = [
                resized(decode_image(batch["encoded"][row], max_pixels=passes.max_pixels), size) for row in members
            ]
            scores = torch.stack(
                [to_probabilities(upsample(torch.from_numpy(maps[row]).to(passes.device), size)) for row in members]
            )
            for row, finer in zip(members, self._adapted(pictures, scores), strict=True):
                refined[row] = encode_map(finer)
        return {**batch, "refined_cam": refined}

    @measured("pamr")
    @torch.inference_mode()
    def _adapted(self, pictures: list[np.ndarray], scores: torch.Tensor) -> np.ndarray:
        images = as_tensor(pictures, self._passes.device).float().contiguous()
        return pamr(images, scores, num_iterations=self._config.num_iterations).cpu().numpy()
