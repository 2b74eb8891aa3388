"""Refine CAMs by a random walk along the affinities that AffinityNet predicts.

Source: sections 3.2 and 3.3 of the paper. Letters: K classes present, (h, w) grid cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.config import AffinityInferenceConfig, WalkConfig
from engine.imaging.codecs import decode_map, encode_map
from engine.imaging.decoding import decode_image
from engine.imaging.scaling import as_tensor, equal_groups, resized, scaled_size
from engine.models.affinity_net import AffinityNetwork
from engine.networks import autocast, load_for_inference
from engine.ops.cam import with_background
from engine.ops.random_walk import refine_many
from engine.records import Batch
from engine.resources import PassConfig
from engine.timing import measured


class AddBackground:
    """Reads ``cam``; adds ``refined_cam`` (K+1, h, w): the background map and the CAM, no walk; drops ``cam``."""

    def __init__(self, config: WalkConfig, *, keep_cam: bool) -> None:
        """Args:
        keep_cam: keep the column ``cam``.
        """
        self._config = config
        self._keep_cam = keep_cam

    def __call__(self, batch: Batch) -> Batch:
        refined = [
            None
            if cam is None
            else encode_map(with_background(torch.from_numpy(decode_map(cam)), self._config.alpha).numpy())
            for cam in batch["cam"]
        ]
        kept = {name: values for name, values in batch.items() if name != "cam" or self._keep_cam}
        return {**kept, "refined_cam": refined}


class RefineCam:
    """Reads ``encoded``, ``cam``; adds ``refined_cam`` (K+1, h, w) on the affinity grid; drops ``cam``."""

    def __init__(
        self,
        weights: str,
        affinity: AffinityInferenceConfig,
        walk: WalkConfig,
        passes: PassConfig,
        *,
        keep_cam: bool,
    ) -> None:
        """Args:
        weights: weight file of ``jobs.train_affinity``.
        passes: device, batching and decoding.
        keep_cam: keep the column ``cam``.

        Raises:
            WeightsError: the weights cannot be used.
        """
        network, _ = load_for_inference(weights, "affinity", passes.device)
        assert isinstance(network, AffinityNetwork)
        self._network = network
        self._affinity = affinity
        self._walk = walk
        self._passes = passes
        self._keep_cam = keep_cam

    def __call__(self, batch: Batch) -> Batch:
        refined: list[bytes | None] = [None] * len(batch["cam"])
        cams = {row: decode_map(cam) for row, cam in enumerate(batch["cam"]) if cam is not None}
        rows = []
        for row, cam in cams.items():
            if len(cam):
                rows.append(row)
            else:  # a walk does not change maps that are only background
                refined[row] = encode_map(np.ones((1, *cam.shape[1:]), dtype=np.float32))
        sizes = [
            scaled_size(batch["height"][row], batch["width"][row], long_side_px=self._affinity.long_side_px)
            for row in rows
        ]
        for group in equal_groups(sizes, self._passes.images_per_pass):
            pictures = [
                resized(decode_image(batch["encoded"][rows[index]], self._passes.decoding), sizes[index])
                for index in group
            ]
            features = self.features(pictures)
            walked = self.walked([torch.from_numpy(cams[rows[index]]) for index in group], features).cpu()
            if not walked.isfinite().all():
                raise ValueError("refined_cam must be finite, got NaN or infinity")
            for index, maps in zip(group, walked.numpy(), strict=True):
                num_maps = 1 + len(cams[rows[index]])
                refined[rows[index]] = encode_map(maps[:num_maps])
        kept = {name: values for name, values in batch.items() if name != "cam" or self._keep_cam}
        return {**kept, "refined_cam": refined}

    def walked(self, cams: Sequence[Tensor], features: Tensor) -> Tensor:
        """Add the background, resize to the affinity grid and run the walk.

        Args:
            cams: (K, h', w') float32 in [0, 1] per image, each K 1 or more.
            features: (B, D, h, w) float32.

        Returns:
            (B, max K + 1, h, w) float32 in [0, 1]; the maps of an image come first, any others are 0.
        """
        walk = self._walk
        maps = torch.zeros(len(cams), 1 + max(len(cam) for cam in cams), *features.shape[-2:])
        for own, cam in zip(maps, cams, strict=True):
            scores = with_background(cam, walk.alpha)[None]
            own[: 1 + len(cam)] = functional.interpolate(
                scores, size=features.shape[-2:], mode="bilinear", align_corners=False
            )[0]
        return refine_many(
            maps.to(features.device),
            features,
            radius=walk.radius,
            beta=walk.beta,
            num_steps=walk.num_steps,
            tolerance=walk.tolerance,
        )

    @measured("affinity")
    @torch.inference_mode()
    def features(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Compute AffinityNet's features (B, D, h, w) float32 of pictures (H, W, 3) of equal size."""
        with autocast(self._passes.device, self._affinity.precision):
            features: Tensor = self._network(as_tensor(pictures, self._passes.device))
        return features.float()
