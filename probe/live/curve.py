"""Trials and what was found -> the lines of a curve that grows, a sentence for each server, JSON of it all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence

from probe.model import NS
from probe.report.units import duration, plain, share
from probe.scenario.capacity import Capacity, Search
from probe.scenario.trial import Trial
from probe.verdict import MEASURES, Judged, Ruling

HEADINGS = ("asked/s", "sent/s", "answered/s", "lost", "p50", "p99")
WIDTHS = (11, 11, 11, 10, 9, 9)


def heading(search: Search, server: str) -> str:
    """Whom the lines that follow are about, what must hold, and the names of their columns."""
    (lane,) = search.plan.lanes
    how = f"{search.plan.duration_ns / NS:g} s each, {lane.transport} {lane.ports}"
    return f"{server}: {', '.join(search.plan.objectives)}; {how}\n{_columns(HEADINGS)}"


def line(trial: Trial) -> str:
    """A trial: rates, loss, latency from when a query was due, and whether the objectives were met."""
    numbers = (f"{trial.rate:,}", f"{trial.sent:,.0f}", f"{trial.answered:,.0f}", share(trial.loss.share))
    return f"{_columns((*numbers, duration(trial.p50_ns), duration(trial.p99_ns)))}  {plain(_what(trial))}"


def _what(trial: Trial) -> str:
    if trial.met:
        return "met"
    limit = f" (this prober: {trial.limit})" if trial.limit else ""
    if trial.missed and trial.missed.ruling is Ruling.FAIL:
        return f"missed: {_said(trial.missed)}{limit}"
    return f"unknown{limit or ': ' + (trial.missed.why if trial.missed else '')}"


def _columns(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


def _said(missed: Judged) -> str:
    """`loss 0.4 %`."""
    measure = missed.objective.measure
    actual = share(missed.actual) if MEASURES[measure].unit == "%" else duration(missed.actual * NS)
    return f"{measure} {actual}"


def sentence(found: Capacity, workers: int = 1) -> str:
    """`capacity of 10.96.0.10: 41,300 q/s (p99 3.1 ms at it; at 43,000 loss 0.4 %)`, or why it is not known."""
    return plain(f"capacity of {found.target.name}: {_found(found, workers)}")


def _found(found: Capacity, workers: int) -> str:
    met, missed = found.met, found.missed
    if not found.complete:
        below = f", under {missed.rate:,} q/s" if missed else ""
        return f"{_rate(found)}{below} so far: interrupted" if met else "interrupted before anything was found"
    if missed and not met:
        if found.limit:
            limit = f"this prober is the limit: {found.limit}; {_remedy(missed, workers)}"
            return f"unknown: at {missed.rate:,} q/s {limit}"
        return f"under {missed.rate:,} q/s, the lowest rate that was asked: {_said_of(missed)}"
    if not met:
        return "unknown"
    p99 = f"p99 {duration(met.p99_ns)} at it"
    if found.limit:
        at = f"at {missed.rate:,} " if missed else ""
        remedy = f"; {_remedy(missed, workers)}" if missed else ""
        return f"{_rate(found)} ({p99}): this prober is the limit: {at}{found.limit}{remedy}"
    if missed:
        return f"{_rate(found)} ({p99}; at {missed.rate:,} {_said_of(missed)})"
    return f"{_rate(found)} ({p99}), the highest rate that was asked: raise --to"


def _said_of(trial: Trial) -> str:
    return _said(trial.missed) if trial.missed else ""


def _rate(found: Capacity) -> str:
    """The rate that was met; `>=` where it may carry more."""
    bound = "" if found.missed and found.ruling is Ruling.PASS else ">= "
    return f"{bound}{found.met.rate:,} q/s" if found.met else "unknown"


def _remedy(missed: Trial, workers: int) -> str:
    if missed.throttled:
        return "give it a higher CPU limit, or none"
    more = f"-T {workers + 1} or " if workers < (os.cpu_count() or 1) else ""
    return f"use {more}more machines (`dnsprobe run --shard`)"


def compared(all_found: Sequence[Capacity]) -> str:
    """How far the slowest server is below the fastest; '' if there are not two to compare."""
    rated = sorted((found.met.rate, _rate(found), found.target.name) for found in all_found if found.met)
    if len(rated) < 2:
        return ""
    (least, slow, slowest), (most, fast, fastest) = rated[0], rated[-1]
    if least == most:
        return plain(f"all alike: {slow}")
    return plain(f"slowest: {slowest}, {slow}, {100 * (1 - least / most):.0f} % below the fastest, {fastest}, {fast}")


def as_json(search: Search, all_found: Sequence[Capacity]) -> str:
    """What was found, as JSON; rates in q/s, times in seconds, null for never and for what is not known.

    verdict, objectives[], step_seconds, precision;
    targets[]: target, address, port, verdict, capacity (the highest rate that was met), is_lower_bound,
               missed (the lowest rate that was not), limit (why this prober could not find more), complete;
    targets[].trials[]: asked, sent, answered, lost (a fraction), latency_p50, latency_p99, cpu (of a core), met,
               missed (the measure), limit, run_file.
    """
    told = {
        "schema_version": 1,
        "verdict": Ruling.worst([found.ruling for found in all_found]),
        "objectives": list(search.plan.objectives),
        "step_seconds": search.plan.duration_ns / NS,
        "precision": search.precision,
        "targets": [
            {
                "target": found.target.name,
                "address": found.target.address,
                "port": found.target.port,
                "verdict": found.ruling,
                "capacity": found.met.rate if found.met else None,
                "is_lower_bound": found.met is not None and (found.missed is None or found.ruling is not Ruling.PASS),
                "missed": found.missed.rate if found.missed else None,
                "limit": found.limit,
                "complete": found.complete,
                "trials": [_trial(trial) for trial in found.trials],
            }
            for found in all_found
        ],
    }
    return json.dumps(told, indent=2, allow_nan=False) + "\n"


def _trial(trial: Trial) -> dict[str, float | str | bool | None]:
    return {
        "asked": trial.rate,
        "sent": trial.sent,
        "answered": trial.answered,
        "lost": _finite(trial.loss.share),
        "latency_p50": _finite(trial.p50_ns / NS),
        "latency_p99": _finite(trial.p99_ns / NS),
        "cpu": trial.cpu,
        "met": trial.met,
        "missed": trial.missed.objective.measure if trial.missed else "",
        "limit": trial.limit,
        "run_file": str(trial.path),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
