"""tag2mask: segmentation masks for images that have tags only (AffinityNet at dataset scale)."""

__version__ = "0.1.0"
