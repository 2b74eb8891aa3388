"""Which values are black and white in pictures of more than 8 bits: measured on some, the same for all of a run.

A camera of 12 bits fills a sixteenth of a 16-bit file, which would be nearly black, and a range of each picture's own
would make the same grey another one in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import UserError
from engine.imaging.decoding import stored_values
from engine.imaging.pixels import full_range
from engine.resources import Decoding
from engine.storage.filesystem import resolve
from engine.storage.pictures import read_picture
from engine.storage.roots import lies_outside

NUM_IMAGES = 32
"""Images that are looked at, at most."""
PERCENTILES = (0.1, 99.9)
_MOST_VALUES = 1 << 16
_THREADS = 4
"""A picture of 16 bits may be large."""


class Sample:
    """Some rows of a stream, evenly spread over it."""

    def __init__(self) -> None:
        self._every = 1
        self._num_rows = 0
        self._places: list[tuple[str | None, str]] = []

    def uris(self, folder: str, *, allow_outside: bool) -> list[str]:
        """Where the pictures of the rows lie; none outside of ``folder``, unless that is allowed."""
        places = [uri or resolve(image, folder) for uri, image in self._places if uri or image]
        return [place for place in places if allow_outside or not lies_outside(place, folder)]

    def add(self, table: pa.Table) -> None:
        """The next rows of the stream."""
        for offset in range(-self._num_rows % self._every, len(table), self._every):
            if (self._num_rows + offset) % self._every:
                continue  # it was made coarser on the way
            self._places.append((table.column("uri")[offset].as_py(), table.column("image")[offset].as_py()))
            if len(self._places) > NUM_IMAGES:
                self._places = self._places[::2]
                self._every *= 2
        self._num_rows += len(table)


def measured_range(uris: Sequence[str], decoding: Decoding) -> tuple[float, ...]:
    """The range that pictures use; empty where they have 8 bits, or use at least half of what their files allow.

    Args:
        uris: of the pictures; what cannot be read does not count, for its row will say so.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = [one for one in pool.map(partial(_some_values, decoding=decoding), dict.fromkeys(uris)) if len(one)]
    if not found:
        return ()
    values = np.concatenate(found)
    full = full_range(float(values.min()), float(values.max()), "F" if values.dtype.kind == "f" else "I")
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if low == high or (full is not None and high - low >= (full[1] - full[0]) / 2):
        return ()
    return low, high


def _some_values(uri: str, decoding: Decoding) -> NDArray[Any]:
    """Values of a picture of more than 8 bits, on a fixed grid; none of any other."""
    try:
        values = stored_values(read_picture(uri), decoding)
    except (OSError, UserError):
        values = None
    if values is None:
        return np.empty(0, np.uint16)
    if values.ndim == 3 and decoding.bands and max(decoding.bands) < values.shape[2]:
        values = values[..., decoding.bands]
    some: NDArray[Any] = values.reshape(-1)[:: max(1, values.size // _MOST_VALUES)]
    finite: NDArray[Any] = some[np.isfinite(some)]
    return finite
