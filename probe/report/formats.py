"""The name of a format -> what makes it of a Run."""

from __future__ import annotations

from collections.abc import Callable

from probe.report.chart import png_report, svg_report
from probe.report.csv import csv_report
from probe.report.dnsperf import dnsperf_report
from probe.report.html import html_report
from probe.report.json import json_report
from probe.report.junit import junit_report
from probe.report.lines import lines_report
from probe.report.markdown import markdown_report
from probe.report.text import text_report
from probe.runfile import Run

REPORTS: dict[str, Callable[[Run], str]] = {
    "text": text_report,
    "json": json_report,
    "jsonl": lines_report,
    "dnsperf": dnsperf_report,
    "markdown": markdown_report,
    "csv": csv_report,
    "junit": junit_report,
}
"""What can be printed."""

PICTURES: dict[str, Callable[[Run], bytes]] = {"html": html_report, "svg": svg_report, "png": png_report}
"""What is written to a file. They need the extra `report`."""
