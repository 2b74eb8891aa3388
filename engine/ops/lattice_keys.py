"""Geometry of the permutohedral lattice, shared by all implementations.

Source: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010).
Letters: D features of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LARGEST_KEY = 1 << 62
_MOST_CELLS = 1 << 20
"""Maximum number of lattice cells along a coordinate for which float32 places pixels accurately to one cell."""


class SigmaTooSmallError(ValueError):
    """A sigma is so small that the lattice's coordinates do not fit into a key."""


def elevation_scales(num_features: int) -> NDArray[np.float32]:
    """Compute the diagonal of the elevation (Adams et al., p. 5) times the blur's deviation (p. 6), as pydensecrf."""
    deviation = float(np.float32(math.sqrt(2 / 3) * (num_features + 1)))
    return np.array([deviation / math.sqrt((i + 2) * (i + 1)) for i in range(num_features)], np.float32)


def key_strides(largest: Sequence[float], scales: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
    """Compute strides that map the first D integer coordinates of any vertex or neighbor to a unique key.

    Args:
        largest: (D,) bounds of the features, which start at 0.
        scales: (D,) of :func:`elevation_scales`.

    Returns:
        strides (D + 1,), the last of which is 0 because that coordinate follows from the others, and the number of
        keys.

    Raises:
        SigmaTooSmallError: a key would be too large.
    """
    scaled = [bound * float(scale) for bound, scale in zip(largest, scales, strict=True)]
    size = len(scaled) + 1
    strides, stride = [], 1
    for i in range(len(scaled)):
        below, above = (i * scaled[i - 1] if i else 0.0), sum(scaled[i:])
        cells = (below + above) / size
        if not cells < _MOST_CELLS:
            raise SigmaTooSmallError(f"a sigma is too small: {cells:.3g} cells on an axis, more than {_MOST_CELLS}")
        strides.append(stride)
        # Margin for rounding, the corners of the simplex and their neighbors.
        stride *= math.ceil(cells) + 6
    if stride >= LARGEST_KEY:
        raise SigmaTooSmallError(f"a sigma is too small: {stride:.3g} cells in all, more than {LARGEST_KEY:.3g}")
    return np.array([*strides, 0], np.int64), stride
