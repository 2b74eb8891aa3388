"""tag2mask: segmentation masks for images that have tags only (AffinityNet at dataset scale)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.labeling import LabeledImage, Labeler, label_images

_IN_LABELING = ("LabeledImage", "Labeler", "label_images")
__all__ = ["LabeledImage", "Labeler", "__version__", "label_images"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _IN_LABELING:  # torch is imported only by whoever asks for these
        from engine import labeling

        return getattr(labeling, name)
    raise AttributeError(f"module 'engine' has no attribute '{name}'")
