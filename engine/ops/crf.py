"""Dense CRF (Krähenbühl and Koltun, NIPS 2011), as jiwoon-ahn/psa applies it through pydensecrf.

Three backends give the same result: ``numba``, a compiled lattice (``permutohedral.py``); ``torch``, for GPUs and
batches of images (``permutohedral_torch.py``); and ``pydensecrf``, the reference.

Letters: K labels (background and classes present), (H, W) pixels, N = H * W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels import AUTHORS_KERNELS, Kernels
from engine.ops.lattice_keys import SigmaTooSmallError

BACKENDS = ("auto", "numba", "torch", "pydensecrf")

_SMALLEST_PROBABILITY = 1e-5
"""Probabilities are clipped to this before the logarithm, as in ``pydensecrf.utils.unary_from_softmax``."""


Values = TypeVar("Values", NDArray[np.float32], Tensor)


class DenseCrf:
    """Dense CRF of one image: pairwise terms are built once and used for any number of unaries."""

    def __init__(
        self,
        image: NDArray[np.uint8],
        num_labels: int,
        *,
        kernels: Kernels = AUTHORS_KERNELS,
        backend: str = "auto",
        device: str = "cpu",
    ) -> None:
        """Build the lattices.

        Args:
            image: (H, W, 3) uint8.
            num_labels: K.
            kernels: sigmas and weights.
            backend: ``numba``, ``torch`` or ``pydensecrf``; ``auto`` is torch on a GPU, otherwise numba; if numba
                is missing or a sigma is too small for it, ``auto`` falls back to pydensecrf, then to torch.
            device: device of the backend ``torch``; the others run on the CPU.

        Raises:
            ValueError: an argument is not allowed.
            ImportError: the requested backend is not installed.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        if num_labels < 1:
            raise ValueError(f"num_labels must be 1 or more, got {num_labels!r}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        self._shape = (num_labels, *image.shape[:2])
        self._inference: _Inference | None = None
        if num_labels > 1:
            self._inference = _build(backend, device, image, num_labels, kernels)

    def infer(self, probabilities: NDArray[np.float32], num_iterations: int = 10) -> NDArray[np.float32]:
        """Run mean-field inference.

        Args:
            probabilities: (K, H, W) float32 that sum to 1 over K.
            num_iterations: 0 returns ``probabilities`` unchanged.

        Returns:
            (K, H, W) float32 that sum to 1 over K.

        Raises:
            ValueError: an argument is not allowed, or ``probabilities`` holds NaN or infinity.
        """
        return self.infer_many([probabilities], num_iterations)[0]

    def infer_many(
        self, probabilities: Sequence[NDArray[np.float32]], num_iterations: int = 10
    ) -> list[NDArray[np.float32]]:
        """Run mean-field inference for several unaries in one pass, which is faster than one by one.

        Args:
            probabilities: any number of (K, H, W) float32 that sum to 1 over K.
            num_iterations: 0 returns ``probabilities`` unchanged.

        Returns:
            One (K, H, W) float32 per input, which sums to 1 over K.

        Raises:
            ValueError: an argument is not allowed, or ``probabilities`` holds NaN or infinity.
        """
        for values in probabilities:
            if values.shape != self._shape:
                raise ValueError(f"probabilities must be {self._shape}, got {values.shape}")
            if not np.isfinite(values).all():
                raise ValueError("probabilities must be finite, got NaN or infinity")
        if num_iterations < 0:
            raise ValueError(f"num_iterations must be 0 or more, got {num_iterations!r}")
        if num_iterations == 0 or not probabilities:
            return list(probabilities)
        if self._inference is None:
            return [np.ones(self._shape, np.float32) for _ in probabilities]
        logs = [_log(values).reshape(self._shape[0], -1) for values in probabilities]
        return [refined.reshape(self._shape) for refined in self._inference.infer(logs, num_iterations)]


class _Inference(Protocol):
    """The interface of a backend, built for one image."""

    def infer(
        self, log_probabilities: Sequence[NDArray[np.float32]], num_iterations: int
    ) -> Sequence[NDArray[np.float32]] | NDArray[np.float32]:
        """Refine each (K, N) float32."""


class _Pydensecrf:
    """The reference backend; if N is not a multiple of 4 its padding pixels change the result by some thousandths."""

    def __init__(self, image: NDArray[np.uint8], num_labels: int, kernels: Kernels) -> None:
        from pydensecrf.densecrf import DenseCRF2D

        self._crf: Any = DenseCRF2D(image.shape[1], image.shape[0], num_labels)
        self._crf.addPairwiseGaussian(sxy=kernels.spatial_sigma_px, compat=kernels.spatial_weight)
        # pydensecrf requires a contiguous, writable image.
        rgb = np.array(image, order="C")
        self._crf.addPairwiseBilateral(
            sxy=kernels.bilateral_sigma_px,
            srgb=kernels.bilateral_sigma_rgb,
            rgbim=rgb,
            compat=kernels.bilateral_weight,
        )

    def infer(self, log_probabilities: Sequence[NDArray[np.float32]], num_iterations: int) -> list[NDArray[np.float32]]:
        refined = []
        for logs in log_probabilities:
            self._crf.setUnaryEnergy(np.ascontiguousarray(-logs))
            refined.append(np.array(self._crf.inference(num_iterations), dtype=np.float32))
        return refined


def _build(backend: str, device: str, image: NDArray[np.uint8], num_labels: int, kernels: Kernels) -> _Inference:
    """Build the requested backend, or for ``auto`` the first that is available."""
    if backend == "torch" or (backend == "auto" and device != "cpu"):
        return _torch(image, device, kernels)
    if backend == "pydensecrf":
        return _Pydensecrf(image, num_labels, kernels)
    try:
        from engine.ops import permutohedral

        return permutohedral.MeanField(image, kernels)
    except (ImportError, SigmaTooSmallError):
        if backend == "numba":
            raise
    try:
        return _Pydensecrf(image, num_labels, kernels)
    except ImportError:
        return _torch(image, device, kernels)


def _torch(image: NDArray[np.uint8], device: str, kernels: Kernels) -> _Inference:
    from engine.ops import permutohedral_torch

    return permutohedral_torch.MeanField([torch.from_numpy(np.array(image)).to(device)], kernels)


def _log(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    clipped: NDArray[np.float32] = np.clip(probabilities, _SMALLEST_PROBABILITY, 1.0).astype(np.float32, copy=False)
    return np.log(clipped, out=clipped)


def dense_crf(
    image: NDArray[np.uint8] | Tensor,
    probabilities: Values,
    *,
    num_iterations: int = 10,
    spatial_sigma_px: float = 3.0,
    spatial_weight: float = 3.0,
    bilateral_sigma_px: float = 80.0,
    bilateral_sigma_rgb: float = 13.0,
    bilateral_weight: float = 10.0,
    backend: str = "auto",
    device: str = "cpu",
) -> Values:
    """Refine probabilities along the edges of an image by a dense CRF.

    Args:
        image: (H, W, 3) uint8, an array or a tensor.
        probabilities: (K, H, W) float32 that sum to 1 over K, an array or a tensor.
        num_iterations: mean-field iterations; 0 returns ``probabilities`` unchanged.
        spatial_sigma_px: width of the smoothness kernel, pixels.
        spatial_weight: weight of the smoothness kernel.
        bilateral_sigma_px: spatial width of the appearance kernel, pixels.
        bilateral_sigma_rgb: color width of the appearance kernel, on a scale of 0 to 255.
        bilateral_weight: weight of the appearance kernel.
        backend: as in :class:`DenseCrf`.
        device: device of the backend ``torch``; the others run on the CPU.

    Returns:
        (K, H, W) float32 that sum to 1 over K; a tensor on the same device if ``probabilities`` is one.

    Raises:
        ValueError: an argument is not allowed, or ``probabilities`` holds NaN or infinity.
        ImportError: the requested backend is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if probabilities.ndim != 3 or probabilities.shape[1:] != image.shape[:2]:
        shape, size = tuple(probabilities.shape), tuple(image.shape[:2])
        raise ValueError(f"probabilities must be (K, H, W) with (H, W) = {size}, got {shape}")
    if num_iterations == 0:
        return probabilities
    kernels = Kernels(
        spatial_sigma_px=spatial_sigma_px,
        spatial_weight=spatial_weight,
        bilateral_sigma_px=bilateral_sigma_px,
        bilateral_sigma_rgb=bilateral_sigma_rgb,
        bilateral_weight=bilateral_weight,
    )
    pixels = image.numpy(force=True) if isinstance(image, Tensor) else image
    crf = DenseCrf(pixels, len(probabilities), kernels=kernels, backend=backend, device=device)
    if isinstance(probabilities, Tensor):
        refined = crf.infer(probabilities.numpy(force=True), num_iterations)
        return torch.from_numpy(refined).to(probabilities.device)
    return crf.infer(probabilities, num_iterations)
