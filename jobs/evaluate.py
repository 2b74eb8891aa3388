"""Score masks against true masks: ``python -m jobs.evaluate``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.errors import ConfigError
from engine.runs.evaluation import MASK, calibration, score_images
from engine.runs.options import PresetChoice
from engine.runs.truth_check import warn_of_left_out
from engine.storage.filesystem import join
from engine.storage.run_record import WORK_FOLDER, write_json
from jobs.cli.command import main

RESULT = "evaluation.json"
CALIBRATION = "calibration.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """Score masks by per-class IoU and mIoU over all pixels of the images with true masks, as PASCAL VOC does."""

    masks: str
    """Folder of mask shards."""
    truth: str
    """True masks: a folder of PNGs named by image stem, or a folder of mask shards."""
    column: str = MASK
    """Column to score: mask, or mask_cam or mask_walk as written by jobs.label --keep-stages."""
    out: str = ""
    """Folder or URI for evaluation.json; by default the folder .tag2mask inside the masks' folder."""
    preset: PresetChoice = "auto"
    """Accepted for consistency; ignored."""
    config: str = ""
    """Accepted for consistency; ignored."""
    calibrate: bool = False
    """Also calibrate the confidence on these images and write calibration.json, for --config of jobs.label."""


def run(config: Evaluate) -> dict[str, Any]:
    """Score the masks and write ``evaluation.json``: ``miou``, ``iou`` by class, ``confusion``, ``images``.

    For masks with a confidence, ``confidence`` holds ``rank_correlation`` (Spearman's, with the true IoU of each
    image), ``mean``, ``mean_image_iou``, and ``best``: the mIoU of the most confident images.
    """
    if config.calibrate and config.column != MASK:
        raise ConfigError(f"must be {MASK} to calibrate its confidence, got '{config.column}'", thing="column")
    scores = score_images(config.masks, config.truth, config.column)
    result = scores.result
    folder = config.out or join(config.masks, WORK_FOLDER)
    if config.calibrate:
        write_json(join(folder, CALIBRATION), calibration(config.masks, scores))
    write_json(join(folder, RESULT), result)
    _print_table(result)
    if scores.remark:
        print(f"note: {scores.remark}", file=sys.stderr)
    warn_of_left_out(scores.left_out)
    if config.calibrate:
        print(f"calibration: {join(folder, CALIBRATION)}")
    return result


def _print_table(result: dict[str, Any]) -> None:
    console = Console(width=80)
    table = Table(title=f"IoU over {result['images']} images", title_justify="left")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in result["iou"].items():
        table.add_row(name, f"{100 * value:.1f}")
    table.add_section()
    table.add_row("mean", f"{100 * result['miou']:.1f}")
    console.print(table)
    confidence = result.get("confidence")
    if confidence is None:
        return
    table = Table(title="Most confident images", title_justify="left")
    for name in ("images", "confidence from", "mIoU %"):
        table.add_column(name, justify="right")
    for best in confidence["best"]:
        table.add_row(f"{100 * best['fraction']:.0f} %", f"{best['least_confidence']:.2f}", f"{100 * best['miou']:.1f}")
    console.print(table)
    rank = confidence["rank_correlation"]
    console.print(
        f"Mean confidence {confidence['mean']:.3f}, mean true IoU of an image {confidence['mean_image_iou']:.3f}"
        + ("" if rank is None else f"; rank correlation {rank:.2f}")
    )


if __name__ == "__main__":
    sys.exit(main(Evaluate, run))
