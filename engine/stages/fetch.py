"""Fetch images from storage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from engine.records import Batch
from engine.storage.filesystem import read_bytes


class FetchImages:
    """Reads ``uri``; adds ``encoded`` (the image's file), ``height`` and ``width`` (empty yet); fills ``error``."""

    def __init__(self, *, threads: int) -> None:
        """Args:
        threads: images that are fetched at the same time.
        """
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, batch: Batch) -> Batch:
        fetched = list(self._pool.map(_fetch, batch["uri"], batch["error"]))
        empty = [None] * len(fetched)
        return {
            **{name: values for name, values in batch.items() if name != "uri"},
            "encoded": [encoded for encoded, _ in fetched],
            "error": [error for _, error in fetched],
            "height": empty,
            "width": list(empty),
        }


def _fetch(uri: str, error: str | None) -> tuple[bytes | None, str | None]:
    if error is not None:
        return None, error
    try:
        return read_bytes(uri), None
    except OSError as reason:
        return None, f"fetch: {reason}"
