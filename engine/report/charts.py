"""Numbers of a report brought to the coordinates of small SVG charts; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops.metrics import rank_correlation

WIDTH, HEIGHT = 420, 240
"""Of every chart, in its own units."""
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
"""Margins around the plotted area."""

_MOST_LINE_POINTS = 240
_MOST_DOTS = 1500
_AXES = ("step", "epoch")
_TITLES = {"images_per_s": "images a second"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart in its own coordinates."""

    title: str
    x_name: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    line: str = ""
    """Points of a polyline."""
    reference: str = ""
    """Points of a dashed one, to read the others against."""
    dots: tuple[tuple[float, float], ...] = ()
    bars: tuple[tuple[float, float, float, float, str], ...] = ()
    """x, y, width, height, text."""
    y_name: str = ""
    note: str = ""


def curve_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart for every number that a network's training reported, over its step (else epoch, else row)."""
    axis = next((name for name in _AXES if any(name in row for row in rows)), "")
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value)))
    charts = []
    for name in sorted((name for name in names if name not in _AXES), key=lambda name: "loss" not in name):
        points = [
            (float(row.get(axis, number) if axis else number), float(row[name]))
            for number, row in enumerate(rows)
            if _is_number(row.get(name)) and (not axis or _is_number(row.get(axis)))
        ]
        finite = [point for point in points if all(map(math.isfinite, point))]
        if finite:
            lost = len(points) - len(finite)
            title = _TITLES.get(name, name)
            charts.append(
                _line(title, axis or "row", np.array(sorted(finite)), f"{lost} values not finite" * bool(lost))
            )
    return charts


def scatter(confidences: Sequence[float], ious: Sequence[float]) -> Chart | None:
    """Confidence against true IoU, both of [0, 1], with the mean IoU of every tenth; None if no image has both."""
    pairs = _finite_pairs(confidences, ious)
    if not len(pairs):
        return None
    shown = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), _MOST_DOTS)).astype(int)]
    dots = tuple((round(_x(float(x), 0, 1), 1), round(_y(float(y), 0, 1), 1)) for x, y in np.clip(shown, 0, 1))
    rank = rank_correlation(confidences, ious)
    note = f"{len(pairs)} images" + ("" if rank is None else f", Spearman's rank correlation {rank:.2f}")
    means = [part.mean(0) for part in np.array_split(pairs[pairs[:, 0].argsort()], min(10, len(pairs)))]
    return Chart(
        title="Confidence against true IoU",
        x_name="confidence, %",
        y_name="IoU, %",
        x_ticks=_percent_ticks(_x),
        y_ticks=_percent_ticks(_y),
        dots=dots,
        line=_points(means),
        reference=_points([(0, 0), (1, 1)]),
        note=note,
    )


def _points(places: Sequence[Sequence[float] | NDArray[np.float64]]) -> str:
    """Points of [0, 1] x [0, 1] for a polyline."""
    return " ".join(f"{_x(float(x), 0, 1):.1f},{_y(float(y), 0, 1):.1f}" for x, y in places)


def histogram(confidences: Sequence[float]) -> Chart | None:
    """How many images have which confidence, in 20 steps; None without any."""
    values = np.asarray([value for value in confidences if _is_number(value) and math.isfinite(value)])
    if not len(values):
        return None
    counts, edges = np.histogram(np.clip(values, 0, 1), 20, (0, 1))
    most = float(counts.max())
    bars = []
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        left, right, top = _x(float(start), 0, 1), _x(float(end), 0, 1), _y(float(count), 0, most)
        words = f"{100 * start:.0f} to {100 * end:.0f} %: {count} images"
        bars.append(
            (round(left + 1, 1), round(top, 1), round(right - left - 2, 1), round(HEIGHT - BOTTOM - top, 1), words)
        )
    note = f"{len(values)} images, median {100 * float(np.median(values)):.0f} %"
    return Chart(
        title="Confidence",
        x_name="confidence, %",
        y_name="images",
        x_ticks=_percent_ticks(_x),
        y_ticks=[(_y(0, 0, most), "0"), (_y(most, 0, most), f"{most:.0f}")],
        bars=tuple(bars),
        note=note,
    )


def _finite_pairs(first: Sequence[float], second: Sequence[float]) -> NDArray[np.float64]:
    pairs = np.array([first, second], np.float64).T.reshape(-1, 2)
    return pairs[np.isfinite(pairs).all(1)]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _line(name: str, axis: str, points: NDArray[np.float64], note: str) -> Chart:
    if len(points) > _MOST_LINE_POINTS:  # means of neighbours, so that the shape and the file stay small
        points = np.array([part.mean(0) for part in np.array_split(points, _MOST_LINE_POINTS)])
    (x_low, y_low), (x_high, y_high) = points.min(0), points.max(0)
    if y_low == y_high:
        y_low, y_high = y_low - 0.5 * abs(y_low) - 1e-6, y_high + 0.5 * abs(y_high) + 1e-6
    if 0 <= y_low < 0.5 * y_high:
        y_low = 0.0  # a loss is read against zero
    places = [f"{_x(x, x_low, x_high):.1f},{_y(y, y_low, y_high):.1f}" for x, y in points]
    return Chart(
        title=name,
        x_name=axis,
        x_ticks=[(_x(value, x_low, x_high), _tick(value)) for value in _round_values(x_low, x_high)],
        y_ticks=[(_y(value, y_low, y_high), _tick(value)) for value in _round_values(y_low, y_high)],
        line=" ".join(places),
        dots=((_x(points[0][0], x_low, x_high), _y(points[0][1], y_low, y_high)),) if len(points) == 1 else (),
        note=f"last {points[-1][1]:.4g}" + f"; {note}" * bool(note),
    )


def _tick(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.6g}"


def _round_values(low: float, high: float) -> list[float]:
    """Up to six round values within the range."""
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= next((factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5), 10)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _percent_ticks(place: Any) -> list[tuple[float, str]]:
    return [(place(part / 4, 0, 1), f"{25 * part}") for part in range(5)]


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * ((value - low) / (high - low) if high > low else 0.5)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((value - low) / (high - low) if high > low else 0.5)
