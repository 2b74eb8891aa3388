"""One self-contained HTML file on what a run made: pictures, tables, charts; it opens anywhere and fetches nothing."""

from engine.report.data import ReportData, ReportImage
from engine.report.report import findings, render_report

__all__ = ["ReportData", "ReportImage", "findings", "render_report"]
