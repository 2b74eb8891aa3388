"""Make masks from refined maps: upsampling, dense CRF, argmax.

Source: section 3.3 of the paper; the authors' infer_aff.py. Letters: K classes present, (H, W) pixels, (h, w) cells.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import ConfidenceConfig, CrfConfig, WalkConfig
from engine.imaging.codecs import decode_map, encode_mask
from engine.imaging.decoding import decode_image
from engine.imaging.memory import enlarged, working_size
from engine.imaging.scaling import resized
from engine.ops.cam import with_background
from engine.ops.confidence import expected_iou, quality_features
from engine.ops.crf import DenseCrf
from engine.ops.mask import class_areas, pseudo_mask, to_probabilities, upsample
from engine.records import Batch, mask_dtype
from engine.resources import PassConfig
from engine.timing import measured

UNCALIBRATED = ConfidenceConfig()
"""The confidence as fitted to photographs by experiments/confidence.py."""


class MakeMask:
    """Reads ``refined_cam``, ``encoded``, ``class_ids``; adds ``mask``, ``areas``, ``confidence``; drops its inputs.

    With a column ``found_ids`` the maps belong to these classes instead of the tags'. An image whose maps would take
    too much memory (:mod:`engine.imaging.memory`) is processed at a smaller size. With ``keep_stages`` it also reads
    ``cam`` and adds ``mask_cam`` and ``mask_walk``.
    """

    def __init__(
        self,
        crf: CrfConfig,
        walk: WalkConfig,
        passes: PassConfig,
        *,
        num_classes: int,
        keep_stages: bool,
        confidence: ConfidenceConfig = UNCALIBRATED,
    ) -> None:
        """Args:
        walk: its alpha gives the background of ``mask_cam``.
        passes: device of the dCRF backend ``torch``, and decoding.
        num_classes: classes of the data set; determines the dtype of the masks.
        keep_stages: also produce the masks after the CAM and after the walk.
        confidence: calibration of the confidence.
        """
        self._crf = crf
        self._walk = walk
        self._dtype = mask_dtype(num_classes)
        self._keep_stages = keep_stages
        self._passes = passes
        self._confidence = confidence

    def __call__(self, batch: Batch) -> Batch:
        made = ["mask", "areas", "confidence"] + (["mask_cam", "mask_walk"] if self._keep_stages else [])
        out: Batch = {name: [None] * len(batch["error"]) for name in made}
        for row, refined in enumerate(batch["refined_cam"]):
            if refined is None:
                continue
            full = (batch["height"][row], batch["width"][row])
            tagged = batch["class_ids"][row]
            class_ids = batch["found_ids"][row] if "found_ids" in batch else tagged
            size = working_size(*full, len(class_ids) + 1)
            walked = self.probabilities(decode_map(refined), size)
            probabilities = self.sharpened(walked, batch["encoded"][row])
            mask = enlarged(pseudo_mask(probabilities, class_ids, dtype=self._dtype), full)
            out["mask"][row] = encode_mask(mask)
            out["areas"][row] = class_areas(mask, tagged).tolist()
            num_found = int(np.count_nonzero(class_areas(mask, class_ids)[1:]))
            out["confidence"][row] = self._expected_quality(walked, probabilities, num_found)
            if self._keep_stages:
                cam = with_background(torch.from_numpy(decode_map(batch["cam"][row])), self._walk.alpha)
                start = self.probabilities(cam.numpy(), size)
                for name, maps in (("mask_cam", start), ("mask_walk", walked)):
                    early = enlarged(pseudo_mask(maps, class_ids, dtype=self._dtype), full)
                    out[name][row] = encode_mask(early)
        dropped = {"refined_cam", "encoded", "class_ids", "found_ids", "cam"}
        return {**{name: values for name, values in batch.items() if name not in dropped}, **out}

    def _expected_quality(self, walked: NDArray[np.float32], sharpened: NDArray[np.float32], num_found: int) -> float:
        if len(walked) == 1:
            return 1.0  # without tags, all background is correct by definition
        features = quality_features(walked, sharpened)
        expected = expected_iou(features, scale=self._confidence.scale, offset=self._confidence.offset)
        return min(expected, (1 + num_found) / len(walked))  # a class without any pixel has an IoU of 0

    def probabilities(self, scores: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """Upsample maps (K+1, h, w) >= 0 to probabilities (K+1, H, W) that sum to 1 over the channels."""
        probabilities: NDArray[np.float32] = to_probabilities(upsample(torch.from_numpy(scores), size)).numpy()
        return probabilities

    @measured("dcrf")
    def sharpened(self, probabilities: NDArray[np.float32], encoded: bytes) -> NDArray[np.float32]:
        """Apply the dCRF to probabilities (K+1, H, W); unchanged with 0 iterations."""
        crf = self._crf
        if crf.num_iterations == 0 or len(probabilities) == 1:
            return probabilities
        image = decode_image(encoded, self._passes.decoding)
        image = resized(image, (probabilities.shape[1], probabilities.shape[2]))
        dense_crf = DenseCrf(image, len(probabilities), kernels=crf, backend=crf.backend, device=self._passes.device)
        return dense_crf.infer(probabilities, crf.num_iterations)
