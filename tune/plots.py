"""Plots as SVG, drawn by hand: heat maps of mIoU over alpha and steps, bars of IoU by class."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from tune.results import Scored

_CELL_W, _CELL_H, _LEFT, _TOP, _GAP, _COLUMNS = 46, 24, 64, 46, 34, 3
_RAMP = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], dtype=np.float64)
"""Five colours of viridis: they stay apart in grey and for the colour-blind."""
_MOST_CELLS = 24


def heat_maps(scored: Sequence[Scored]) -> str:
    """mIoU (%) over alpha (across) and number of steps (down), a panel for each beta and set of scales.

    Args:
        scored: configurations without dCRF; a panel holds those that were scored on all images.
    """
    complete = [one for one in scored if one.complete and not one.with_crf]
    names = sorted({(one.scales, one.beta) for one in complete})
    panels = [[one for one in complete if (one.scales, one.beta) == name] for name in names]
    panels = [panel for panel in panels if len(panel) > 1] or panels
    low, high = min(one.miou for one in complete), max(one.miou for one in complete)
    parts: list[str] = []
    x = y = row_height = width = 0
    for index, panel in enumerate(panels):
        if index and index % _COLUMNS == 0:
            x, y, row_height = 0, y + row_height, 0
        drawn, panel_width, panel_height = _panel(
            panel, low, high, with_scales=len({one.scales for one in complete}) > 1
        )
        parts.append(f'<g transform="translate({x},{y})">{drawn}</g>')
        x += panel_width
        width, row_height = max(width, x), max(row_height, panel_height)
    return _document("".join(parts), width, y + row_height)


def _panel(panel: Sequence[Scored], low: float, high: float, *, with_scales: bool) -> tuple[str, int, int]:
    alphas = _thinned(sorted({one.alpha for one in panel}))
    steps = _thinned(sorted({one.num_steps for one in panel}))
    title = f"beta {panel[0].beta:g}"
    title += f", scales {','.join(f'{scale:g}' for scale in panel[0].scales)}" if with_scales else ""
    parts = [_text(_LEFT, 16, title, bold=True), _text(_LEFT, 32, "steps \\ alpha", small=True)]
    parts += [_text(_LEFT + _CELL_W * i + 4, _TOP - 3, f"{alpha:g}", small=True) for i, alpha in enumerate(alphas)]
    parts += [_text(18, _TOP + _CELL_H * j + 16, f"{count:g}", small=True) for j, count in enumerate(steps)]
    for one in panel:
        if one.alpha not in alphas or one.num_steps not in steps:
            continue
        place = (one.miou - low) / (high - low) if high > low else 1.0
        x, y = _LEFT + _CELL_W * alphas.index(one.alpha), _TOP + _CELL_H * steps.index(one.num_steps)
        parts.append(f'<rect x="{x}" y="{y}" width="{_CELL_W - 1}" height="{_CELL_H - 1}" fill="{_color(place)}"/>')
        ink = "#000" if place > 0.55 else "#fff"
        parts.append(_text(x + 8, y + 16, f"{100 * one.miou:.1f}", small=True, ink=ink))
    return "".join(parts), _LEFT + _CELL_W * len(alphas) + _GAP, _TOP + _CELL_H * len(steps) + _GAP


def _thinned(values: list[float]) -> list[float]:
    if len(values) <= _MOST_CELLS:
        return values
    return [values[index] for index in np.unique(np.linspace(0, len(values) - 1, _MOST_CELLS).round().astype(int))]


def class_bars(best: Scored, default: Scored | None, class_names: Sequence[str]) -> str:
    """IoU (%) of each class, of the best configuration and of the one the search started from."""
    names = ["background", *class_names]
    rows = [("best", best, "#21918c")] + ([("default", default, "#b8b8b8")] if default is not None else [])
    left, length, height = 12 + 7 * max(map(len, names)), 400, 14
    parts = []
    for index, (label, _, color) in enumerate(rows):
        parts.append(f'<rect x="{left + 90 * index}" y="8" width="12" height="12" fill="{color}"/>')
        parts.append(_text(left + 90 * index + 17, 18, label, small=True))
    y = 32
    for class_id, name in enumerate(names):
        parts.append(_text(6, y + 12 + height * (len(rows) - 1) // 2, name, small=True))
        for _, one, color in rows:
            value = one.iou[class_id]
            if not np.isnan(value):
                parts.append(
                    f'<rect x="{left}" y="{y}" width="{length * value:.1f}" height="{height - 2}" fill="{color}"/>'
                )
                parts.append(_text(left + int(length * value) + 4, y + 10, f"{100 * value:.1f}", small=True))
            y += height
        y += 8
    return _document("".join(parts), left + length + 50, y + 8)


def _color(place: float) -> str:
    channels = [np.interp(place, np.linspace(0, 1, len(_RAMP)), _RAMP[:, channel]) for channel in range(3)]
    return "#" + "".join(f"{round(float(value)):02x}" for value in channels)


def _text(x: int, y: int, text: str, *, small: bool = False, bold: bool = False, ink: str = "#222") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{11 if small else 13}"{weight} fill="{ink}">{escape(text)}</text>'


def _document(body: str, width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )
