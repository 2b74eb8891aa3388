"""Compute the classifier's probability of each class, to find questionable tags.

Letters: C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.config import InferenceConfig
from engine.errors import ImageError
from engine.imaging.decoding import decode_image
from engine.imaging.scaling import as_tensor, resized, scaled_size
from engine.networks import autocast, load_for_inference
from engine.records import Batch
from engine.resources import PassConfig


class ScoreTags:
    """Reads ``encoded``; adds ``probabilities`` (C,) float32; drops ``encoded``, ``class_ids``; fills ``error``."""

    def __init__(self, weights: str, config: InferenceConfig, passes: PassConfig) -> None:
        """Args:
        weights: weight file of ``jobs.train_cam``.
        passes: device and decoding; images run one at a time.

        Raises:
            WeightsError: the weights cannot be used.
        """
        self._network, _ = load_for_inference(weights, "cam", device=passes.device)
        self._config = config
        self._passes = passes

    def __call__(self, batch: Batch) -> Batch:
        probabilities: list[list[float] | None] = [None] * len(batch["encoded"])
        errors = list(batch["error"])
        for row, encoded in enumerate(batch["encoded"]):
            if errors[row] is not None:
                continue
            try:
                probabilities[row] = self._score(encoded).tolist()
            except ImageError as error:
                errors[row] = str(error)
        kept = {name: values for name, values in batch.items() if name not in ("encoded", "class_ids")}
        return {**kept, "probabilities": probabilities, "error": errors}

    @torch.inference_mode()
    def _score(self, encoded: bytes) -> Tensor:
        """(C,) float32 in [0, 1]: the mean over scales and flip."""
        config, image = self._config, decode_image(encoded, self._passes.decoding)
        scores: list[Tensor] = []
        for scale in config.scales:
            size = scaled_size(*image.shape[:2], long_side_px=config.long_side_px, scale=scale)
            picture = as_tensor([resized(image, size)], self._passes.device)
            with autocast(self._passes.device, config.precision):
                logits = self._network(torch.cat([picture, picture.flip(-1)]) if config.flip else picture)
            scores.append(logits.float().sigmoid().mean(dim=0))
        return torch.stack(scores).mean(dim=0).cpu()
