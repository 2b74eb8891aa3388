"""Class activation maps and the background map (paper, sections 3.1 and 3.2, equations 2 and 3; jiwoon-ahn/psa).

Letters: K classes present, (h, w) grid cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def merge_cams(cams: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Sum the maps of several scales and flips on a common grid.

    Args:
        cams: one or more of (K, h_i, w_i) float, as output by the classifier's last convolution.
        size: (h, w) of the common grid.

    Returns:
        (K, h, w) float32 >= 0.

    Raises:
        ValueError: ``cams`` is empty.
    """
    if not cams:
        raise ValueError("cams must hold one or more maps, got none")
    merged = cams[0].new_zeros((cams[0].shape[0], *size), dtype=torch.float32)
    for cam in cams:
        merged += functional.interpolate(cam.float().relu()[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return merged


def normalize_cam(cam: Tensor) -> Tensor:
    """Divide each class by its maximum; a class without activation stays 0 (paper, eq. 2).

    Args:
        cam: (K, h, w) float >= 0.

    Returns:
        (K, h, w) float in [0, 1].

    Raises:
        ValueError: ``cam`` holds NaN or infinity, as from a broken network.
    """
    if not bool(torch.isfinite(cam).all()):
        raise ValueError("cam must be finite, got NaN or infinity")
    cam = cam.relu()
    maximum = cam.amax(dim=(1, 2), keepdim=True)
    return cam / torch.where(maximum > 0, maximum, 1.0)


def background_map(cam: Tensor, alpha: float) -> Tensor:
    """Compute the background score of each cell: ``(1 - max_c M_c) ** alpha`` (paper, eq. 3).

    Args:
        cam: (..., K, h, w) float in [0, 1]; K may be 0.
        alpha: exponent above 0; larger means less, but more certain, background.

    Returns:
        (..., h, w) float in [0, 1], all 1 if no class is present.

    Raises:
        ValueError: ``alpha`` is not above 0.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha!r}")
    if cam.shape[-3] == 0:
        return cam.new_ones((*cam.shape[:-3], *cam.shape[-2:]))
    return (1 - cam.amax(dim=-3)).clamp(min=0).pow(alpha)


def with_background(cam: Tensor, alpha: float) -> Tensor:
    """Prepend the background map to the class maps.

    Args:
        cam: (..., K, h, w) float in [0, 1]; K may be 0.
        alpha: exponent of :func:`background_map`.

    Returns:
        (..., K+1, h, w) float in [0, 1].
    """
    return torch.cat([background_map(cam, alpha).unsqueeze(-3), cam], dim=-3)
