"""A Run -> a report: text for people, JSON for programs, lines of it for logs, dnsperf's words for its parsers."""

from __future__ import annotations

from collections.abc import Callable

from probe.report.dnsperf import dnsperf_report
from probe.report.json import json_report
from probe.report.lines import lines_report
from probe.report.text import text_report
from probe.runfile import Run

__all__ = ["REPORTS", "dnsperf_report", "json_report", "lines_report", "text_report"]

REPORTS: dict[str, Callable[[Run], str]] = {
    "text": text_report,
    "json": json_report,
    "jsonl": lines_report,
    "dnsperf": dnsperf_report,
}
