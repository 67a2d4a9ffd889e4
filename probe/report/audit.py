"""What an audit found -> text, JSON, JUnit or Markdown: what will break first, with the command that mends it.

JSON: schema_version; exit_code; headline; facts{}; counts{} by severity; findings[]: id, title, severity, text, why,
evidence[], remedy, source; plan[]: title, checks[], commands[], expect[]; measured[]: sentences; changes[]: id,
severity, text, evidence[], remedy, only with --against; unread{}: what could not be read, and why.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from probe.audit import CHECKS, Check, Severity
from probe.audit.plan import Step
from probe.model import Finding
from probe.report.columns import wrapped
from probe.report.markdown import block, inert
from probe.report.units import plain

SCHEMA_VERSION = 1
_SHOWN = 6
"""Of more lines of evidence of one finding only the number is said."""
_LOUD = (Severity.FAIL, Severity.WARN)


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found, and how the command exits.

    facts: what was looked at, by name. plan: () if a part of the checks alone was asked for. changes: since the
    snapshot that --against names; None without it. measured: what a run showed, in sentences. fails: what a failure is
    for JUnit.
    """

    findings: Sequence[Finding]
    facts: Mapping[str, str]
    exit_code: int
    plan: Sequence[Step] = ()
    changes: Sequence[Finding] | None = None
    measured: Sequence[str] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    fails: Sequence[Severity] = (Severity.FAIL,)

    @property
    def counts(self) -> dict[Severity, int]:
        """Checks by the worst that they say; all severities, worst first."""
        worst: dict[str, Severity] = {}
        for one in self.findings:  # worst first
            worst.setdefault(one.id, Severity(one.severity))
        n = Counter(worst.values())
        return {severity: n[severity] for severity in Severity}

    def of(self, severity: Severity) -> list[Finding]:
        """In the order of the checks."""
        return [one for one in self.findings if one.severity == severity]


def headline(seen: Audited) -> str:
    """`2 fail, 5 warn, 1 unknown, 4 info, 31 pass`."""
    said = ", ".join(f"{n} {severity}" for severity, n in seen.counts.items() if n)
    return f"audit of cluster DNS: {said or 'no check was asked for'}"


# -- text


def audit_text(seen: Audited) -> str:
    """About 110 columns, ends with a newline. What fails is said in full, what passes by its id."""
    parts = [[headline(seen), *_facts(_loud(seen) | dict(seen.facts))]]
    for severity in _LOUD:
        told = [list(_said(one, seen)) for one in seen.of(severity)]
        parts += [[f"{severity.upper()}", *told[0]], *told[1:]] if told else []
    if unknown := seen.of(Severity.UNKNOWN):
        parts.append(["UNKNOWN", *_grouped(unknown)])
    if info := seen.of(Severity.INFO):
        said = (wrapped(f"{one.id}  {CHECKS[one.id].title}: {plain(one.text)}", 2, 7) for one in info)
        parts.append(["INFO", *(line for lines in said for line in lines)])
    if passed := list(dict.fromkeys(one.id for one in seen.of(Severity.PASS))):
        loud = {one.id for one in seen.findings if one.severity != Severity.PASS}
        parts.append(["PASS", *wrapped(" ".join(name for name in passed if name not in loud) or "-", 2)])
    if seen.measured:
        parts.append(["MEASURED", *(line for text in seen.measured for line in wrapped(plain(text), 2, 4))])
    if seen.changes is not None:
        parts.append(["OVERWRITTEN", *(_changes(seen.changes) or ["  nothing: all is as it was"])])
    if seen.plan:
        parts.append(["PLAN", *(line for n, step in enumerate(seen.plan, 1) for line in _step(n, step))])
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts) + "\n"


def _facts(facts: Mapping[str, str]) -> list[str]:
    wide = max(map(len, facts), default=0)
    said = [(name, plain(text)) for name, text in facts.items() if text]
    return [line for name, text in said for line in wrapped(f"{name:{wide}}  {text}", 2, wide + 4)]


def _said(one: Finding, seen: Audited) -> Iterator[str]:
    """Its title, what is so and why that matters, the fields that say so, the remedy."""
    check = CHECKS[one.id]
    yield from wrapped(f"{one.id}  {check.title}", 2, 7)
    yield from wrapped(plain(one.text), 7)
    yield from wrapped(f"why: {check.why}", 7, 12)
    yield from (line for text in _evidence(one) for line in wrapped(f"- {plain(text)}", 7, 9))
    if above := _mended_above(one, seen):
        yield f"       mend: as {above} says"
    elif one.remedy:
        yield "       mend:"
        yield from (f"         {plain(line)}" for line in one.remedy.splitlines())


def _mended_above(one: Finding, seen: Audited) -> str:
    """The check that has the same remedy, and said it before; '' if none has."""
    before = seen.findings[: seen.findings.index(one)]
    return next((other.id for other in before if one.remedy and other.remedy == one.remedy), "")


def _evidence(one: Finding) -> list[str]:
    lines = one.evidence.splitlines()
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [*lines[:_SHOWN], *more]


def _loud(seen: Audited) -> dict[str, str]:
    """The ids of what fails and of what warns, for who has no time."""
    return {s.value: " ".join(dict.fromkeys(one.id for one in seen.of(s))) for s in _LOUD}


def _grouped(found: Sequence[Finding]) -> Iterator[str]:
    """Those that are unknown for one reason together: without rights that is all of them."""
    by_text: dict[str, list[str]] = {}
    for one in found:
        by_text.setdefault(one.text, []).append(one.id)
    for text, names in by_text.items():
        about = f"{names[0]}  {CHECKS[names[0]].title}" if len(names) == 1 else " ".join(names)
        yield from wrapped(f"{about}: {plain(text)}", 2, 7)


def _changes(changes: Sequence[Finding]) -> list[str]:
    lines: list[str] = []
    for one in changes:
        lines += wrapped(plain(one.text), 2, 4)
        lines += [f"    {plain(line)}" for line in one.evidence.splitlines()]
        lines += (
            ["    put it back:", *(f"      {plain(line)}" for line in one.remedy.splitlines())] if one.remedy else []
        )
    return lines


def _step(n: int, step: Step) -> Iterator[str]:
    say = "says" if len(step.checks) == 1 else "say"
    of = f": as {', '.join(step.checks)} {say}" if step.checks and not step.commands else ""
    yield from wrapped(f"{n:>2}. {step.title}{of}", 1, 5)
    yield from (f"       {plain(line)}" for line in step.commands)
    yield from (line for text in step.expect for line in wrapped(f"- {plain(text)}", 5, 7))


def explained(check: Check) -> str:
    """What --explain says of one."""
    lines = [f"{check.id}  {check.title}", *wrapped(f"why: {check.why}", 5), *wrapped(f"source: {check.source}", 5)]
    return "\n".join(lines) + "\n"


# -- for programs


def audit_json(seen: Audited) -> str:
    """See the head of this module."""
    told = {
        "schema_version": SCHEMA_VERSION,
        "exit_code": seen.exit_code,
        "headline": headline(seen),
        "facts": dict(seen.facts),
        "counts": seen.counts,
        "findings": [_found(one) for one in seen.findings],
        "plan": [{"title": s.title, "checks": s.checks, "commands": s.commands, "expect": s.expect} for s in seen.plan],
        "measured": list(seen.measured),
        "changes": None if seen.changes is None else [_change(one) for one in seen.changes],
        "unread": dict(seen.unread),
    }
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def _found(one: Finding) -> dict[str, object]:
    check = CHECKS[one.id]
    return {**_change(one), "title": check.title, "why": check.why, "source": one.source}


def _change(one: Finding) -> dict[str, object]:
    evidence = one.evidence.splitlines()
    return {"id": one.id, "severity": one.severity, "text": one.text, "evidence": evidence, "remedy": one.remedy}


def audit_junit(seen: Audited) -> str:
    """A test case for each check: what fails is a failure, what is unknown is skipped."""
    by_check: dict[str, list[Finding]] = {}
    for one in seen.findings:
        by_check.setdefault(one.id, []).append(one)
    worst = {name: Severity(found[0].severity) for name, found in by_check.items()}
    suite = Element(
        "testsuite",
        name="dnsprobe audit",
        tests=str(len(by_check)),
        failures=str(sum(severity in seen.fails for severity in worst.values())),
        errors="0",
        skipped=str(sum(severity is Severity.UNKNOWN for severity in worst.values())),
    )
    for name, found in sorted(by_check.items()):
        case = SubElement(suite, "testcase", classname="dnsprobe.audit", name=f"{name} {plain(CHECKS[name].title)}")
        text = "\n".join(_lines(found))
        if worst[name] in seen.fails:
            SubElement(case, "failure", type=worst[name].value, message=plain(found[0].text)).text = text
        elif worst[name] is Severity.UNKNOWN:
            SubElement(case, "skipped", message=plain(found[0].text))
        else:
            SubElement(case, "system-out").text = text
    indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suite, "unicode") + "\n"


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    for one in found:
        yield f"{one.severity}: {plain(one.text)}"
        yield from (f"- {plain(line)}" for line in one.evidence.splitlines())
        yield from (f"    {plain(line)}" for line in one.remedy.splitlines())


def audit_markdown(seen: Audited) -> str:
    """GitHub's Markdown; nothing that a cluster says is markup."""
    lines = [f"## {inert(headline(seen))}", ""]
    lines += [f"- {inert(name)}: {inert(text)}" for name, text in seen.facts.items() if text]
    for severity in Severity:
        found = seen.of(severity)
        if found and severity in _LOUD:
            lines += ["", f"### {severity}"]
            lines += [line for one in found for line in _section(one, seen)]
        elif found:
            lines += ["", f"### {severity}", "", "| check | |", "| --- | --- |"]
            lines += [f"| {one.id} {inert(CHECKS[one.id].title)} | {inert(one.text)} |" for one in found]
    if seen.measured:
        lines += ["", "### measured", "", *(f"- {inert(text)}" for text in seen.measured)]
    if seen.changes is not None:
        lines += ["", "### overwritten", ""]
        lines += [line for one in seen.changes for line in (f"- {inert(one.text)}", "", *_code(one.remedy))]
        lines += ["nothing: all is as it was"] * (not seen.changes)
    if seen.plan:
        lines += ["", "### plan"]
        for n, step in enumerate(seen.plan, 1):
            lines += ["", f"{n}\\. **{inert(step.title)}**", "", *_code("\n".join(step.commands))]
            lines += [f"- {inert(text)}" for text in step.expect]
    return "\n".join(lines) + "\n"


def _section(one: Finding, seen: Audited) -> list[str]:
    check = CHECKS[one.id]
    head = ["", f"**{one.id} {inert(check.title)}**", "", f"{inert(one.text)} {inert(check.why)}", ""]
    above = _mended_above(one, seen)
    mend = [f"mended as {above} says", ""] if above else _code(one.remedy)
    return [*head, *(f"- {inert(text)}" for text in _evidence(one)), "", *mend]


def _code(text: str) -> list[str]:
    return [*(block(text) if "\n" in text else ["```sh", plain(text), "```"]), ""] if text else []
