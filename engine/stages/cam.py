"""Compute the class activation maps of images.

Source: section 3.1 of the paper. In later rounds the maps come from the trained segmentation network: its probabilities
over background and the classes present. Letters: K classes present, (h, w) grid cells.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import InferenceConfig
from engine.imaging.batches import decoded_pictures
from engine.imaging.codecs import encode_map
from engine.imaging.scaling import as_tensor, equal_groups, resized, scaled_size
from engine.models.cam_net import CamNetwork
from engine.models.segmentation_net import SegmentationNetwork
from engine.networks import MAP_KINDS, attention_of, autocast, check_attention, load_for_inference
from engine.ops.cam import merge_cams, normalize_cam
from engine.records import Batch
from engine.resources import PassConfig

GRID_STRIDE = 8
"""Pixels per cell of the stored map, in the image at scale 1."""


class ComputeCam:
    """Reads ``encoded``, ``class_ids``; adds ``cam`` (K, h, w); sets ``height``, ``width``; fills ``error``."""

    def __init__(self, weights: str, config: InferenceConfig, passes: PassConfig) -> None:
        """Args:
        weights: weight file of ``jobs.train_cam`` or ``jobs.train_segmentation``.
        config: scales and flip; with a ``CamInferenceConfig`` also steps along a classifier's attention.
        passes: device and batching.

        Raises:
            WeightsError: the weights cannot be used.
            ConfigError: the settings use attention, which the backbone does not have.
        """
        network, architecture = load_for_inference(weights, MAP_KINDS, passes.device)
        assert isinstance(network, CamNetwork | SegmentationNetwork)
        check_attention(network, architecture, config)
        self._network = network
        self._spread = attention_of(config) if isinstance(network, CamNetwork) else {}
        self._config = config
        self._passes = passes

    def __call__(self, batch: Batch) -> Batch:
        out = {**batch, "cam": [None] * len(batch["encoded"])}
        for name in ("height", "width", "error"):
            out[name] = list(batch[name])
        for images in decoded_pictures(batch, out, self._passes.decoding):
            self._add_maps(out, images)
        return out

    def _add_maps(self, out: Batch, images: dict[int, NDArray[np.uint8]]) -> None:
        for row, cam in self.maps(images, out["class_ids"]).items():
            out["cam"][row] = encode_map(cam.numpy())

    def maps(self, images: dict[int, NDArray[np.uint8]], class_ids: list[list[int]]) -> dict[int, Tensor]:
        """Compute the normalized CAM of each image.

        Args:
            images: row to (H, W, 3) uint8.
            class_ids: for every row of the batch, the ids present, from 1.

        Returns:
            Row to (K, h, w) float32 in [0, 1] on the CPU.
        """
        config = self._config
        grids = {row: self._grid(image) for row, image in images.items()}
        raw: dict[int, list[Tensor]] = {row: [] for row in images}
        for scale in config.scales:
            rows = [row for row in images if class_ids[row]]
            sizes = [scaled_size(*images[row].shape[:2], long_side_px=config.long_side_px, scale=scale) for row in rows]
            for group in equal_groups(sizes, self._passes.images_per_pass):
                members = [rows[index] for index in group]
                pictures = [resized(images[row], sizes[group[0]]) for row in members]
                present = sorted({class_id for row in members for class_id in class_ids[row]})
                activations = self._activations(as_tensor(pictures, self._passes.device), present)
                for index, row in enumerate(members):
                    channels = [present.index(class_id) for class_id in class_ids[row]]
                    raw[row] += [self._own_maps(maps[index], channels) for maps in activations]
        merged = {
            row: merge_cams(maps, grids[row]) if maps else torch.zeros(0, *grids[row]) for row, maps in raw.items()
        }
        return {row: normalize_cam(cam).cpu() for row, cam in merged.items()}

    def _grid(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        height, width = scaled_size(*image.shape[:2], long_side_px=self._config.long_side_px)
        return -(-height // GRID_STRIDE), -(-width // GRID_STRIDE)

    def _own_maps(self, maps: Tensor, channels: list[int]) -> Tensor:
        """(K, h, w): the maps of one image's classes."""
        if isinstance(self._network, CamNetwork):
            return maps[channels]
        # the classes of other images in the pass must not enter the softmax
        return maps[[0, *(channel + 1 for channel in channels)]].softmax(dim=0)[1:]

    @torch.inference_mode()
    def _activations(self, pictures: Tensor, present: list[int]) -> list[Tensor]:
        if isinstance(self._network, CamNetwork):
            index = torch.tensor(present, device=self._passes.device) - 1
        else:
            index = torch.tensor([0, *present], device=self._passes.device)
        flipped = [pictures, pictures.flip(-1)] if self._config.flip else [pictures]
        with autocast(self._passes.device, self._config.precision):
            maps = self._network.maps(torch.cat(flipped), index, **self._spread).float()
        plain, *mirrored = torch.split(maps, len(pictures))
        return [plain, *(part.flip(-1) for part in mirrored)]
