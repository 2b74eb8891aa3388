"""Pixel-adaptive mask refinement: maps flow to neighbours of like colour, in a few local passes.

Source: Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels" (CVPR 2020), section 3.4;
visinf/1-stage-wseg, models/mods/pamr.py. Where the dCRF compares all pixels, this compares each with its
``8 * len(dilations)`` neighbours, for many images at once: made for a GPU.

Letters: B batch, K maps (background and classes), (H, W) pixels, P neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
"""Distances of the neighbours, pixels, as the authors'."""
_SHARPNESS = 0.1
"""Part of the local standard deviation that a difference is measured in; the authors' constant."""
_STEPS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def neighbour_weights(images: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """How much each neighbour gives to a pixel.

    Args:
        images: (B, 3, H, W) float, in any unit.
        dilations: distances of the neighbours, pixels, 1 or more each.

    Returns:
        (B, P, H, W) float in [0, 1] that sums to 1 over P; a neighbour beyond the border is the border's own pixel.
    """
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations is {tuple(dilations)}; allowed: one or more distances from 1")
    num_pixels = 9 * len(dilations)
    # in two passes over views of the padded image: all copies at once would take 54 times its memory
    mean, squares = torch.zeros_like(images), torch.zeros_like(images)
    for seen, _ in _seen(images, dilations):
        mean += seen / num_pixels
    for seen, _ in _seen(images, dilations):
        squares += (seen - mean).square()
    unit = _SHARPNESS * (squares / (num_pixels - 1)).sqrt() + 1e-8
    unlike = [((seen - images).abs() / unit).mean(dim=1) for seen, is_self in _seen(images, dilations) if not is_self]
    return torch.stack(unlike, dim=1).neg_().softmax(dim=1)


def pamr(
    images: Tensor, probabilities: Tensor, *, num_iterations: int = 10, dilations: Sequence[int] = DILATIONS
) -> Tensor:
    """Let maps flow to the neighbours that look alike.

    Args:
        images: (B, 3, H, W) float, in any unit.
        probabilities: (B, K, H, W) float.
        num_iterations: passes; 0 returns ``probabilities`` unchanged.
        dilations: distances of the neighbours, pixels.

    Returns:
        (B, K, H, W) float, within the range of each map; maps that summed to 1 over K still do.

    Raises:
        ValueError: an argument is not allowed.
    """
    if images.shape[0] != probabilities.shape[0] or images.shape[2:] != probabilities.shape[2:]:
        raise ValueError(
            f"images is {tuple(images.shape)} and probabilities {tuple(probabilities.shape)}; "
            "allowed: as many of the same height and width"
        )
    if num_iterations < 0:
        raise ValueError(f"num_iterations is {num_iterations}; allowed: 0 or more")
    if num_iterations == 0:
        return probabilities
    weights = neighbour_weights(images, dilations)
    for _ in range(num_iterations):
        neighbours = (seen for seen, is_self in _seen(probabilities, dilations) if not is_self)
        refined = torch.zeros_like(probabilities)
        for index, seen in enumerate(neighbours):
            refined.addcmul_(seen, weights[:, index : index + 1])
        probabilities = refined
    return probabilities


def _seen(maps: Tensor, dilations: Sequence[int]) -> list[tuple[Tensor, bool]]:
    """Views of the maps shifted to each neighbour, (B, K, H, W), and whether it is the pixel itself."""
    height, width = maps.shape[2:]
    most = max(dilations)
    rows, columns = (
        torch.arange(-most, side + most, device=maps.device).clamp(0, side - 1) for side in (height, width)
    )
    padded = maps[:, :, rows][:, :, :, columns]  # replicated borders, however small the image
    return [
        (padded[:, :, most + dy * d : most + dy * d + height, most + dx * d : most + dx * d + width], dy == dx == 0)
        for d in dilations
        for dy, dx in _STEPS
    ]
