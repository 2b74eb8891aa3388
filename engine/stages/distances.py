"""Compute distances between nearby cells from AffinityNet's features, as which a search caches the affinities.

Letters: O offsets, (h, w) grid cells.
"""

from __future__ import annotations

from engine.config import AffinityInferenceConfig, WalkConfig
from engine.imaging.codecs import encode_map
from engine.imaging.decoding import decode_image
from engine.imaging.scaling import equal_groups, resized, scaled_size
from engine.ops.sweep import pair_distances
from engine.records import Batch
from engine.resources import PassConfig
from engine.stages.walk import RefineCam


class ComputeDistances:
    """Reads ``encoded``, ``class_ids``; adds ``distances`` (O, h, w), the pair affinities as ``-log W``; null for an
    image without tags, which is all background.
    """

    def __init__(self, weights: str, affinity: AffinityInferenceConfig, walk: WalkConfig, passes: PassConfig) -> None:
        """Arguments and errors as for :class:`engine.stages.walk.RefineCam`."""
        self._refine = RefineCam(weights, affinity, walk, passes, keep_cam=False)
        self._affinity = affinity
        self._radius = walk.radius
        self._passes = passes

    def __call__(self, batch: Batch) -> Batch:
        rows = [row for row, error in enumerate(batch["error"]) if error is None and batch["class_ids"][row]]
        pictures = []
        for row in rows:
            image = decode_image(batch["encoded"][row], self._passes.decoding)
            size = scaled_size(*image.shape[:2], long_side_px=self._affinity.long_side_px)
            pictures.append(resized(image, size))
        distances: list[bytes | None] = [None] * len(batch["error"])
        for group in equal_groups([picture.shape for picture in pictures], self._passes.images_per_pass):
            features = self._refine.features([pictures[index] for index in group])
            for index, one in zip(group, features, strict=True):
                distances[rows[index]] = encode_map(pair_distances(one, self._radius).cpu().numpy())
        return {**batch, "distances": distances}
