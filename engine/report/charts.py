"""Charts of a report as inline SVG: training curves, confidence against IoU, a histogram of confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.charts import ACCENT, FAINT, INK, chart_style, draw_curve, new_figure, to_svg
from engine.ops.metrics import rank_correlation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_DOTS = 1000
_AXES = ("step", "epoch")
_TITLES = {"images_per_s": "images per second"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart with its title and a note."""

    title: str
    svg: str
    note: str = ""


def curve_charts(network: str, rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Draw a chart of each metric of a training, over its step (else epoch, else row number).

    Args:
        network: Name of the network, for screen readers.
        rows: Metrics such as ``{"step": 10, "loss": 0.3}``.
    """
    axis = next((name for name in _AXES if any(name in row for row in rows)), "")
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value)))
    charts = []
    for name in sorted((name for name in names if name not in _AXES), key=lambda name: "loss" not in name):
        points = np.array(
            [
                (float(row.get(axis, number) if axis else number), float(row[name]))
                for number, row in enumerate(rows)
                if _is_number(row.get(name)) and (not axis or _is_number(row.get(axis)))
            ]
        ).reshape(-1, 2)
        finite = points[np.isfinite(points).all(axis=1)]
        if not len(finite):
            continue
        finite = finite[finite[:, 0].argsort(kind="stable")]
        title, num_lost = _TITLES.get(name, name.replace("_", " ")), len(points) - len(finite)
        with chart_style():
            axes = _new_axes(axis or "row", "")
            draw_curve(axes, finite)
            svg = _svg(axes, f"{network}: {title}")
        note = f"last {finite[-1, 1]:.4g}" + f"; {num_lost} non-finite values" * bool(num_lost)
        charts.append(Chart(title=title, svg=svg, note=note))
    return charts


def scatter(confidences: Sequence[float], ious: Sequence[float]) -> Chart | None:
    """Plot confidence against true IoU, both in [0, 1], with the mean of each decile; None if no image has both."""
    pairs = np.array([confidences, ious], np.float64).T.reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if not len(pairs):
        return None
    shown = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), _MAX_DOTS)).astype(int)]
    means = [part.mean(0) for part in np.array_split(pairs[pairs[:, 0].argsort()], min(10, len(pairs)))]
    rank = rank_correlation(confidences, ious)
    title = "Confidence against true IoU"
    with chart_style():
        axes = _new_axes("confidence, %", "IoU, %")
        dots = (100 * np.clip(shown, 0, 1)).T
        axes.plot(*dots, "o", markersize=5, markeredgewidth=0, color=ACCENT, alpha=0.5, clip_on=False)
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle="--")
        axes.plot(*(100 * np.array(means)).T, color=INK, linewidth=2)
        axes.set(xlim=(0, 100), ylim=(0, 100), xticks=range(0, 101, 25), yticks=range(0, 101, 25))
        svg = _svg(axes, title)
    note = f"{len(pairs)} images" + ("" if rank is None else f", Spearman's rank correlation {rank:.2f}")
    return Chart(title=title, svg=svg, note=note)


def histogram(confidences: Sequence[float]) -> Chart | None:
    """Plot a histogram of confidence in 20 bins; None without any confidence."""
    values = np.array([value for value in confidences if _is_number(value) and math.isfinite(value)])
    if not len(values):
        return None
    counts, edges = np.histogram(100 * np.clip(values, 0, 1), 20, (0, 100))
    title = "Confidence"
    with chart_style():
        axes = _new_axes("confidence, %", "images")
        for bar, count in zip(axes.bar(edges[:-1], counts, width=4.4, align="edge", color=ACCENT), counts, strict=True):
            bar.set_gid(f"{bar.get_x():.0f} to {bar.get_x() + 5:.0f} %: {count} images")
        axes.set(xlim=(0, 100), xticks=range(0, 101, 25))
        axes.locator_params("y", integer=True, nbins=5)
        svg = _svg(axes, title)
    return Chart(title=title, svg=svg, note=f"{len(values)} images, median {100 * float(np.median(values)):.0f} %")


def _new_axes(x_name: str, y_name: str) -> Axes:
    axes = new_figure().add_subplot()
    axes.set(xlabel=x_name, ylabel=y_name)
    return axes


def _svg(axes: Axes, label: str) -> str:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return to_svg(figure, label).replace(' xmlns="http://www.w3.org/2000/svg"', "")  # HTML needs none


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
