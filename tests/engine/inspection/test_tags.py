"""Statistics of the tags, held against loops over the rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.inspection import tags as module
from engine.inspection.tags import LEAST_IMAGES, TOGETHER, tag_statistics
from tests.engine.inspection.data_sets import frozen, rows_of


def test_counts_agree_with_a_loop_over_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 16)  # several batches
    rng = np.random.default_rng(0)
    names = [f"class {number}" for number in range(6)]
    tags = [[names[number] for number in rng.permutation(6)[: rng.integers(0, 5)]] for _ in range(200)]
    for row in tags:  # class 1 comes with class 0 in nearly all images
        if "class 1" in row and "class 0" not in row and rng.random() < 0.98:
            row.append("class 0")
    tags[7].append("no class")
    found = tag_statistics(frozen(tmp_path, rows_of(*tags), names))
    counts = Counter(tag for row in tags for tag in row)
    assert found.num_images == 200
    assert found.counts == {name: counts[name] for name in names}
    assert list(found.counts.values()) == sorted(found.counts.values(), reverse=True)
    assert found.histogram == Counter(len(row) for row in tags)
    assert (found.unknown, found.num_unknown_images) == ({"no class": 1}, 1)
    expected = {}
    for one in names:
        having = [row for row in tags if one in row]
        for other in names:
            share = sum(other in row for row in having) / len(having)
            if one != other and share >= TOGETHER and len(having) >= LEAST_IMAGES:
                expected[one, other] = share
    assert {(one, other): share for one, other, share in found.together} == expected
    assert ("class 1", "class 0") in expected


def test_rare_tags_are_not_said_to_come_together(tmp_path: Path) -> None:
    tags = [["sofa", "room"]] * (LEAST_IMAGES - 1) + [["dog"]] * 3
    assert tag_statistics(frozen(tmp_path, rows_of(*tags), ["dog", "room", "sofa"])).together == []


def test_only_the_most_common_classes_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_COMPARED", 2)
    tags = [["a", "b"]] * 9 + [["c", "d"]] * 8 + [["other", "a"]] * 2
    found = tag_statistics(frozen(tmp_path, rows_of(*tags), ["d", "c", "b", "a"]))
    assert found.together == [("b", "a", 1.0)]


def test_rows_that_name_a_file_again_are_counted(tmp_path: Path) -> None:
    rows = [("a.png", ["cat"]), ("b.png", ["cat"]), ("a.png", ["dog"]), ("a.png", [])]
    assert tag_statistics(frozen(tmp_path, rows, ["cat", "dog"], with_ids=True)).num_repeated == 2


def test_images_without_any_tag_are_counted(tmp_path: Path) -> None:
    found = tag_statistics(frozen(tmp_path, rows_of([], []), ["cat"]))
    assert (found.histogram, found.counts, found.together) == ({0: 2}, {"cat": 0}, [])
