"""Spread class maps along the attention of a transformer, which needs no training.

Source: Lin et al., "CLIP is Also an Efficient Segmenter" (CLIP-ES, CVPR 2023), section 3.3, equation 5: the attention
is made doubly stochastic (Sinkhorn), then symmetric, and the maps are multiplied by it a few times. Their box mask
around each class's activation is omitted, because a walk along learned affinities follows.

Letters: B batch, K maps, (h, w) cells, N = h * w.
"""

from __future__ import annotations

from torch import Tensor

NUM_SINKHORN = 2
"""Iterations that normalize columns and rows to a sum of 1, as in the authors' code."""


def attention_transition(attention: Tensor) -> Tensor:
    """Compute a symmetric transition matrix from an attention.

    Args:
        attention: (B, N, N) float >= 0.

    Returns:
        (B, N, N) float >= 0, symmetric; rows and columns sum to approximately 1.
    """
    for _ in range(NUM_SINKHORN):
        attention = attention / attention.sum(dim=1, keepdim=True).clamp(min=1e-12)
        attention = attention / attention.sum(dim=2, keepdim=True).clamp(min=1e-12)
    return (attention + attention.transpose(1, 2)) / 2


def spread_along_attention(maps: Tensor, attention: Tensor, *, num_steps: int) -> Tensor:
    """Spread maps along the attention by ``num_steps`` steps.

    Args:
        maps: (B, K, h, w) float >= 0.
        attention: (B, N, N) float >= 0, cells in row-major order.
        num_steps: 0 returns ``maps`` unchanged.

    Returns:
        (B, K, h, w) float >= 0.

    Raises:
        ValueError: the shape of the attention does not match the grid of the maps.
    """
    num_cells = maps.shape[2] * maps.shape[3]
    if attention.shape != (maps.shape[0], num_cells, num_cells):
        raise ValueError(
            f"attention must be {(maps.shape[0], num_cells, num_cells)} for these maps, got {tuple(attention.shape)}"
        )
    if num_steps == 0:
        return maps
    transition = attention_transition(attention.float())
    flat = maps.float().flatten(2)
    for _ in range(num_steps):
        flat = flat @ transition  # it is symmetric
    return flat.reshape(maps.shape)
