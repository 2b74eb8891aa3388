"""Plot the curves of a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.charts import ACCENT, FAINT, chart_style, draw_curve, new_figure, to_png

CURVES = {
    "loss": "loss",
    "learning_rate": "learning rate of the new layers",
    "images_per_s": "images per second",
    "waiting": "share of time spent waiting for images",
}
"""Titles of the values that a training reports."""


def draw_curves(curve: Sequence[dict[str, float]], validation: Sequence[dict[str, float]]) -> bytes:
    """Plot each value over the steps, as PNG; training and held-out loss share a chart.

    Args:
        curve: points with ``step`` and the names of :data:`CURVES`.
        validation: points with ``step``, ``loss`` and scores; may be empty.
    """
    scores = [name for name in (validation[-1] if validation else {}) if name not in ("step", "loss")]
    names = [*CURVES, *scores]
    num_rows = -(-len(names) // 2)
    with chart_style():
        figure = new_figure(1000, 300 * num_rows)
        for number, name in enumerate(names, start=1):
            axes = figure.add_subplot(num_rows, 2, number)
            lines = {"training": (curve, ACCENT)} if name in CURVES else {}
            if name == "loss" or name in scores:
                lines["held-out images"] = (validation, FAINT if lines else ACCENT)
            for label, (rows, color) in lines.items():
                points = np.array([(row["step"], row[name]) for row in rows if name in row]).reshape(-1, 2)
                points = points[np.isfinite(points).all(axis=1)]
                if len(points):
                    draw_curve(axes, points, color=color, label=label)
            if name == "loss" and validation:
                axes.legend()
            axes.set_title(CURVES.get(name, name.replace("_", " ") + ", held-out images"))
            axes.set_xlabel("step")
        return to_png(figure)
