"""Draw charts with matplotlib, as PNG or as SVG that adopts a page's colors.

SVG colors are CSS variables (``--ink``, ``--faint``, ``--line``, ``--accent``) whose defaults suit a light page, so the
same chart is readable on a light page, on a dark one and as a file. The same chart always gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # slow: imported only where a chart is drawn, so that workers never load it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LINE, ACCENT = "#1c1d21", "#66686f", "#dddcd8", "#2563c9"
"""Text, secondary text, grid, data."""
_VARIABLES = {INK: "--ink", FAINT: "--faint", LINE: "--line", ACCENT: "--accent"}

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": FAINT,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": "medium",
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "font.size": 13,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.labelcolor": FAINT,
    "svg.fonttype": "none",  # text as text, in the page's font
    "text.color": FAINT,
    "text.parse_math": False,  # names may contain dollar signs
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "ytick.left": False,
}
_COMPACTED = {
    re.compile(pattern, re.DOTALL): replacement
    for pattern, replacement in {
        r"\s*xmlns:xlink=\"[^\"]*\"": "",
        r"xlink:href": "href",
        r"<defs>\s*<style.*?</style>\s*</defs>": "",  # would apply to the whole page
        r"font-family: [^;\"]*;? ?": "",
        r" transform=\"rotate\(-?0 [^)]*\)\"": "",
        r"<g id=\"[^\" ]*\"": "<g",  # matplotlib's ids, which repeat in every chart
        r"<g id=\"([^\"]*)\"([^>]*)>": r"<g\2><title>\1</title>",
        r"(\.\d\d)\d+": r"\1",
        r">\s+<": "><",
        r"\s*\n\s*": " ",
    }.items()
}
_MAX_LINE_POINTS = 240


@contextmanager
def chart_style() -> Iterator[None]:
    """Apply the chart style while figures are created and saved."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def new_figure(width_px: int = 420, height_px: int = 240) -> Figure:
    """Create an empty figure; add its axes within :func:`chart_style`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_px / 72, height_px / 72))


def draw_curve(axes: Axes, points: NDArray[np.float64], *, color: str = ACCENT, label: str | None = None) -> None:
    """Draw a curve; few points get markers, many are averaged to keep the file small.

    Args:
        axes: The axes to draw on; y starts at 0 if that takes less than half of the height.
        points: (n, 2) float64, finite, n at least 1, sorted by x.
        label: Legend label.
    """
    if len(points) > _MAX_LINE_POINTS:
        points = np.array([part.mean(0) for part in np.array_split(points, _MAX_LINE_POINTS)])
    axes.plot(*points.T, color=color, label=label, marker="." if len(points) < 40 else "", linewidth=2)
    axes.locator_params("x", integer=True, nbins=6)
    axes.locator_params("y", nbins=5)
    low, high = axes.dataLim.intervaly
    if 0 <= low < 0.5 * high:
        axes.set_ylim(bottom=0)


def to_png(figure: Figure) -> bytes:
    """Encode a figure as PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=72, facecolor="white")
    return buffer.getvalue()


def to_svg(figure: Figure, label: str) -> str:
    """Encode a figure as one ``<svg>`` element with a transparent background, for a page or a file.

    Args:
        figure: The figure; a group id that contains a space (``set_gid``) becomes a tooltip.
        label: Text for screen readers.
    """
    import matplotlib

    label = label.encode("utf-8", "replace").decode()  # a name may contain a lone surrogate
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # a salt per chart makes ids unique across the charts of a page
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern, replacement in _COMPACTED.items():
        svg = pattern.sub(replacement, svg)
    for color, name in _VARIABLES.items():
        svg = svg.replace(color, f"var({name}, {color})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}" stroke-linejoin="round"', 1)
