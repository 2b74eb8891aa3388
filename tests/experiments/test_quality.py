"""What the benchmark of the masks counts."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import quality


def test_every_image_belongs_to_one_part() -> None:
    ids = [f"images/{number}.jpg" for number in range(300)]
    dev = [image_id for image_id in ids if quality.in_part(image_id, "dev")]
    assert sorted(dev + [image_id for image_id in ids if quality.in_part(image_id, "held")]) == sorted(ids)
    assert 70 < len(dev) < 130
    assert all(quality.in_part(image_id, "all") for image_id in ids)


def test_objects_are_scored_one_by_one_and_pixels_together() -> None:
    large, small = np.zeros((10, 10), dtype=np.uint8), np.zeros((10, 10), dtype=np.uint8)
    large[:5] = 1  # half of the image, found but for a fifth
    found = large.copy()
    found[0] = 0
    small[0, :4] = 1  # 4 %, not found
    small[9] = 2  # beside it another class, found
    small_found = np.where(small == 2, small, 0)
    line, ious = quality.scored(iter([(large, found), (small, small_found)]), 2)
    assert line["above 20 %"] == pytest.approx(80)
    assert line["below 5 %"] == 0
    assert line["5 to 20 %"] == pytest.approx(100)
    assert line["several classes"] == pytest.approx(50)
    assert ious == pytest.approx([100 * 136 / 150, 100 * 40 / 54, 100])
    assert line["mIoU"] == pytest.approx(np.mean(ious))


def test_several_runs_are_one_line_a_stage() -> None:
    objects = dict.fromkeys(quality.kinds_of_objects(), 50.0)
    runs = [{"walk": ({"mIoU": value, **objects}, [value, value])} for value in (60.0, 64.0)]
    (line,) = quality.lines_of(runs, ["dog"])
    assert (line["stage"], line["mIoU"], line["spread"], line["dog"]) == ("walk", 62.0, 4.0, 62.0)
