"""Where a run's time went: for ``summary.json`` and, if asked for, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.distributed.metrics import WAITING

NAMES = {"manifest": "read manifest", "cam": "CAM", "dcrf": "dCRF", "crf": "mask (enlarge, argmax)", "commit": "write"}
"""How the table calls a stage that its short name does not explain."""


def timing_summary(seconds: Mapping[str, float], *, num_images: int, wall_s: float) -> dict[str, Any]:
    """What ``summary.json`` says of the time of this run.

    Args:
        seconds: of work by stage, and of waiting, over all actors.
        num_images: done in this run.
        wall_s: seconds of this run.

    Returns:
        ``stage_seconds`` and ``waiting_seconds``; with images, ``per_million_images``: ``hours`` on this cluster, start
        included, and ``stage_hours`` of one actor each.
    """
    work = {name: round(value, 3) for name, value in seconds.items() if not name.startswith(WAITING)}
    waiting = {
        name.removeprefix(WAITING): round(value, 3) for name, value in seconds.items() if name.startswith(WAITING)
    }
    summary: dict[str, Any] = {"stage_seconds": work, "waiting_seconds": waiting}
    if num_images:
        scale = 1e6 / 3600 / num_images
        summary["per_million_images"] = {
            "hours": round(wall_s * scale, 3),
            "stage_hours": {name: round(value * scale, 3) for name, value in work.items()},
        }
    return summary


def profile(summary: Mapping[str, Any], num_images: int) -> list[dict[str, Any]]:
    """The stages and the waiting, each with ``seconds``, ``share`` of the work and ``ms_per_image`` of one actor."""
    total = sum(summary["stage_seconds"].values()) or 1.0
    rows = [
        {
            "stage": NAMES.get(name, name),
            "seconds": seconds,
            "share": round(seconds / total, 4),
            "ms_per_image": round(1000 * seconds / max(1, num_images), 3),
        }
        for name, seconds in sorted(summary["stage_seconds"].items(), key=lambda one: -one[1])
    ]
    rows += [
        {"stage": f"waiting ({stages})", "seconds": seconds} for stages, seconds in summary["waiting_seconds"].items()
    ]
    return rows


def print_profile(rows: list[dict[str, Any]]) -> None:
    """The profile as a table on the screen."""
    table = Table(title="Where the time goes, over all actors", title_justify="left")
    for name in ("stage", "seconds", "share", "ms an image"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for row in rows:
        more = (f"{row['share']:.1%}", f"{row['ms_per_image']:.1f}") if "share" in row else ("", "")
        table.add_row(row["stage"], f"{row['seconds']:.1f}", *more)
    Console(width=88).print(table)
