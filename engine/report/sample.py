"""Choose the images that a report shows, in one pass over all rows and in constant memory."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

Row = Mapping[str, Any]

_MOST_ERRORS_SHOWN = 12


class Sample:
    """Samples rows of mask shards (id, tags, areas, confidence, error).

    A quarter are the most confident, a quarter the least confident, a quarter cover the classes, the rest are random.
    Random images have the smallest hashes of their ids, so the choice does not depend on the shards.
    Images without tags are all background, with confidence 1; they appear only among the random ones.
    """

    def __init__(self, class_names: Sequence[str], num_images: int) -> None:
        """Args:
        num_images: Maximum number of images without an error in :meth:`chosen`; a few with an error are added.
        """
        self._num_images = num_images
        share = max(1, num_images // 4)
        per_class = max(1, share // max(1, len(class_names)))
        self._most_confident = _Least(share)
        self._least_confident = _Least(share)
        self._of_class = {name: _Least(per_class) for name in class_names}
        self._any = _Least(max(1, num_images))
        self._failed: dict[str, _Least] = defaultdict(lambda: _Least(_MOST_ERRORS_SHOWN))

    def add(self, row: Row) -> None:
        """Consider one row."""
        image_id = row["image_id"]
        order = hashlib.blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if row["error"] is not None:
            self._failed[row["error"].split(":", 1)[0]].add((order, image_id), row)
            return
        confidence = 0.0 if row["confidence"] is None else row["confidence"]
        if not is_background(row):
            self._most_confident.add((-confidence, image_id), row)
            self._least_confident.add((confidence, image_id), row)
        for name in row["tags"]:
            if name in self._of_class:
                self._of_class[name].add((order, image_id), row)
        self._any.add((order, image_id), row)

    def chosen(self) -> list[tuple[Row, str]]:
        """Return the sample without duplicates, as (row, group): most confident, least confident, class NAME, ..."""
        rows: dict[str, tuple[Row, str]] = {}

        def take(kept: _Least, group: str, most: int) -> None:
            for row in kept.rows():
                if len(rows) < most:
                    rows.setdefault(row["image_id"], (row, group))

        take(self._most_confident, "most confident", self._num_images)
        take(self._least_confident, "least confident", self._num_images)
        for name, kept in self._of_class.items():
            take(kept, f"class {name}", self._num_images)
        take(self._any, "random", self._num_images)
        per_stage = max(1, _MOST_ERRORS_SHOWN // max(1, len(self._failed)))  # common errors do not displace rare ones
        for kept in self._failed.values():
            take(kept, "error", len(rows) + per_stage)
        return list(rows.values())


def is_background(row: Row) -> bool:
    """Whether the row is an image without tags whose mask is all background."""
    return not row["tags"] and row["areas"] == [1.0]


class _Least:
    """Keeps the rows with the smallest keys. Keys end with the id, so no two are equal."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[tuple[Any, str], Row]] = []

    def add(self, key: tuple[Any, str], row: Row) -> None:
        if len(self._kept) >= self._most and key > self._kept[self._most - 1][0]:
            return
        self._kept.append((key, row))
        if len(self._kept) in (self._most, 2 * self._most):  # keeps the first ``most`` sorted once there are as many
            self._sort()

    def rows(self) -> list[Row]:
        self._sort()
        return [row for _, row in self._kept]

    def _sort(self) -> None:
        self._kept.sort(key=itemgetter(0))
        del self._kept[self._most :]
