"""Dense CRF on a permutohedral lattice, compiled by numba: the result of pydensecrf, several times faster.

Sources: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010); Krähenbühl and
Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (2011); pydensecrf.

pydensecrf pads the pixels to a multiple of 4 with black ones at (0, 0), whose vertices have no value but extend the
blur. They are omitted here, so its result differs by some thousandths if N is not a multiple of 4.

Letters: K labels, S unaries, (H, W) pixels, N = H * W, D features of a pixel, M vertices of the lattice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from engine.kernels import Kernels
from engine.ops import lattice_kernels, mean_field_kernels
from engine.ops.lattice_keys import elevation_scales, key_strides

_SPATIAL_CACHE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Lattice:
    """The permutohedral lattice of an image."""

    vertices: NDArray[np.int32]
    """(N, D + 1), from 1; 0 stands for no vertex."""
    weights: NDArray[np.float32]
    """(N, D + 1) barycentric coordinates, divided by the root of the filtered ones if the lattice is normalized."""
    chains: NDArray[np.int32]
    """The vertices in the order of the blur."""
    num_vertices: int
    """M + 1."""

    @property
    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], int]:
        """The lattice as arguments of the compiled loops."""
        return self.vertices, self.weights, self.chains, self.num_vertices

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return self.vertices.nbytes + self.weights.nbytes + self.chains.nbytes


def build_lattice(
    colors: NDArray[np.uint8], *, sigma_px: float, sigma_rgb: float = 1.0, normalized: bool = True
) -> Lattice:
    """Build the lattice of an image.

    Args:
        colors: (H, W, D - 2) uint8; D = 2 makes the spatial lattice, which depends only on H and W.
        sigma_px: width of the kernel, pixels.
        sigma_rgb: width of the kernel in color, on a scale of 0 to 255.
        normalized: divide the weights so that filtering is n K n with n = 1 / sqrt(K 1).

    Raises:
        SigmaTooSmallError: a coordinate does not fit into a key.
    """
    scales = elevation_scales(2 + colors.shape[2])
    largest = [colors.shape[1] / sigma_px, colors.shape[0] / sigma_px, *[255 / sigma_rgb] * colors.shape[2]]
    strides, _ = key_strides(largest, scales)
    # Always an owned, contiguous, writable array, because numba compiles again for each other kind.
    owned = np.array(colors, order="C")
    vertices, weights, keys, classes, tables = lattice_kernels.find_vertices(
        owned, np.float32(sigma_px), np.float32(sigma_rgb), scales, strides
    )
    chains = lattice_kernels.find_chains(keys, classes, tables, strides)
    lattice = Lattice(vertices, weights, chains, len(keys))
    if normalized:
        mean_field_kernels.normalize(*lattice.arrays)
    return lattice


class MeanField:
    """Mean-field inference on the two kernels of one image, for any number of unaries."""

    def __init__(self, image: NDArray[np.uint8], kernels: Kernels) -> None:
        """Build the lattices; the spatial one is reused from earlier images of the same size.

        Raises:
            SigmaTooSmallError: a coordinate does not fit into a key.
        """
        self._spatial = _spatial_lattices.get(image.shape[0], image.shape[1], kernels.spatial_sigma_px)
        self._bilateral = build_lattice(
            image, sigma_px=kernels.bilateral_sigma_px, sigma_rgb=kernels.bilateral_sigma_rgb
        )
        self._factors = (np.float32(kernels.bilateral_weight), np.float32(kernels.spatial_weight))

    def infer(self, log_probabilities: Sequence[NDArray[np.float32]], num_iterations: int) -> NDArray[np.float32]:
        """Run inference for several unaries in one pass.

        Args:
            log_probabilities: S arrays (K, N) float32, K at least 2.
            num_iterations: 1 or more.

        Returns:
            (S, K, N) float32.
        """
        num_labels, num_pixels = log_probabilities[0].shape
        logits = np.empty((len(log_probabilities), num_labels - 1, num_pixels), np.float32)
        for logs, differences in zip(log_probabilities, logits, strict=True):
            np.subtract(logs[1:], logs[0], out=differences)
        like = (np.float32(0),) * _num_lanes(logits.shape[0] * logits.shape[1])
        return mean_field_kernels.mean_field(
            like,
            logits,
            num_iterations,
            self._bilateral.arrays,
            self._spatial.arrays,
            self._factors,
        )


class _SpatialLattices:
    """A least-recently-used cache of spatial lattices, with bounded memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lattices: OrderedDict[tuple[int, int, float], Lattice] = OrderedDict()
        self._lock = Lock()

    def get(self, height: int, width: int, sigma_px: float) -> Lattice:
        """Return the lattice of an image size, building it if it is not cached."""
        key = (height, width, float(sigma_px))
        with self._lock:
            if key in self._lattices:
                self._lattices.move_to_end(key)
                return self._lattices[key]
        lattice = build_lattice(np.zeros((height, width, 0), np.uint8), sigma_px=sigma_px)
        with self._lock:
            self._lattices[key] = lattice
            while sum(kept.num_bytes for kept in self._lattices.values()) > self._max_bytes:
                self._lattices.popitem(last=False)
        return lattice

    def clear(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._lattices.clear()


_spatial_lattices = _SpatialLattices(_SPATIAL_CACHE_BYTES)


def _num_lanes(num_channels: int) -> int:
    """The smallest compiled width that fits the channels, or the largest width."""
    return next((width for width in (1, 2, 4) if num_channels <= width), 8)
