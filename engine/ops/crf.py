"""Dense CRF (Krähenbühl and Koltun, NIPS 2011), as jiwoon-ahn/psa applies it through pydensecrf.

Three backends give the same result: ``numba``, our own lattice (``permutohedral.py``); ``torch``, the same for GPUs
(``permutohedral_torch.py``, which also takes many images at once); and ``pydensecrf``, the reference.

Letters: K labels (background and classes present), (H, W) pixels, N = H * W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.ops.lattice_keys import SigmaTooSmallError

BACKENDS = ("auto", "numba", "torch", "pydensecrf")

_SMALLEST_PROBABILITY = 1e-5
"""Probabilities are clipped to this before the logarithm, as ``pydensecrf.utils.unary_from_softmax`` does."""


class DenseCrf:
    """The pairwise terms of one image, built once and used for any number of unaries."""

    def __init__(
        self,
        image: NDArray[np.uint8],
        num_labels: int,
        *,
        spatial_sigma_px: float = 3.0,
        spatial_weight: float = 3.0,
        bilateral_sigma_px: float = 80.0,
        bilateral_sigma_rgb: float = 13.0,
        bilateral_weight: float = 10.0,
        backend: str = "auto",
        device: str = "cpu",
    ) -> None:
        """Build the lattices.

        Args:
            image: (H, W, 3) uint8.
            num_labels: K; one label needs no lattice.
            spatial_sigma_px: reach of the smoothness kernel, pixels.
            spatial_weight: its weight.
            bilateral_sigma_px: reach of the appearance kernel, pixels.
            bilateral_sigma_rgb: colour difference that the appearance kernel bridges, in 0..255.
            bilateral_weight: its weight.
            backend: ``numba``, ``torch`` or ``pydensecrf``; ``auto`` takes torch for a GPU, else numba; where numba is
                missing or a sigma too small for it pydensecrf; and torch where that is missing too.
            device: where ``torch`` computes; the others know only ``cpu``.

        Raises:
            ValueError: an argument is not allowed.
            ImportError: the backend asked for is not installed.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(f"image is {image.shape} {image.dtype}; allowed: (H, W, 3) uint8")
        if num_labels < 1:
            raise ValueError(f"num_labels is {num_labels!r}; allowed: 1 or more")
        for name, value in (
            ("spatial_sigma_px", spatial_sigma_px),
            ("bilateral_sigma_px", bilateral_sigma_px),
            ("bilateral_sigma_rgb", bilateral_sigma_rgb),
        ):
            if not value > 0:
                raise ValueError(f"{name} is {value!r}; allowed: above 0")
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; allowed: {', '.join(map(repr, BACKENDS))}")
        self._shape = (num_labels, *image.shape[:2])
        self._inference: _Inference | None = None
        if num_labels > 1:
            self._inference = _build(
                backend,
                device,
                image,
                num_labels,
                spatial_sigma_px=spatial_sigma_px,
                spatial_weight=spatial_weight,
                bilateral_sigma_px=bilateral_sigma_px,
                bilateral_sigma_rgb=bilateral_sigma_rgb,
                bilateral_weight=bilateral_weight,
            )

    def infer(self, probabilities: NDArray[np.float32], num_iterations: int = 10) -> NDArray[np.float32]:
        """Mean field inference.

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
        """Mean field inference of several unaries in one pass, which is faster than one after the other.

        Args:
            probabilities: any number of (K, H, W) float32 that sum to 1 over K.
            num_iterations: 0 returns ``probabilities`` unchanged.

        Returns:
            as many (K, H, W) float32 that sum to 1 over K.

        Raises:
            ValueError: an argument is not allowed, or ``probabilities`` holds NaN or infinity.
        """
        for values in probabilities:
            if values.shape != self._shape:
                raise ValueError(f"probabilities has the shape {values.shape}; allowed: {self._shape}")
            if not np.isfinite(values).all():
                raise ValueError("probabilities holds NaN or infinity; allowed: finite numbers")
        if num_iterations < 0:
            raise ValueError(f"num_iterations is {num_iterations!r}; allowed: 0 or more")
        if num_iterations == 0 or not probabilities:
            return list(probabilities)
        if self._inference is None:
            return [np.ones(self._shape, np.float32) for _ in probabilities]
        logs = [_log(values).reshape(self._shape[0], -1) for values in probabilities]
        return [refined.reshape(self._shape) for refined in self._inference.infer(logs, num_iterations)]


class _Inference(Protocol):
    """What a backend makes of an image."""

    def infer(
        self, log_probabilities: Sequence[NDArray[np.float32]], num_iterations: int
    ) -> Sequence[NDArray[np.float32]] | NDArray[np.float32]:
        """Refine each (K, N) float32 to another."""


class _Pydensecrf:
    """The reference. N that is no multiple of 4 it pads with pixels that alter its result by some thousandths."""

    def __init__(
        self,
        image: NDArray[np.uint8],
        num_labels: int,
        *,
        spatial_sigma_px: float,
        spatial_weight: float,
        bilateral_sigma_px: float,
        bilateral_sigma_rgb: float,
        bilateral_weight: float,
    ) -> None:
        from pydensecrf.densecrf import DenseCRF2D

        self._crf: Any = DenseCRF2D(image.shape[1], image.shape[0], num_labels)
        self._crf.addPairwiseGaussian(sxy=spatial_sigma_px, compat=spatial_weight)
        # pydensecrf asks for a contiguous image that it may write to.
        rgb = np.array(image, order="C")
        self._crf.addPairwiseBilateral(
            sxy=bilateral_sigma_px, srgb=bilateral_sigma_rgb, rgbim=rgb, compat=bilateral_weight
        )

    def infer(self, log_probabilities: Sequence[NDArray[np.float32]], num_iterations: int) -> list[NDArray[np.float32]]:
        refined = []
        for logs in log_probabilities:
            self._crf.setUnaryEnergy(np.ascontiguousarray(-logs))
            refined.append(np.array(self._crf.inference(num_iterations), dtype=np.float32))
        return refined


def _build(backend: str, device: str, image: NDArray[np.uint8], num_labels: int, **settings: float) -> _Inference:
    """Build the lattices with the backend asked for, or with the first that can."""
    if backend == "torch" or (backend == "auto" and device != "cpu"):
        return _torch(image, device, **settings)
    if backend == "pydensecrf":
        return _Pydensecrf(image, num_labels, **settings)
    try:
        from engine.ops import permutohedral

        return permutohedral.MeanField(image, **settings)
    except (ImportError, SigmaTooSmallError):
        if backend == "numba":
            raise
    try:
        return _Pydensecrf(image, num_labels, **settings)
    except ImportError:
        return _torch(image, device, **settings)


def _torch(image: NDArray[np.uint8], device: str, **settings: float) -> _Inference:
    import torch

    from engine.ops import permutohedral_torch

    return permutohedral_torch.MeanField([torch.from_numpy(np.array(image)).to(device)], **settings)


def _log(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    clipped: NDArray[np.float32] = np.clip(probabilities, _SMALLEST_PROBABILITY, 1.0).astype(np.float32, copy=False)
    return np.log(clipped, out=clipped)


def dense_crf(
    image: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    *,
    num_iterations: int = 10,
    spatial_sigma_px: float = 3.0,
    spatial_weight: float = 3.0,
    bilateral_sigma_px: float = 80.0,
    bilateral_sigma_rgb: float = 13.0,
    bilateral_weight: float = 10.0,
    backend: str = "auto",
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Snap probabilities to the image's edges.

    Args:
        image: (H, W, 3) uint8.
        probabilities: (K, H, W) float32 that sum to 1 over K.
        num_iterations: mean field iterations; 0 returns ``probabilities`` unchanged.
        spatial_sigma_px: reach of the smoothness kernel, pixels.
        spatial_weight: its weight.
        bilateral_sigma_px: reach of the appearance kernel, pixels.
        bilateral_sigma_rgb: colour difference that the appearance kernel bridges, in 0..255.
        bilateral_weight: its weight.
        backend: ``numba``, ``torch`` or ``pydensecrf``; ``auto`` takes torch for a GPU, else numba; where numba is
            missing or a sigma too small for it pydensecrf; and torch where that is missing too.
        device: where ``torch`` computes; the others know only ``cpu``.

    Returns:
        (K, H, W) float32 that sum to 1 over K.

    Raises:
        ValueError: an argument is not allowed, or ``probabilities`` holds NaN or infinity.
        ImportError: the backend asked for is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; allowed: {', '.join(map(repr, BACKENDS))}")
    if probabilities.ndim != 3 or probabilities.shape[1:] != image.shape[:2]:
        raise ValueError(f"probabilities has the shape {probabilities.shape}; allowed: (K, H, W) of {image.shape[:2]}")
    if num_iterations == 0:
        return probabilities
    crf = DenseCrf(
        image,
        len(probabilities),
        spatial_sigma_px=spatial_sigma_px,
        spatial_weight=spatial_weight,
        bilateral_sigma_px=bilateral_sigma_px,
        bilateral_sigma_rgb=bilateral_sigma_rgb,
        bilateral_weight=bilateral_weight,
        backend=backend,
        device=device,
    )
    return crf.infer(probabilities, num_iterations)
