"""Score the stages of a run and print the scores as a table."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.progress import Meter
from engine.runs.evaluation import Scores, score_images
from engine.storage.shards import count_rows, read_schema

STAGE_COLUMNS = {"cam": "mask_cam", "walk": "mask_walk", "crf": "mask"}
"""Maps each stage to the column of its masks; only ``mask`` is always present."""
EARLIER_ROUND = "round-{}"
"""Folder in the output of jobs.run for the masks and network of a round before the last."""
SEGMENTED = "segmented"
"""Folder in the output of jobs.run for the segmentation network's own masks; made only to score them."""
MOST_ROUNDS = 9


def stages_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Collect the mIoU and IoU by class of every stage, in order of execution.

    Args:
        summary: Summary of jobs.run with truth.

    Returns:
        ``miou`` and ``iou``, each by stage: ``cam``, ``walk``, ``crf`` of the first round; ``maps 2``, ``walk 2``,
        ``dCRF 2`` of the second and so on; ``segmentation``. Stages that were not kept are left out.
    """
    names = {"cam": "maps", "walk": "walk", "crf": "dCRF"}
    found: dict[str, dict[str, Any]] = {"miou": {}, "iou": {}}
    for number, one in enumerate(summary["rounds"], start=1):
        for kind, by_stage in found.items():
            by_stage |= {
                stage if number == 1 else f"{name} {number}": one[kind][stage]
                for stage, name in names.items()
                if stage in one[kind]
            }
    for kind, by_stage in found.items():
        by_stage["segmentation"] = summary[kind]["segmentation"]
    return found


def score_stages(
    masks: str, truth: str, stages: Collection[str] = tuple(STAGE_COLUMNS), *, meter: Meter | None = None
) -> dict[str, Scores]:
    """Score each of the given stages whose masks the shards contain; ``meter`` as of :func:`score_images`."""
    columns = {stage: column for stage, column in _kept_columns(masks).items() if stage in stages}
    return {stage: score_images(masks, truth, column, meter=meter) for stage, column in columns.items()}


def _kept_columns(masks: str) -> dict[str, str]:
    kept = read_schema(masks).names
    return {stage: column for stage, column in STAGE_COLUMNS.items() if column in kept}


def by_measure(scores: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    """Regroup scores as ``miou`` and ``iou``, each by stage."""
    return {name: {stage: one.result[name] for stage, one in scores.items()} for name in ("miou", "iou")}


def score_rounds(folders: list[str], segmented: str, truth: str) -> tuple[dict[str, Any], dict[str, Scores]]:
    """Score the stages of every round; masks that were made without truth contain only their last stage.

    Args:
        folders: Mask shards of each round, in order.
        segmented: Masks of the segmentation network.
        truth: The true masks.

    Returns:
        A summary with ``miou`` and ``iou`` (the CAM of the first round, then the last round's stages) and ``rounds``
        (the scores of each round); and, by folder, the scores of the last round's masks and of the network's.
    """
    total = sum(count_rows(folder) * len(_kept_columns(folder)) for folder in folders) + count_rows(segmented)
    with Meter("evaluate", total, unit="masks") as meter:
        rounds = [score_stages(folder, truth, meter=meter) for folder in folders]
        network = score_images(segmented, truth, meter=meter)
    first = {stage: result for stage, result in rounds[0].items() if stage == "cam"}
    last = {stage: result for stage, result in rounds[-1].items() if stage != "cam"}
    stages = {**first, **last, "segmentation": network}
    if not first:
        print("CAM and walk are not scored: the masks were made without truth", file=sys.stderr)
    summary = {
        "scored_images": len(stages["crf"].ious),
        **by_measure(stages),
        "rounds": [by_measure(one) for one in rounds],
    }
    return summary, {folders[-1]: stages["crf"], segmented: stages["segmentation"]}


def print_scores(summary: Mapping[str, Any]) -> None:
    """Print a table of IoU by class and stage."""
    stages = stages_of(summary)
    headings = {"cam": "CAM", "crf": "dCRF", "segmentation": "network"}
    table = Table(title=f"IoU % over {summary['scored_images']} images", title_justify="left")
    table.add_column("class")
    for stage in stages["miou"]:
        table.add_column(headings.get(stage, stage), justify="right")
    for name in summary["iou"]["crf"]:
        values = [by_class.get(name) for by_class in stages["iou"].values()]
        table.add_row(name, *("-" if value is None else f"{100 * value:.1f}" for value in values))
    table.add_section()
    table.add_row("mean", *(f"{100 * value:.1f}" for value in stages["miou"].values()))
    Console(width=88).print(table)
