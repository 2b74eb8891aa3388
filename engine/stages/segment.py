"""Masks from the trained segmentation network.

Source: section 3.4 of the paper. Letters: K classes present, C classes, (H, W) pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.config import ConfidenceConfig, InferenceConfig
from engine.errors import ImageError
from engine.models.segmentation_net import SegmentationNetwork
from engine.ops.confidence import SEGMENTATION_LEVEL, expected_iou, quality_features
from engine.ops.mask import class_areas, pseudo_mask, upsample
from engine.records import Batch, encode_mask, mask_dtype
from engine.stages.memory import enlarged, working_size
from engine.stages.networks import load_for_inference
from engine.stages.scaling import as_tensor, resized, scaled_size
from engine.storage.images import decode_image


class Segment:
    """Reads ``encoded``, ``class_ids``; adds ``mask``, ``areas``, ``confidence``; drops them; fills ``error``."""

    def __init__(
        self,
        weights: str,
        config: InferenceConfig,
        *,
        device: str,
        max_pixels: int,
        use_tags: bool,
        confidence: ConfidenceConfig | None = None,
    ) -> None:
        """Args:
        weights: what ``jobs.train_segmentation`` wrote.
        use_tags: only background and the classes of the image's tags may win.
        confidence: how the expected IoU is brought to the data; as it is by default.

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
        self._confidence = (confidence or ConfidenceConfig()).after(SEGMENTATION_LEVEL)
        self._dtype = mask_dtype(len(self._architecture.class_names))

    def __call__(self, batch: Batch) -> Batch:
        num_rows = len(batch["encoded"])
        out: Batch = {name: [None] * num_rows for name in ("mask", "areas", "confidence")}
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
            tagged = batch["class_ids"][row]
            allowed = sorted(set(tagged)) if self._use_tags else self._all_ids()
            probabilities = self.probabilities(image, allowed)
            mask = pseudo_mask(probabilities, allowed, dtype=self._dtype)
            out["confidence"][row] = self._expected_iou(probabilities, mask, allowed)
            mask = enlarged(mask, image.shape[:2])
            out["mask"][row] = encode_mask(mask)
            out["areas"][row] = class_areas(mask, tagged).tolist()
        dropped = {"encoded", "class_ids"}
        return {**{name: values for name, values in batch.items() if name not in dropped}, **out}

    def _expected_iou(self, probabilities: NDArray[np.float32], mask: NDArray[Any], class_ids: list[int]) -> float:
        """The IoU to expect of a mask, by the same signs as that of a pseudo mask.

        Where no tags say what there is, the classes that win are taken for it; a mask without an object is read against
        the class that came nearest.
        """
        if not class_ids:
            return 1.0
        present = list(range(1, len(class_ids) + 1))
        if not self._use_tags:
            found = set(np.unique(mask).tolist())
            present = [channel for channel, class_id in enumerate(class_ids, 1) if class_id in found]
        if not present:
            present = [1 + int(probabilities[1:].max(axis=(1, 2)).argmax())]
        maps = probabilities[[0, *present]]
        maps = maps / maps.sum(axis=0)
        return expected_iou(quality_features(maps, maps), scale=self._confidence.scale, offset=self._confidence.offset)

    def _all_ids(self) -> list[int]:
        return list(range(1, len(self._architecture.class_names) + 1))

    @torch.inference_mode()
    def probabilities(self, image: NDArray[np.uint8], class_ids: list[int]) -> NDArray[np.float32]:
        """Probability of background and of each class that may win.

        Args:
            image: (H, W, 3) uint8.
            class_ids: (K,) ids from 1.

        Returns:
            (K+1, H', W') float32 that sums to 1 over the channels, at the size that the memory allows.
        """
        config = self._config
        channels = torch.tensor([0, *class_ids], device=self._device)
        base = working_size(*scaled_size(*image.shape[:2], long_side_px=config.long_side_px), len(channels))
        total: Tensor | None = None
        for scale in config.scales:
            size = scaled_size(*image.shape[:2], long_side_px=config.long_side_px, scale=scale)
            picture = as_tensor([resized(image, size)], self._device)
            flipped = [picture, picture.flip(-1)] if config.flip else [picture]
            with torch.autocast(
                self._device, dtype=torch.bfloat16, enabled=config.precision == "bfloat16", cache_enabled=False
            ):
                logits = self._network(torch.cat(flipped)).float()
            scores = logits[:, channels].softmax(dim=1)
            if config.flip:
                scores = torch.stack([scores[0], scores[1].flip(-1)])
            mean = functional.interpolate(
                scores.mean(dim=0, keepdim=True), size=base, mode="bilinear", align_corners=False
            )[0]
            total = mean if total is None else total + mean
        assert total is not None
        size = working_size(image.shape[0], image.shape[1], len(channels))
        probabilities: NDArray[np.float32] = upsample(total / len(config.scales), size).cpu().numpy()
        return probabilities
