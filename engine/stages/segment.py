"""Maps of the trained segmentation network, from which :class:`engine.stages.mask.MakeMask` makes masks.

Source: section 3.4 of the paper. Letters: K classes that may win, C classes, (h, w) cells of the network's fine level.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.config import InferenceConfig
from engine.errors import ImageError
from engine.models.segmentation_net import SegmentationNetwork
from engine.records import Batch, encode_map
from engine.stages.memory import working_size
from engine.stages.networks import load_for_inference
from engine.stages.scaling import as_tensor, resized, scaled_size
from engine.storage.images import decode_image

GRID_STRIDE = 4
"""Pixels of the image at scale 1 for a cell of the maps: that of the fine level of convolutional networks."""


class Segment:
    """Reads ``encoded``, ``class_ids``; adds ``refined_cam`` (K+1, h, w), ``found_ids``; sets size; fills ``error``."""

    def __init__(self, weights: str, config: InferenceConfig, *, device: str, max_pixels: int, use_tags: bool) -> None:
        """Args:
        weights: what ``jobs.train_segmentation`` wrote.
        use_tags: only background and the classes of the image's tags may win.

        Raises:
            WeightsError: the weights cannot be used.
        """
        network, self._architecture = load_for_inference(weights, "segmentation", device)
        assert isinstance(network, SegmentationNetwork)
        self._network = network
        self._config = config
        self._device = device
        self._max_pixels = max_pixels
        self._use_tags = use_tags

    def __call__(self, batch: Batch) -> Batch:
        num_rows = len(batch["encoded"])
        out: Batch = {**batch, "refined_cam": [None] * num_rows, "found_ids": [None] * num_rows}
        for name in ("height", "width", "error"):
            out[name] = list(batch[name])
        for row, encoded in enumerate(batch["encoded"]):
            if batch["error"][row] is not None:
                continue
            try:
                image = decode_image(encoded, max_pixels=self._max_pixels)
            except ImageError as error:
                out["error"][row] = str(error)
                continue
            out["height"][row], out["width"][row] = image.shape[:2]
            if self._use_tags:
                found = sorted(set(batch["class_ids"][row]))
                maps = self.probabilities(image, found)
            else:
                found, maps = self._winners(self.probabilities(image, self._all_ids()))
            out["refined_cam"][row], out["found_ids"][row] = encode_map(maps), found
        return out

    def _winners(self, maps: NDArray[np.float32]) -> tuple[list[int], NDArray[np.float32]]:
        """The classes that win somewhere, and the maps of background and these; the nearest to it where none wins."""
        found = [class_id for class_id in np.unique(maps.argmax(axis=0)).tolist() if class_id > 0]
        if not found:
            found = [1 + int(maps[1:].max(axis=(1, 2)).argmax())]
        kept = maps[[0, *found]]
        return found, kept / kept.sum(axis=0)

    def _all_ids(self) -> list[int]:
        return list(range(1, len(self._architecture.class_names) + 1))

    @torch.inference_mode()
    def probabilities(self, image: NDArray[np.uint8], class_ids: list[int]) -> NDArray[np.float32]:
        """Probability of background and of each class that may win.

        Args:
            image: (H, W, 3) uint8.
            class_ids: (K,) ids from 1.

        Returns:
            (K+1, h, w) float32 that sums to 1 over the channels.
        """
        config = self._config
        channels = torch.tensor([0, *class_ids], device=self._device)
        height, width = scaled_size(*image.shape[:2], long_side_px=config.long_side_px)
        grid = working_size(-(-height // GRID_STRIDE), -(-width // GRID_STRIDE), len(channels))
        total: Tensor | None = None
        for scale in config.scales:
            size = scaled_size(*image.shape[:2], long_side_px=config.long_side_px, scale=scale)
            picture = as_tensor([resized(image, size)], self._device)
            flipped = [picture, picture.flip(-1)] if config.flip else [picture]
            with torch.autocast(
                self._device, dtype=torch.bfloat16, enabled=config.precision == "bfloat16", cache_enabled=False
            ):
                logits = self._network.maps(torch.cat(flipped), channels).float()
            scores = functional.interpolate(logits, size=grid, mode="bilinear", align_corners=False).softmax(dim=1)
            if config.flip:
                scores = torch.stack([scores[0], scores[1].flip(-1)])
            mean = scores.mean(dim=0)
            total = mean if total is None else total + mean
        assert total is not None
        probabilities: NDArray[np.float32] = (total / len(config.scales)).cpu().numpy()
        return probabilities
