"""Show what a run made, as one self-contained HTML file: ``python -m jobs.report``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from engine.config import PresetName
from engine.report import render_report
from engine.runs.reporting import ReportSource, report_data
from engine.storage.filesystem import join, write_bytes
from jobs.cli.command import main

REPORT = "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report(ReportSource):
    """Write one HTML file with pictures, scores and settings of a folder of masks; it opens without a network."""

    out: str = ""
    """Folder or URI for report.html; the masks' folder by default."""
    preset: PresetName = "small"
    """Accepted for consistency; ignored."""
    config: str = ""
    """Accepted for consistency; ignored."""


def run(config: Report) -> dict[str, Any]:
    """Write ``report.html``; returns its location."""
    location = join(config.out or config.masks, REPORT)
    write_bytes(location, render_report(report_data(config)).encode())
    print(f"report: {location}")
    return {"report": location}


if __name__ == "__main__":
    sys.exit(main(Report, run))
