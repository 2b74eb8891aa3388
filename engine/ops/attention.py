"""Maps spread along a transformer's own attention, before AffinityNet has learned anything.

Source: Lin et al., "CLIP is Also an Efficient Segmenter" (CLIP-ES, CVPR 2023), section 3.3, equation 5: the attention
is made doubly stochastic (Sinkhorn), then symmetric, and the maps take a few steps along it. Their boxes around each
class's own activation are left out: the walk along learned affinities follows.

Letters: B batch, K maps, (h, w) cells, N = h * w.
"""

from __future__ import annotations

from torch import Tensor

NUM_SINKHORN = 2
"""Times that columns and rows are brought to a sum of 1, as the authors'."""


def attention_transition(attention: Tensor) -> Tensor:
    """A symmetric transition from an attention.

    Args:
        attention: (B, N, N) float >= 0.

    Returns:
        (B, N, N) float >= 0, symmetric; rows and columns sum to 1 but for what so few rounds leave.
    """
    for _ in range(NUM_SINKHORN):
        attention = attention / attention.sum(dim=1, keepdim=True).clamp(min=1e-12)
        attention = attention / attention.sum(dim=2, keepdim=True).clamp(min=1e-12)
    return (attention + attention.transpose(1, 2)) / 2


def spread_along_attention(maps: Tensor, attention: Tensor, *, num_steps: int) -> Tensor:
    """Let maps take ``num_steps`` steps along the attention.

    Args:
        maps: (B, K, h, w) float >= 0.
        attention: (B, N, N) float >= 0, cells in the order of the rows of the grid.
        num_steps: 0 returns ``maps`` unchanged.

    Returns:
        (B, K, h, w) float >= 0.

    Raises:
        ValueError: the attention is not that of the maps' grid.
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
