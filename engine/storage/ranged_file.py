"""A remote file read by ranged requests."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import pyarrow as pa

_AHEAD_BYTES = 1 << 20
"""Least size of a read: each request costs money and some milliseconds."""


def open_ranged(size: int, fetch: Callable[[int, int], bytes]) -> pa.NativeFile:
    """Open a file of ``size`` bytes for random access; ``fetch(start, end)`` reads bytes, ``end`` excluded."""
    return pa.PythonFile(io.BufferedReader(_RangedFile(size, fetch), _AHEAD_BYTES), mode="r")


class _RangedFile(io.RawIOBase):
    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size, self._fetch, self._offset = size, fetch, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._offset = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence]
        return self._offset

    def readinto(self, into: Any) -> int:
        view = memoryview(into)
        end = min(self._offset + len(view), self._size)
        if end <= self._offset:
            return 0
        data = self._fetch(self._offset, end)
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)
