"""Render a self-contained HTML report with images, tables and charts, which loads nothing from the network."""

from engine.report.data import ReportData, ReportImage
from engine.report.report import findings, render_report

__all__ = ["ReportData", "ReportImage", "findings", "render_report"]
