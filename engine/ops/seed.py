"""Find the confident cells, from which affinity labels are made (paper, section 3.2; jiwoon-ahn/psa).

Letters: K classes present, (H, W) pixels, (h, w) grid cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def to_grid(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """Average the pixels of each cell.

    Args:
        probabilities: (K+1, H, W) float.
        size: (h, w) of the grid.

    Returns:
        (K+1, h, w) float; sums over the channels are preserved.
    """
    return functional.adaptive_avg_pool2d(probabilities, size)


def sure_cells(
    probabilities_low: Tensor, probabilities_high: Tensor, class_ids: Sequence[int], ignore: int = 255
) -> Tensor:
    """Find the cells whose class is confident.

    A class is confident if it wins against a strong background (alpha_low), background if it wins while weak
    (alpha_high). A cell where both happen, which only the dCRF can cause, is uncertain.

    Args:
        probabilities_low: (K+1, h, w) float, background first, made with alpha_low.
        probabilities_high: (K+1, h, w) float, the same with alpha_high.
        class_ids: (K,) ids of the classes present.
        ignore: value of an uncertain cell.

    Returns:
        (h, w) int64 of 0, ``class_ids`` and ``ignore``.

    Raises:
        ValueError: the number of channels does not match ``class_ids``.
    """
    if not probabilities_low.shape == probabilities_high.shape == (len(class_ids) + 1, *probabilities_low.shape[1:]):
        raise ValueError(
            f"probabilities_low and probabilities_high must have equal shapes with {len(class_ids) + 1} channels, "
            f"got {tuple(probabilities_low.shape)} and {tuple(probabilities_high.shape)}"
        )
    device = probabilities_low.device
    foreground = torch.tensor([ignore, *class_ids], device=device)[probabilities_low.argmax(dim=0)]
    is_background = probabilities_high.argmax(dim=0) == 0
    background = torch.where(is_background, 0, ignore)
    return torch.where(foreground == ignore, background, torch.where(is_background, ignore, foreground))
