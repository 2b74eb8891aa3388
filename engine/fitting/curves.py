"""The curves of a training as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

CURVES = {"loss": "loss", "learning_rate": "rate of the new layers", "images_per_s": "images/s", "waiting": "waiting"}
"""Of the training, by their names there."""


def draw_curves(curve: Sequence[dict[str, float]], validation: Sequence[dict[str, float]]) -> bytes:
    """A small picture for each number over the steps, as PNG; the held-out loss stands beside the training's.

    Args:
        curve: points with ``step`` and the names of :data:`CURVES`.
        validation: points with ``step``, ``loss`` and scores; may be empty.
    """
    from matplotlib.figure import Figure  # heavy, and of no use to workers

    scores = [name for name in (validation[-1] if validation else {}) if name not in ("step", "loss")]
    names = [*CURVES, *scores]
    num_rows = -(-len(names) // 2)
    figure = Figure(figsize=(10, 3 * num_rows), layout="constrained")
    for number, name in enumerate(names):
        axes = figure.add_subplot(num_rows, 2, number + 1)
        points = curve if name in CURVES else validation
        _line(axes, points, name, "training" if name == "loss" else None)
        if name == "loss" and validation:
            _line(axes, validation, name, "held-out images")
            axes.legend()
        axes.set_title(CURVES.get(name, name.replace("_", " ") + ", held-out images"))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _line(axes: object, points: Sequence[dict[str, float]], name: str, label: str | None) -> None:
    known = [point for point in points if name in point]
    marker = "." if len(known) < 40 else ""
    axes.plot([point["step"] for point in known], [point[name] for point in known], marker=marker, label=label)  # type: ignore[attr-defined]
