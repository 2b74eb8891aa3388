"""The charts of a report."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np

from engine.report import charts


def texts(chart: charts.Chart) -> list[str | None]:
    return [text.text for text in ElementTree.fromstring(chart.svg).iter("text")]


def test_each_number_of_a_training_is_a_chart_over_its_step_losses_first() -> None:
    rows = [
        {"step": step, "images_per_s": 5.0, "loss": math.exp(-step / 50), "epoch": step // 10} for step in range(90)
    ]
    rate, loss = charts.curve_charts("Classifier", rows)[::-1]
    assert (loss.title, rate.title) == ("loss", "images per second")
    assert "step" in texts(loss)
    assert 'aria-label="Classifier: loss"' in loss.svg
    assert loss.note == "last 0.1686"
    (by_epoch,) = charts.curve_charts("", [{"epoch": 1, "loss": 2.0}])
    assert "epoch" in texts(by_epoch)
    (by_row,) = charts.curve_charts("", [{"loss": 2.0}])
    assert "row" in texts(by_row)


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    (chart,) = charts.curve_charts("", [{"loss": value} for value in (1.0, math.nan, math.inf, 2.0)])
    assert chart.note == "last 2; 2 non-finite values"
    assert "nan" not in chart.svg


def test_rows_without_numbers_give_no_chart() -> None:
    assert charts.curve_charts("", []) == []
    assert charts.curve_charts("", [{"step": 1, "phase": "warm up", "done": True}, {"loss": None}]) == []


def test_a_scatter_of_a_million_is_small_and_none_without_pairs() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 1_000_000)
    chart = charts.scatter(values.tolist(), (values**2).tolist())
    assert chart is not None
    assert chart.note == "1000000 images, Spearman's rank correlation 1.00"
    assert 900 < chart.svg.count("<use") < 1100
    assert len(chart.svg) < 150_000
    assert {"confidence, %", "IoU, %"} <= set(texts(chart))
    assert charts.scatter([math.nan], [0.5]) is None


def test_a_histogram_counts_every_image() -> None:
    chart = charts.histogram([0.0, 1.0, 1.0, 0.51, math.nan])
    assert chart is not None
    counts = {int(start): int(count) for start, count in re.findall(r"<title>(\d+) to \d+ %: (\d+) images", chart.svg)}
    assert len(counts) == 20
    assert {start: count for start, count in counts.items() if count} == {0: 1, 50: 1, 95: 2}
    assert chart.note == "4 images, median 76 %"
    assert charts.histogram([]) is None
