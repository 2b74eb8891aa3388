"""Parameters of the dense CRF's pairwise kernels, for the settings and for :mod:`engine.ops.crf`. A leaf."""

from __future__ import annotations

from dataclasses import dataclass

from engine.checks import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """Smoothness kernel (position) and appearance kernel (position and color); defaults as in jiwoon-ahn/psa."""

    spatial_sigma_px: float = 3.0
    """Width of the smoothness kernel, pixels."""
    spatial_weight: float = 3.0
    """Weight of the smoothness kernel."""
    bilateral_sigma_px: float = 80.0
    """Spatial width of the appearance kernel, pixels."""
    bilateral_sigma_rgb: float = 13.0
    """Color width of the appearance kernel, on a scale of 0 to 255."""
    bilateral_weight: float = 10.0
    """Weight of the appearance kernel."""

    def __post_init__(self) -> None:
        require(self.spatial_sigma_px > 0, "spatial_sigma_px", self.spatial_sigma_px, "above 0")
        require(self.bilateral_sigma_px > 0, "bilateral_sigma_px", self.bilateral_sigma_px, "above 0")
        require(self.bilateral_sigma_rgb > 0, "bilateral_sigma_rgb", self.bilateral_sigma_rgb, "above 0")


AUTHORS_KERNELS = Kernels()
