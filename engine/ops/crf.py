"""Dense CRF (Krähenbühl and Koltun, NIPS 2011), as jiwoon-ahn/psa applies it through pydensecrf.

Letters: K labels (background and classes present), (H, W) pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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

        Raises:
            ValueError: an argument is not allowed.
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
        self._shape = (num_labels, *image.shape[:2])
        self._crf: Any = None
        if num_labels == 1:
            return
        from pydensecrf.densecrf import DenseCRF2D

        height, width = image.shape[:2]
        self._crf = DenseCRF2D(width, height, num_labels)
        self._crf.addPairwiseGaussian(sxy=spatial_sigma_px, compat=spatial_weight)
        # pydensecrf asks for a contiguous image that it may write to.
        rgb = np.array(image, order="C")
        self._crf.addPairwiseBilateral(
            sxy=bilateral_sigma_px, srgb=bilateral_sigma_rgb, rgbim=rgb, compat=bilateral_weight
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
        if probabilities.shape != self._shape:
            raise ValueError(f"probabilities has the shape {probabilities.shape}; allowed: {self._shape}")
        if not np.isfinite(probabilities).all():
            raise ValueError("probabilities holds NaN or infinity; allowed: finite numbers")
        if num_iterations < 0:
            raise ValueError(f"num_iterations is {num_iterations!r}; allowed: 0 or more")
        if num_iterations == 0:
            return probabilities
        if self._crf is None:
            return np.ones(self._shape, np.float32)
        unary = -np.log(np.clip(probabilities, _SMALLEST_PROBABILITY, 1.0)).astype(np.float32)
        self._crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(self._shape[0], -1)))
        refined = np.asarray(self._crf.inference(num_iterations), dtype=np.float32)
        return refined.reshape(self._shape)


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
        backend: ``pydensecrf``, the reference, or ``auto``, at present the same.

    Returns:
        (K, H, W) float32 that sum to 1 over K.

    Raises:
        ValueError: an argument is not allowed, or ``probabilities`` holds NaN or infinity.
    """
    if backend not in ("auto", "pydensecrf"):
        raise ValueError(f"backend is {backend!r}; allowed: 'auto', 'pydensecrf'")
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
    )
    return crf.infer(probabilities, num_iterations)
