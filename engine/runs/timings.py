"""Time spent in each stage of a run, for ``summary.json`` and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.distributed.metrics import WAITING

NAMES = {"manifest": "read manifest", "cam": "CAM", "dcrf": "dCRF", "crf": "mask (enlarge, argmax)", "commit": "write"}
"""Table labels of stages whose short names are unclear."""


def timing_summary(
    seconds: Mapping[str, float], *, num_images: int, wall_s: float, num_cores: float = 1, price: float = 0.0
) -> dict[str, Any]:
    """Summarize the time of this run for ``summary.json``.

    Args:
        seconds: Seconds of work by stage, and of waiting, summed over all actors.
        num_images: Images processed in this run.
        wall_s: Wall-clock seconds of this run.
        num_cores: Cores of the cluster, busy or not.
        price: Price of one of them per hour; 0 if unknown.

    Returns:
        ``stage_seconds`` and ``waiting_seconds``; with images, also ``per_million_images``: ``hours`` and
        ``core_hours`` on this cluster, including startup, with a price their ``cost``, and ``stage_hours``, the actor
        hours of each stage.
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
            "core_hours": round(wall_s * num_cores * scale, 3),
            **({"cost": round(wall_s * num_cores * scale * price, 3)} if price else {}),
            "stage_hours": {name: round(value * scale, 3) for name, value in work.items()},
        }
    return summary


def bill(summary: Mapping[str, Any]) -> str:
    """What a million images cost on this cluster, in one line."""
    per_million = summary["per_million_images"]
    hours = per_million["core_hours"]
    cost = f", cost {per_million['cost']:.2f}" if "cost" in per_million else ""
    each = f"{hours * 3600 / 1e6:.2f} core-seconds per image, startup included"
    return f"{each}; a million images: {hours:.0f} core-hours{cost}"


def profile(summary: Mapping[str, Any], num_images: int) -> list[dict[str, Any]]:
    """List the stages with ``seconds``, ``share`` of the work and ``ms_per_image`` on one actor, and the waiting."""
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
    """Print the profile as a table."""
    table = Table(title="Time by stage, over all actors", title_justify="left")
    for name in ("stage", "seconds", "share", "ms per image"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for row in rows:
        more = (f"{row['share']:.1%}", f"{row['ms_per_image']:.1f}") if "share" in row else ("", "")
        table.add_row(row["stage"], f"{row['seconds']:.1f}", *more)
    Console(width=88).print(table)
