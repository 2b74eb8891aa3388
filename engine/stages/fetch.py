"""Fetch images from storage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from engine.records import Batch
from engine.storage.pictures import file_of, read_pictures
from engine.storage.probes import bucket_of, check_bucket, check_store


class FetchImages:
    """Reads ``uri``; adds ``encoded`` (the image file), and ``height`` and ``width`` as nulls if the batch has none;
    fills ``error``.
    """

    def __init__(self, *, threads: int) -> None:
        """Args:
        threads: number of images to fetch in parallel.
        """
        self._pool = ThreadPoolExecutor(threads)
        self._buckets = set[str]()
        """Buckets that this process has read an image from."""

    def __call__(self, batch: Batch) -> Batch:
        """Raises StoreUnavailableError if the store of the images stays unavailable, the bucket no longer exists, or
        the store refuses the credentials.
        """
        encoded: list[bytes | None] = [None] * len(batch["uri"])
        errors: list[str | None] = list(batch["error"])
        wanted = [row for row, error in enumerate(errors) if error is None]
        for row, result in zip(wanted, read_pictures([batch["uri"][row] for row in wanted], self._pool), strict=True):
            file = file_of(batch["uri"][row])
            if isinstance(result, bytes):
                encoded[row] = result
                self._buckets.add(bucket_of(file))
                continue
            # raises if the store is the cause, and not the image
            if not isinstance(result, FileNotFoundError):
                check_store(file)
            elif bucket_of(file) in self._buckets:
                check_bucket(file)
            errors[row] = f"fetch: {result}"
        empty: list[int | None] = [None] * len(encoded)
        return {
            **{name: values for name, values in batch.items() if name != "uri"},
            "encoded": encoded,
            "error": errors,
            "height": batch.get("height", empty),
            "width": batch.get("width", list(empty)),
        }
