"""The plots of a search as text."""

from __future__ import annotations

from tests.tune.test_results import _ranked
from tune.plots import class_bars, heat_maps


def test_heat_map_has_a_title_axis_labels_and_the_mious() -> None:
    text = heat_maps(_ranked(10, 20, 30, 40, 90, 50)).decode()
    assert "<svg" in text
    for part in ("beta 2, scales 1", ">alpha<", "steps of the walk", "mIoU %", ">81.8<"):
        assert part in text, part
    assert heat_maps(_ranked(10, 20, 30, 40, 90, 50)).decode() == text


def test_bars_name_the_classes_and_both_configurations() -> None:
    best, *_, default = _ranked(10, 20, 30, 40, 90, 50)
    text = class_bars(best, default, ("cat",)).decode()
    for part in (">background<", ">cat<", ">best<", ">default<", "IoU %", ">81.8<"):
        assert part in text, part
    assert ">default<" not in class_bars(best, None, ("cat",)).decode()
