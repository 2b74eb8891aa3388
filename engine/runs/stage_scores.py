"""The stages of a whole run under the names that tables show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STAGE_COLUMNS = {"cam": "mask_cam", "walk": "mask_walk", "crf": "mask"}
"""Stage of the method to the column of jobs.label --keep-stages that holds its masks."""
EARLIER_ROUND = "round-{}"
"""Folder, in that of jobs.run, of the masks and the segmentation network of a round before the last."""
MOST_ROUNDS = 9


def stages_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every stage's mIoU and IoU by class, in the order of the work.

    Args:
        summary: of jobs.run with --truth.

    Returns:
        ``miou`` and ``iou``, each by stage: ``cam``, ``walk``, ``crf`` of the first round; ``maps 2``, ``walk 2``,
        ``dCRF 2`` of the second and so on; ``segmentation``. Without those that the masks of a round do not hold.
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
