"""Plots of a search as SVG: heat maps of mIoU over alpha and steps, bars of IoU by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.charts import chart_style, new_figure, to_svg
from tune.results import Scored

_COLUMNS = 3
_MAX_TICKS = 12
_MAX_LABELED_CELLS = 200


def heat_maps(scored: Sequence[Scored]) -> bytes:
    """Plot mIoU (%) over alpha and the number of steps, one panel per beta and set of scales.

    Args:
        scored: Configurations without dCRF; those stopped early are left out.
    """
    complete = [one for one in scored if one.complete]
    names = sorted({(one.scales, one.beta) for one in complete})
    panels = [[one for one in complete if (one.scales, one.beta) == name] for name in names]
    panels = [panel for panel in panels if len(panel) > 1] or panels
    low, high = 100 * min(one.miou for one in complete), 100 * max(one.miou for one in complete)
    num_columns, num_rows = min(_COLUMNS, len(panels)), -(-len(panels) // _COLUMNS)
    with chart_style():
        figure = new_figure(400 * num_columns + 70, 290 * num_rows)
        for number, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(num_rows, num_columns, number)
            alphas, steps = sorted({one.alpha for one in panel}), sorted({one.num_steps for one in panel})
            values = np.full((len(steps), len(alphas)), np.nan)
            for one in panel:
                values[steps.index(one.num_steps), alphas.index(one.alpha)] = 100 * one.miou
            image = axes.imshow(values, vmin=low, vmax=high, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                if values.size <= _MAX_LABELED_CELLS and not np.isnan(value):
                    ink = "black" if value > low + 0.55 * (high - low) else "white"
                    text = axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=ink)
                    text.set_in_layout(False)  # measuring it takes longer than drawing it
            _ticks(axes.set_xticks, alphas)
            _ticks(axes.set_yticks, steps)
            axes.grid(visible=False)
            scales = ", ".join(f"{scale:g}" for scale in panel[0].scales)
            axes.set(title=f"beta {panel[0].beta:g}, scales {scales}", xlabel="alpha", ylabel="steps of the walk")
        figure.colorbar(image, ax=figure.axes, label="mIoU %")
        return to_svg(figure, "mIoU by configuration").encode()


def _ticks(set_ticks: Any, values: Sequence[float]) -> None:
    chosen = range(0, len(values), -(-len(values) // _MAX_TICKS))
    set_ticks(chosen, [f"{values[index]:g}" for index in chosen])


def class_bars(best: Scored, default: Scored | None, class_names: Sequence[str]) -> bytes:
    """Plot the IoU (%) of each class for the best configuration and the default."""
    names, rows = ["background", *class_names], [("best", best)]
    if default is not None:
        rows.append(("default", default))
    with chart_style():
        figure = new_figure(576, 86 + 32 * len(names))
        axes = figure.add_subplot()
        for index, (label, one) in enumerate(rows):
            places = np.arange(len(names)) + 0.4 * (index - 0.5 * (len(rows) - 1))
            bars = axes.barh(places, 100 * np.nan_to_num(one.iou), height=0.38, label=label)
            axes.bar_label(bars, ["" if np.isnan(value) else f"{100 * value:.1f}" for value in one.iou], padding=2)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(title="IoU by class", xlabel="IoU %", ylabel="class", xlim=(0, 108))
        axes.legend()
        return to_svg(figure, "IoU by class").encode()
