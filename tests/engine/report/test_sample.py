"""Which rows a report shows."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from engine.report.sample import Sample

NAMES = ["cat", "dog", "emu"]


def _rows(count: int) -> list[dict[str, Any]]:
    """Rows by rising confidence; one emu in all, and every tenth row an error of one of two stages."""
    return [
        {
            "image_id": f"{number:05d}",
            "tags": ["emu"] if number == count // 2 + 1 else [NAMES[number % 2]],
            "confidence": None if number % 10 == 0 else number / count,
            "error": None if number % 10 else ("fetch: gone" if number == 50 else "decode: odd"),
        }
        for number in range(count)
    ]


def _chosen(rows: list[dict[str, Any]], num_images: int = 24) -> list[tuple[str, str]]:
    sample = Sample(NAMES, num_images)
    for row in rows:
        sample.add(row)
    return [(row["image_id"], group) for row, group in sample.chosen()]


def test_every_reason_is_shown_and_each_image_once() -> None:
    chosen = _chosen(_rows(1000))
    assert len({image_id for image_id, _ in chosen}) == len(chosen)
    groups = Counter(group for _, group in chosen)
    assert groups["most confident"] == groups["least confident"] == 6
    assert {"class cat", "class dog", "class emu", "random", "error"} <= groups.keys()
    assert sum(count for group, count in groups.items() if group != "error") == 24
    assert [image_id for image_id, group in chosen if group == "most confident"] == [
        "00999", "00998", "00997", "00996", "00995", "00994",
    ]  # fmt: skip
    assert [image_id for image_id, group in chosen if group == "least confident"][:2] == ["00001", "00002"]
    assert ("00501", "class emu") in chosen


def test_a_rare_error_is_shown_beside_a_common_one() -> None:
    chosen = [image_id for image_id, group in _chosen(_rows(1000)) if group == "error"]
    assert "00050" in chosen
    assert 2 < len(chosen) <= 12


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = _rows(1000)
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    assert set(_chosen(shuffled)) == set(_chosen(rows))


def test_fewer_rows_than_places_are_all_shown() -> None:
    assert {image_id for image_id, _ in _chosen(_rows(9), 24)} == {f"{number:05d}" for number in range(9)}
    assert len(_chosen(_rows(100), 1)) == 1 + 6 + 1  # six of nine decode errors, and the fetch error
    assert _chosen([], 24) == []
