"""Fetch images from storage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from engine.records import Batch
from engine.storage.pictures import file_of, read_pictures
from engine.storage.probes import bucket_of, check_bucket, check_store


class FetchImages:
    """Reads ``uri``; adds ``encoded`` (the image's file), ``height`` and ``width`` (empty yet, where the row has none);
    fills ``error``.
    """

    def __init__(self, *, threads: int) -> None:
        """Args:
        threads: images that are fetched at the same time.
        """
        self._pool = ThreadPoolExecutor(threads)
        self._buckets = set[str]()
        """That gave an image to this process."""

    def __call__(self, batch: Batch) -> Batch:
        """Raises StoreUnavailableError when the store of the images is away for long, has lost the bucket, or refuses
        the account.
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
            # where the store is to blame, no image is
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
