"""Keep a tally of the errors in each committed shard, stored next to the shards.

Opening every shard to count its errors when resuming would take an hour for ten million images. The tally is saved
every few seconds, so after a kill only the most recent shards are read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from engine.errors import OutputError
from engine.records import error_counts
from engine.storage.filesystem import join
from engine.storage.run_record import WORK_FOLDER, read_json, write_json
from engine.storage.shards import committed_shards, read_shard

TALLY_NAME = "tally.json"
SAVE_EVERY_S = 20.0
_THREADS = 16


class Tally:
    """The committed shards of a folder, with their errors by stage."""

    def __init__(self, folder: str) -> None:
        """List the committed shards, and read the tally and the shards committed after it was saved."""
        self._folder = folder
        self._location = join(folder, WORK_FOLDER, TALLY_NAME)
        self._saved_at = time.monotonic()
        committed = committed_shards(folder)
        self._errors = {shard: errors for shard, errors in self._read().items() if shard in committed}
        with ThreadPoolExecutor(_THREADS) as pool:
            unknown = sorted(committed - self._errors.keys())
            self._errors.update(zip(unknown, pool.map(self._count, unknown), strict=True))

    @property
    def shards(self) -> set[int]:
        """Numbers of the committed shards."""
        return set(self._errors)

    @property
    def errors(self) -> Counter[str]:
        """Number of failed images, by stage."""
        return sum((errors for errors in self._errors.values() if errors), Counter[str]())

    def add(self, shard: int, errors: Counter[str]) -> None:
        """Record a committed shard."""
        self._errors[shard] = errors
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self.save()

    def errors_of(self, shard: int) -> Counter[str]:
        """Count the failed images of a shard, by stage; empty if it is not committed."""
        return self._errors.get(shard, Counter())

    def forget_errors(self) -> None:
        """Treat the shards with errors as not committed."""
        self.forget([shard for shard, errors in self._errors.items() if errors])

    def forget(self, shards: Collection[int]) -> None:
        """Treat shards as not committed."""
        if shards:
            for shard in shards:
                self._errors.pop(shard, None)
            self.save()

    def save(self) -> None:
        """Write the tally.

        Raises:
            StorageError: The tally cannot be written.
        """
        failed = {str(shard): dict(errors) for shard, errors in sorted(self._errors.items()) if errors}
        write_json(self._location, {"shards": _ranges(self._errors), "errors": failed})
        self._saved_at = time.monotonic()

    def _read(self) -> dict[int, Counter[str]]:
        try:
            values = read_json(self._location) or {"shards": [], "errors": {}}
            failed = {int(shard): Counter[str](errors) for shard, errors in values["errors"].items()}
            shards = [shard for first, last in values["shards"] for shard in range(first, last + 1)]
        except (OutputError, KeyError, TypeError, ValueError, AttributeError):
            return {}  # damaged: count the errors from the shards
        return {shard: failed.get(shard, Counter()) for shard in shards}

    def _count(self, shard: int) -> Counter[str]:
        return Counter(error_counts(read_shard(self._folder, shard, ["error"]).column("error").to_pylist()))


def _ranges(shards: Iterable[int]) -> list[list[int]]:
    """Compress numbers to [first, last] ranges."""
    ranges: list[list[int]] = []
    for shard in sorted(shards):
        if ranges and ranges[-1][1] == shard - 1:
            ranges[-1][1] = shard
        else:
            ranges.append([shard, shard])
    return ranges
