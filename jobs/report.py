"""Write a self-contained HTML report on a run's masks: ``python -m jobs.report``."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from typing import Any

from engine.report import findings, render_report
from engine.runs.evaluation import Scores
from engine.runs.options import PresetChoice, ReportSource
from engine.runs.reporting import report_data
from engine.storage.filesystem import join, write_bytes
from engine.storage.run_record import WORK_FOLDER
from jobs.cli.command import main

REPORT = "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report(ReportSource):
    """Write a self-contained HTML report on a folder of masks: images, scores and settings. It opens offline."""

    out: str = ""
    """Folder or URI for report.html; by default the folder .tag2mask inside the masks' folder."""
    preset: PresetChoice = "auto"
    """Accepted for consistency; ignored."""
    config: str = ""
    """Accepted for consistency; ignored."""


def run(config: Report, *, scores: Scores | None = None) -> dict[str, Any]:
    """Write ``report.html``; returns its location.

    Args:
        scores: The scores of the masks, if already computed.
    """
    location = join(config.out or join(config.masks, WORK_FOLDER), REPORT)
    data = replace(report_data(config, scores), next_steps=_next_steps(config))
    write_bytes(location, render_report(data).encode())
    for finding in findings(data):
        print(finding)
    print(f"report: {location}")
    return {"report": location}


def _next_steps(config: Report) -> list[tuple[str, str]]:
    """Suggest commands to run next on these masks, as pairs (description, command)."""
    masks = ["--data", config.data, "--masks", config.masks]
    exported = ["export", *masks, "--format", "voc", "--min-confidence", ".6", "--out", join(config.out, "exported")]
    steps = [("Export the most confident masks", exported)]
    if not config.truth:
        run_folder = ["--run-folder", config.run_folder] if config.run_folder else []
        steps.append(("Score the masks against ground truth", ["report", *masks, *run_folder, "--truth", "FOLDER"]))
    if config.run_folder:
        cam, affinity, segmentation = (join(config.run_folder, name) for name in ("cam", "affinity", "segmentation"))
        networks = ["--cam", cam, "--affinity", affinity]
        if config.truth:
            found = join(config.run_folder, "search")
            search = ["search", "--data", config.data, "--truth", config.truth, *networks, "--out", found]
            steps.append(("Search for the best alpha, beta and number of steps of the walk", search))
        tags = ["check-tags", "--data", config.data, "--cam", cam, "--out", join(config.run_folder, "tags")]
        steps.append(("List tags that the classifier contradicts", tags))
        later = ["--cam", segmentation, "--affinity", affinity, "--out", "others"]
        steps.append(("Label other tagged images", ["label", "--data", "others.csv", *later]))
    return [(what, shlex.join(["tag2mask", *command])) for what, command in steps]


if __name__ == "__main__":
    sys.exit(main(Report, run))
