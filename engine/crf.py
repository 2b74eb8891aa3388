"""From the settings of the dCRF to the dCRF of an image, as :mod:`engine.networks` does for networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.config import CrfConfig
from engine.ops.crf import DenseCrf, Kernels


def build_crf(config: CrfConfig, image: NDArray[np.uint8], num_labels: int, *, device: str = "cpu") -> DenseCrf:
    """The dCRF of an image.

    Args:
        image: (H, W, 3) uint8.
        num_labels: background and the classes present.
        device: where the backend ``torch`` computes.
    """
    kernels = Kernels(
        spatial_sigma_px=config.spatial_sigma_px,
        spatial_weight=config.spatial_weight,
        bilateral_sigma_px=config.bilateral_sigma_px,
        bilateral_sigma_rgb=config.bilateral_sigma_rgb,
        bilateral_weight=config.bilateral_weight,
    )
    return DenseCrf(image, num_labels, kernels=kernels, backend=config.backend, device=device)
