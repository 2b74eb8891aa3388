import math

import numpy as np
import pytest

from engine.report import charts


def test_a_curve_stays_inside_its_chart_and_keeps_its_ends() -> None:
    rows = [{"step": step, "loss": math.exp(-step / 500), "epoch": step // 100} for step in range(5000)]
    (chart,) = charts.curve_charts(rows)
    points = np.array([[float(part) for part in point.split(",")] for point in chart.line.split()])
    assert len(points) <= 240
    assert points[:, 0].min() >= charts.LEFT
    assert points[:, 0].max() <= charts.WIDTH - charts.RIGHT + 0.1
    assert points[:, 1].min() >= charts.TOP
    assert points[:, 1].max() <= charts.HEIGHT - charts.BOTTOM + 0.1
    assert (np.diff(points[:, 1]) >= 0).all()  # a falling loss falls on the screen, where y grows downwards


@pytest.mark.parametrize(
    "values", [[3.0], [2.0, 2.0], [0.0, 0.0], [1e-9, 2e-9], [-5.0, 1e9], [1.0, math.nan, math.inf, 2.0]]
)
def test_odd_curves_are_drawn_with_readable_ticks(values: list[float]) -> None:
    (chart,) = charts.curve_charts([{"loss": value} for value in values])
    assert 1 <= len(chart.y_ticks) <= 6
    assert all(len(words) <= 8 for _, words in chart.y_ticks)
    assert "nan" not in chart.line
    assert ("not finite" in chart.note) == (len(values) == 4)


def test_rows_without_numbers_give_no_chart() -> None:
    assert charts.curve_charts([]) == []
    assert charts.curve_charts([{"step": 1, "phase": "warm up", "done": True}, {"loss": None}]) == []


def test_a_scatter_of_a_million_is_small_and_none_without_pairs() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 100_000)
    chart = charts.scatter(values.tolist(), (values**2).tolist())
    assert chart is not None
    assert len(chart.dots) <= 1500
    assert charts.scatter([math.nan], [0.5]) is None


def test_a_histogram_counts_every_image() -> None:
    chart = charts.histogram([0.0, 1.0, 1.0, 0.51, math.nan])
    assert chart is not None
    assert sum(int(words.split(": ")[1].split()[0]) for *_, words in chart.bars) == 4
    assert charts.histogram([]) is None
