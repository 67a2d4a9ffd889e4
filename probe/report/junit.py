"""A Run -> its objectives as JUnit test cases, for pipelines: FAIL is a failure, INCONCLUSIVE an error."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from probe.model import NS
from probe.report.text import actual_text, headline
from probe.report.units import moment, plain
from probe.runfile import Run
from probe.verdict import Judged, Ruling, verdict_of


def junit_report(run: Run) -> str:
    """XML as Jenkins, GitLab and GitHub's actions read it (github.com/testmoapp/junitxml), ends with a newline."""
    verdict = verdict_of(run)
    rulings = [judged.ruling for judged in verdict.objectives]
    suite = Element(
        "testsuite",
        name=plain(run.head.name),
        tests=str(len(rulings)),
        failures=str(rulings.count(Ruling.FAIL)),
        errors=str(rulings.count(Ruling.INCONCLUSIVE)),
        skipped="0",
        time=f"{run.end_ns / NS:.3f}",
        timestamp=moment(run.head.started_unix_ns),
    )
    for judged in verdict.objectives:
        _case(suite, run, judged)
    SubElement(suite, "system-out").text = headline(verdict)
    indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suite, "unicode") + "\n"


def _case(suite: Element, run: Run, judged: Judged) -> None:
    case = SubElement(
        suite,
        "testcase",
        classname=f"dnsprobe.{plain(run.head.name)}",
        name=plain(judged.objective.text),
        time=f"{run.end_ns / NS:.3f}",
    )
    if judged.ruling is Ruling.PASS:
        return
    where = f" on {plain(judged.lane)} -> {plain(judged.target)}" if judged.lane else ""
    kind = "failure" if judged.ruling is Ruling.FAIL else "error"
    said = SubElement(case, kind, type=judged.ruling.value, message=f"{actual_text(judged)}{where}")
    said.text = plain(judged.why)
