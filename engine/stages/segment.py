"""Run the trained segmentation network; :class:`engine.stages.mask.MakeMask` makes masks from its maps.

Source: section 3.4 of the paper. Letters: K candidate classes, C classes, (h, w) cells of the
network's fine level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.config import InferenceConfig
from engine.imaging.batches import decoded_pictures
from engine.imaging.codecs import encode_map
from engine.imaging.memory import working_size
from engine.imaging.scaling import as_tensor, equal_groups, resized, scaled_size
from engine.models.segmentation_net import SegmentationNetwork
from engine.networks import autocast, load_for_inference
from engine.records import Batch
from engine.resources import PassConfig

GRID_STRIDE = 4
"""Pixels per cell of the maps, in the image at scale 1: as the fine level of convolutional networks."""


class Segment:
    """Reads ``encoded``, ``class_ids``; adds ``refined_cam`` (K+1, h, w), ``found_ids``; sets ``height``,
    ``width``; fills ``error``.
    """

    def __init__(self, weights: str, config: InferenceConfig, passes: PassConfig, *, use_tags: bool) -> None:
        """Args:
        weights: weight file of ``jobs.train_segmentation``.
        passes: device and batching.
        use_tags: restrict the classes to background and the image's tags.

        Raises:
            WeightsError: the weights cannot be used.
        """
        network, self._architecture = load_for_inference(weights, "segmentation", passes.device)
        assert isinstance(network, SegmentationNetwork)
        self._network = network
        self._config = config
        self._passes = passes
        self._use_tags = use_tags

    def __call__(self, batch: Batch) -> Batch:
        num_rows = len(batch["encoded"])
        out: Batch = {**batch, "refined_cam": [None] * num_rows, "found_ids": [None] * num_rows}
        for name in ("height", "width", "error"):
            out[name] = list(batch[name])
        for images in decoded_pictures(batch, out, self._passes.decoding):
            self._add_maps(out, images)
        return out

    def _add_maps(self, out: Batch, images: dict[int, NDArray[np.uint8]]) -> None:
        rows, everything = list(images), list(range(1, len(self._architecture.class_names) + 1))
        ids = {row: sorted(set(out["class_ids"][row])) if self._use_tags else everything for row in rows}
        # images of equal shape have equal sizes at every scale
        for group in equal_groups([images[row].shape for row in rows], self._passes.images_per_pass):
            members = [rows[index] for index in group]
            found = self.probabilities([images[row] for row in members], [ids[row] for row in members])
            for row, maps in zip(members, found, strict=True):
                winners, kept = (ids[row], maps) if self._use_tags else self._winners(maps)
                out["refined_cam"][row], out["found_ids"][row] = encode_map(kept), winners

    def _winners(self, maps: NDArray[np.float32]) -> tuple[list[int], NDArray[np.float32]]:
        """The classes that win at any cell, or else the strongest one; and the maps of background and these classes."""
        found = [class_id for class_id in np.unique(maps.argmax(axis=0)).tolist() if class_id > 0]
        if not found:
            found = [1 + int(maps[1:].max(axis=(1, 2)).argmax())]
        kept = maps[[0, *found]]
        return found, kept / kept.sum(axis=0)

    @torch.inference_mode()
    def probabilities(
        self, images: Sequence[NDArray[np.uint8]], class_ids: Sequence[list[int]]
    ) -> list[NDArray[np.float32]]:
        """Compute the probabilities of background and the candidate classes, for images of equal shape.

        Args:
            images: (H, W, 3) uint8 each.
            class_ids: (K,) ids of the candidate classes of each image, from 1.

        Returns:
            (K+1, h, w) float32 per image, which sums to 1 over the channels.
        """
        config, (height, width) = self._config, images[0].shape[:2]
        present = sorted({class_id for ids in class_ids for class_id in ids})
        channels = torch.tensor([0, *present], device=self._passes.device)
        # the classes of other images in the pass must not enter the softmax
        own = [[0, *(1 + present.index(class_id) for class_id in ids)] for ids in class_ids]
        totals: list[Tensor] = []
        for scale in config.scales:
            size = scaled_size(height, width, long_side_px=config.long_side_px, scale=scale)
            pictures = as_tensor([resized(image, size) for image in images], self._passes.device)
            flipped = [pictures, pictures.flip(-1)] if config.flip else [pictures]
            with autocast(self._passes.device, config.precision):
                logits = self._network.maps(torch.cat(flipped), channels).float()
            views = torch.split(logits, len(images))
            means = [
                self._mean([view[index][own[index]] for view in views], (height, width)) for index in range(len(images))
            ]
            totals = [total + mean for total, mean in zip(totals, means, strict=True)] if totals else means
        return [(total / len(config.scales)).cpu().numpy() for total in totals]

    def _mean(self, views: list[Tensor], shape: tuple[int, int]) -> Tensor:
        """Average the logits (K+1, h', w') of an image and its mirror image to probabilities (K+1, h, w)."""
        height, width = scaled_size(*shape, long_side_px=self._config.long_side_px)
        grid = working_size(-(-height // GRID_STRIDE), -(-width // GRID_STRIDE), len(views[0]))
        scores = functional.interpolate(torch.stack(views), size=grid, mode="bilinear", align_corners=False)
        plain, *mirrored = scores.softmax(dim=1)
        return torch.stack([plain, *(one.flip(-1) for one in mirrored)]).mean(dim=0)
