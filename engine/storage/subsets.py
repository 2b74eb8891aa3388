"""Subsets of the images by a hash of their ids: which are kept for validation."""

from __future__ import annotations

import hashlib


def is_held_out(image_id: str, fraction: float) -> bool:
    """Whether an image is kept for validation; it depends on nothing but its id and the fraction.

    Args:
        fraction: of all images, [0, 1]; what a smaller fraction holds out, a larger one does too.
    """
    digest = hashlib.blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64
