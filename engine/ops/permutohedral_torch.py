"""Dense CRF on a permutohedral lattice in pure torch: any number of images in one lattice, on any device.

It follows the compiled loops (``lattice_kernels.py``, ``mean_field_kernels.py``) operation by operation, with a sort
instead of hash tables and sparse products instead of loops. On a CPU the compiled loops are faster; on a GPU all data
stays there.

Sources: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010); Krähenbühl and
Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (2011); pydensecrf.

Letters: I images, K labels, S unaries, N pixels of all images, D features of a pixel, M vertices, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels import Kernels
from engine.ops.lattice_keys import LARGEST_KEY, SigmaTooSmallError, elevation_scales, key_strides

# torch warns once per process, so in every worker of a cluster; only stable operations are used here.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

_UNLIKELY = -1e4
"""The logit of labels that an image does not have."""


class Lattice:
    """The lattice of several images, whose pixels do not interact."""

    def __init__(self, images: Sequence[Tensor], *, sigma_px: float, sigma_rgb: float = 1.0) -> None:
        """Build the lattice, with weights normalized so that filtering is n K n with n = 1 / sqrt(K 1).

        Args:
            images: (H, W, D - 2) uint8 each, all on one device.
            sigma_px: width of the kernel, pixels.
            sigma_rgb: width of the kernel in color, on a scale of 0 to 255.

        Raises:
            SigmaTooSmallError: a coordinate does not fit into a key.
        """
        num_colors = images[0].shape[2]
        scales = elevation_scales(2 + num_colors)
        height, width = (max(image.shape[side] for image in images) for side in (0, 1))
        largest = [width / sigma_px, height / sigma_px, *[255 / sigma_rgb] * num_colors]
        strides, span = key_strides(largest, scales)
        size = len(strides)
        # keys of a class lie within twice the span on either side of 0
        if 4 * span * size * len(images) >= LARGEST_KEY:
            raise SigmaTooSmallError(f"a sigma is too small, or {len(images)} images are too many for one lattice")
        features = torch.cat([_features(image, sigma_px, sigma_rgb) for image in images], dim=1)
        keys, weights = _corners(_elevated(features, scales), strides)
        first = [torch.full((image.shape[0] * image.shape[1],), i) for i, image in enumerate(images)]
        classes = torch.cat(first).to(keys.device) * size + torch.arange(size, device=keys.device)[:, None]
        self._connect(keys + classes * (4 * span), weights, strides, 4 * span)

    def _connect(self, keys: Tensor, weights: Tensor, strides: NDArray[np.int64], span: int) -> None:
        """Number the vertices, find their neighbors on each axis, and build sparse matrices for splat and slice."""
        size, num_pixels = keys.shape
        # row-major by pixel, as CSR requires
        ordered, order = keys.t().flatten().sort(stable=True)
        is_first = torch.ones_like(ordered, dtype=torch.bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        vertex_keys = ordered[is_first]
        number = is_first.cumsum(0) - 1
        vertices = torch.empty_like(number).scatter_(0, order, number)
        self._neighbors = _neighbors(vertex_keys, strides, span)
        counts = torch.bincount(number, minlength=len(vertex_keys))
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        pixels = torch.div(order, size, rounding_mode="floor")
        shape = (len(vertex_keys), num_pixels)
        rows = torch.arange(0, size * num_pixels + 1, size, device=keys.device)

        def matrices(values: Tensor) -> tuple[Tensor, Tensor]:
            return _csr(ends, pixels, values[order], shape), _csr(rows, vertices, values, shape[::-1])

        flat = weights.t().flatten()
        self._splat, self._slice = matrices(flat)
        norm = (self.filter(flat.new_ones((num_pixels, 1))) + 1e-20).rsqrt()
        self._splat, self._slice = matrices((flat.view(num_pixels, size) * norm).flatten())

    def filter(self, values: Tensor) -> Tensor:
        """Splat, blur and slice (N, C) float32."""
        at_vertices = self._splat @ values
        nothing = at_vertices.new_zeros((1, at_vertices.shape[1]))
        for before, after in self._neighbors:
            padded = torch.cat([at_vertices, nothing])
            at_vertices = at_vertices + 0.5 * (padded[before] + padded[after])
        filtered: Tensor = self._slice @ at_vertices
        return filtered


class MeanField:
    """Mean-field inference on the two kernels of several images."""

    def __init__(self, images: Sequence[Tensor], kernels: Kernels) -> None:
        """Build the lattices.

        Args:
            images: (H, W, 3) uint8 each, all on one device.

        Raises:
            SigmaTooSmallError: a coordinate does not fit into a key.
        """
        self._sizes = [image.shape[0] * image.shape[1] for image in images]
        self._device = images[0].device
        bilateral = Lattice(images, sigma_px=kernels.bilateral_sigma_px, sigma_rgb=kernels.bilateral_sigma_rgb)
        self._kernels = (
            (kernels.bilateral_weight, bilateral),
            (kernels.spatial_weight, Lattice([image[..., :0] for image in images], sigma_px=kernels.spatial_sigma_px)),
        )

    @torch.no_grad()
    def refine(self, log_probabilities: Sequence[Tensor], num_iterations: int) -> list[Tensor]:
        """Run mean-field inference with Potts compatibility (Krähenbühl and Koltun, algorithm 1).

        Only differences to the probability of label 0 are filtered, because a softmax is invariant to a common offset.

        Args:
            log_probabilities: (S, K, N_i) float32 per image; S is the same for all, K may differ.
            num_iterations: 0 or more.

        Returns:
            (S, K, N_i) float32 per image.
        """
        num_labels = max(one.shape[1] for one in log_probabilities)
        num_unaries = log_probabilities[0].shape[0]
        logits = torch.full(
            (num_unaries, num_labels, sum(self._sizes)), _UNLIKELY, dtype=torch.float32, device=self._device
        )
        for part, logs in zip(torch.split(logits, self._sizes, dim=2), log_probabilities, strict=True):
            part[:, : logs.shape[1]] = logs - logs[:, :1]
        probabilities = logits.softmax(dim=1)
        for _ in range(num_iterations):
            others = (probabilities[:, 1:] - probabilities[:, :1]).flatten(0, 1).t().contiguous()
            scores = logits.clone()
            for weight, lattice in self._kernels:
                scores[:, 1:] += weight * lattice.filter(others).t().view_as(scores[:, 1:])
            probabilities = scores.softmax(dim=1)
        parts = torch.split(probabilities, self._sizes, dim=2)
        return [part[:, : logs.shape[1]] for part, logs in zip(parts, log_probabilities, strict=True)]

    def infer(self, log_probabilities: Sequence[NDArray[np.float32]], num_iterations: int) -> NDArray[np.float32]:
        """Run inference for a single image, with the interface of the other backends: S arrays (K, N) to (S, K, N)."""
        logs = torch.from_numpy(np.stack(log_probabilities)).to(self._device)
        refined: NDArray[np.float32] = self.refine([logs], num_iterations)[0].cpu().numpy()
        return refined


def _features(image: Tensor, sigma_px: float, sigma_rgb: float) -> Tensor:
    """Compute features (D, N) float32: x, y and the colors, each divided by its sigma."""
    height, width = image.shape[:2]
    x = torch.arange(width, dtype=torch.float32, device=image.device) / sigma_px
    y = torch.arange(height, dtype=torch.float32, device=image.device) / sigma_px
    colors = image.permute(2, 0, 1).flatten(1).float() / sigma_rgb
    places = torch.stack([x.expand(height, width).flatten(), y[:, None].expand(height, width).flatten()])
    return torch.cat([places, colors])


def _elevated(features: Tensor, scales: NDArray[np.float32]) -> Tensor:
    """Embed features (D, N) in the plane of D + 1 coordinates that sum to 0 (Adams et al., p. 5)."""
    elevated = features.new_empty((len(scales) + 1, features.shape[1]))
    total = torch.zeros_like(features[0])
    for j in range(len(scales), 0, -1):
        scaled = features[j - 1] * float(scales[j - 1])
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    return elevated


def _corners(elevated: Tensor, strides: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Find the corners of the simplex around each pixel.

    Returns:
        keys (D + 1, N) int64 of the corners of remainder 0, 1, ... D, and the pixel's barycentric coordinates there.
    """
    size = len(elevated)
    inverse = float(np.float32(1) / np.float32(size))
    cells = (elevated * inverse).round()
    offsets = elevated - cells * size
    ranks = torch.zeros_like(elevated, dtype=torch.int64)
    for i in range(size - 1):
        less = offsets[i] < offsets[i + 1 :]
        ranks[i] += less.sum(dim=0)
        ranks[i + 1 :] += ~less
    # Rounding may leave the plane, by as many steps as the sum of the cells.
    ranks += cells.sum(dim=0).long()
    steps = (ranks < 0).long() - (ranks >= size).long()
    ranks += steps * size
    cells += steps
    positions = torch.empty_like(elevated).scatter_(0, ranks, (elevated - cells * size) * inverse)
    stride = torch.from_numpy(strides).to(elevated.device)[:, None]
    falling = torch.empty_like(ranks).scatter_(0, ranks, stride.expand_as(ranks))
    first = (cells.long() * stride).sum(dim=0, keepdim=True)
    # from one corner to the next, the coordinate of the next lower rank decreases by 1
    keys = torch.cat([first, first - falling.flip(0)[:-1].cumsum(dim=0)])
    upward = positions.flip(0)
    weights = torch.cat([(upward[:1] + (1 - positions[:1])), upward[1:] - upward[:-1]])
    return keys, weights


def _neighbors(keys: Tensor, strides: NDArray[np.int64], span: int) -> list[tuple[Tensor, Tensor]]:
    """Find the previous and the next vertex of each vertex on each axis; M if there is none.

    The step along axis j increases coordinate j by D and decreases the others by 1, so the remainder decreases by 1.
    """
    size, num_vertices = len(strides), len(keys)
    classes = torch.div(keys + span // 2, span, rounding_mode="floor")
    wraps = classes % size == 0
    lowered = torch.where(wraps, keys + (size - 1) * span - int(strides.sum()), keys - span)
    numbers = torch.arange(num_vertices, device=keys.device)
    pairs = []
    for stride in strides.tolist():
        wanted = lowered + stride
        found = torch.searchsorted(keys, wanted).clamp(max=num_vertices - 1)
        after = torch.where(keys[found] == wanted, found, num_vertices)
        before = torch.full((num_vertices + 1,), num_vertices, device=keys.device).scatter_(0, after, numbers)
        pairs.append((before[:-1], after))
    return pairs


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.sparse_csr_tensor(rows.int(), columns.int(), values, tuple(shape), check_invariants=False)
