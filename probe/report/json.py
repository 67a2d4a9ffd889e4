"""A Run -> one JSON object, for programs: stable names and order, RFC 3339 in UTC, durations in seconds.

    schema_version  1; it changes when a name goes or changes its meaning, not when one is added
    verdict         PASS, FAIL or INCONCLUSIVE
    objectives[]    text; verdict; met: as counted, null without a sample; measure, operator; limit and actual: a
                    fraction of rows for loss, else seconds; actual_at_best: the same, had all that may be no fault of
                    DNS been good; lane, target: whose value `actual` is; why: reasons
    totals          every row of the run, also of pods that were told to go:
                    planned = sum of outcomes + in_flight; good; in_flight: undecided rows, 0 unless the run was cut;
                    lost: neither good nor unsent; lost_at_least: without those that may be no fault of DNS, for our
                    own receive buffer dropped as many, or the lab did; outcomes{}; unsent_by_cause{}; counters{}: what
                    was seen beside the outcomes
    series[]        what one lane asked one target for one type: lane, target, target_kind, transport, ports, qtype,
                    planned, good, in_flight, lost, lost_at_least, outcomes{}; load{}: qps, at its highest; arrivals:
                    even, poisson, or max, the closed loop: as fast as replies allow, with so many outstanding, or, if
                    pause_seconds is not null, each so long after the outcome of the one before it; legs[]:
                    seconds, from_qps, to_qps; pair; gso; latency_seconds{}: from due to a good reply, every other row
                    that was sent as infinite, however fast its reply; rtt_seconds{}: from send to reply, of all
                    replies; both p50, p90, p99, p999, max;
                    answered_by{}: rows by the NSID of the server that answered them, empty if it was not asked for;
                    first_answer_by{}, last_answer_by{}: when (seconds since the start) the first and the last of these
                    rows were due
    windows[]       disruptions of a lane and target: from, to, seconds, resolution_seconds (one query interval), lane,
                    target, class (an outcome); planned, lost, lost_at_least: rows due inside; inferred: a refusal that
                    only others heard; still_open: not yet good again at the end; others[]: lane, and how many other
                    targets of it were asked meanwhile, and how many of these lost nothing: targets, fine
    nodes[]         of a merged run alone, by where its probers were, rows that count: node, zone; probers[]: shard,
                    pod, source (run file, or log: no latencies), from, to; planned, good, lost, unsent, in_flight;
                    longest_seconds; seen[]: lane, target, planned, good, lost, unsent, in_flight, windows[]: from, to,
                    seconds, class, planned, lost; lags: why it is behind the median node, null if it is not
    lagging_zones[] zones all of whose nodes lag, where others' do not
    metrics[]       what others counted: source, subject, name, samples (how many readings), grown: from first to last
    lookups[]       of a run with clients alone, by client: found, not_found, failed, unfinished; slowed: found after
                    more than 1 s; longest_seconds; errors{}: the commonest words that an application would print
    felt[]          of these runs, in each window of a lane with fresh ports: lane, target, from_seconds; predicted[],
                    from the lane's counts, and observed[], by the run's lookups: client, lookups (drawn, or made),
                    failed and slowed (shares of them), mean_slowed_seconds, longest_seconds
    marks[]         what happened: at, seconds (since the start), kind, text, source, subject
    findings[]      causes of windows: id, severity; sure: certain, likely, possible or undetermined; text, evidence;
                    apart: what would tell it from its neighbours; remedy, source; windows[] that it is about (lane,
                    target, from_seconds); first: the cause of these windows, else one that fits as well, but less
    doubts[]        what the prober did wrong itself: id, text, lanes[] (empty: all), hides_loss
    cut             why the run ended early, null if it did not
    environment{}   run (its name), command, file, started, ended, planned_seconds, schedule_lag_p99_seconds,
                    schedule_lag_max_seconds (from due to sent), dnsprobe (its version); and as strings what the run
                    was made with and against: tick, receive_buffer, gso, versions, the cluster's own description

A number that is infinite (the quantile is a lost row) or has no sample is null: planned and outcomes tell them apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from probe.model import NS, Mark, Series
from probe.outcome import Counter, Outcome, UnsentCause
from probe.recorder import Duration
from probe.report.clients import clients_json
from probe.report.findings import Json, diagnoses_of, findings_json
from probe.report.nodes import Node, lagging_zones, nodes_of
from probe.report.units import rfc3339
from probe.runfile import Run
from probe.timeline import Channel, Window, common, ranked_ns
from probe.verdict import QUANTILES, Judged, spared, verdict_of

SCHEMA_VERSION = 1
SEEN_COUNTS = ("planned", "good", "lost", "unsent", "in_flight")

_EVER = ((0, 1 << 62),)

Ints = NDArray[np.int64]


def json_report(run: Run) -> str:
    """One object, two spaces of indentation, ASCII, ends with a newline."""
    verdict = verdict_of(run)
    channels = {channel.name: channel for channel in verdict.timeline.channels}
    outcomes, in_flight = outcome_counts(run)
    nodes = nodes_of(run)
    report: dict[str, Json] = {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict.ruling.value,
        "objectives": [objective_json(judged) for judged in verdict.objectives],
        "totals": {
            **_rows(outcomes.sum(axis=0), int(in_flight.sum()), sum(spared(c, _EVER) for c in channels.values())),
            "unsent_by_cause": _named((x.label for x in UnsentCause), run.unsent.sum(axis=0).tolist()),
            "counters": _named((x.label for x in Counter), run.counters.sum(axis=0).tolist()),
        },
        "series": [
            _series(run, s, outcomes[s.index], int(in_flight[s.index]), channels[s.channel]) for s in run.series
        ],
        "windows": [_window(run, w, channels[w.lane, w.target]) for w in verdict.timeline.windows],
        "metrics": [
            {"source": m.source, "subject": m.subject, "name": m.name, "samples": len(m.at_ns), "grown": m.grown}
            for m in run.metrics
        ],
        **({"nodes": [_node(run, n) for n in nodes], "lagging_zones": lagging_zones(nodes)} if nodes else {}),
        **clients_json(verdict.timeline),
        "marks": [_mark(run, mark) for mark in run.marks],
        "findings": findings_json(diagnoses_of(run)),
        "doubts": [
            {"id": d.id, "text": d.text, "lanes": list(d.lanes), "hides_loss": d.hides_loss} for d in verdict.doubts
        ],
        "cut": run.cut or None,
        "environment": _environment(run),
    }
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def outcome_counts(run: Run) -> tuple[Ints, Ints]:
    """Rows by series, outcome and good, int64[S, outcomes, 2]; and undecided ones, int64[S]."""
    table = np.zeros((len(run.series), len(Outcome), 2), np.int64)
    np.add.at(table, (run.counts.series, run.counts.outcome, run.counts.good), run.counts.n)
    waiting = np.zeros(len(run.series), np.int64)
    np.add.at(waiting, run.in_flight.series, run.in_flight.n)
    return table, waiting


def _rows(table: Ints, in_flight: int, may_be: int) -> dict[str, Json]:
    """may_be: how many of the lost rows may be no fault of DNS."""
    lost = int(table[:, 0].sum() - table[Outcome.UNSENT, 0])
    return {
        "planned": int(table.sum()) + in_flight,
        "good": int(table[:, 1].sum()),
        "in_flight": in_flight,
        "lost": lost,
        "lost_at_least": max(0, lost - may_be),
        "outcomes": _named((x.label for x in Outcome), table.sum(axis=1).tolist()),
    }


def _series(run: Run, s: Series, table: Ints, in_flight: int, channel: Channel) -> dict[str, Json]:
    may_be = spared(channel, _EVER)
    if not channel.lab_at_fault:
        may_be = min(may_be, int(table[Outcome.TIMEOUT, 0]))
    latency = run.histograms.total([s.index], Duration.LATENCY)
    rtt = run.histograms.total([s.index], Duration.RTT)
    fate = (int(table[:, 1].sum()), int(table[:, 0].sum() - table[Outcome.UNSENT, 0]))
    answered = {nsid: by for nsid, by in run.servers.items() if by.n[s.index]}
    return {
        "lane": s.lane,
        "target": s.target.name,
        "target_kind": s.target.kind.value,
        "transport": s.transport,
        "ports": str(s.ports),
        "qtype": s.qtype,
        **_rows(table, in_flight, may_be),
        "load": _load(s),
        "latency_seconds": {name: _seconds(ranked_ns(*latency, q, *fate)) for name, q in QUANTILES.items()},
        "rtt_seconds": {name: _seconds(ranked_ns(*rtt, q)) for name, q in QUANTILES.items()},
        "answered_by": {nsid: int(by.n[s.index]) for nsid, by in answered.items()},
        "first_answer_by": {nsid: int(by.first_ns[s.index]) / NS for nsid, by in answered.items()},
        "last_answer_by": {nsid: int(by.last_ns[s.index]) / NS for nsid, by in answered.items()},
    }


def _load(s: Series) -> dict[str, Json]:
    rate, shape = s.own_rate, s.shape
    legs = [(leg.duration_ns / NS, float(rate * leg.from_share), float(rate * leg.to_share)) for leg in shape.legs]
    return {
        "qps": None if shape.unbounded else float(rate),
        "arrivals": shape.arrivals,
        "legs": [{"seconds": lasts, "from_qps": first, "to_qps": last} for lasts, first, last in legs],
        "outstanding": shape.window or None,
        "pause_seconds": shape.pause_ns / NS if shape.pause_ns else None,
        "pair": s.pair,
        "gso": s.gso,
    }


def objective_json(judged: Judged) -> dict[str, Json]:
    """One of `objectives`."""
    o = judged.objective
    return {
        "text": o.text,
        "verdict": judged.ruling.value,
        "met": judged.met,
        "measure": o.measure,
        "operator": o.operator,
        "limit": o.limit,
        "actual": judged.actual if math.isfinite(judged.actual) else None,
        "actual_at_best": judged.at_best if math.isfinite(judged.at_best) else None,
        "lane": judged.lane,
        "target": judged.target,
        "why": judged.why,
    }


def _window(run: Run, w: Window, channel: Channel) -> dict[str, Json]:
    may_be = spared(channel, common(channel.counted, ((w.from_ns, w.to_ns),)))
    return {
        "from": rfc3339(run.head.started_unix_ns + w.from_ns),
        "to": rfc3339(run.head.started_unix_ns + w.to_ns),
        "seconds": (w.to_ns - w.from_ns) / NS,
        "resolution_seconds": w.resolution_ns / NS,
        "lane": w.lane,
        "target": w.target,
        "class": w.outcome.label,
        "planned": w.planned,
        "lost": w.lost,
        "lost_at_least": w.lost - may_be,
        "inferred": w.inferred,
        "still_open": w.still_open,
        "others": [{"lane": o.lane, "targets": o.asked, "fine": o.fine} for o in w.others],
    }


def _node(run: Run, node: Node) -> dict[str, Json]:
    started, seen = run.head.started_unix_ns, list(node.seen.values())
    return {
        "node": node.name,
        "zone": node.zone,
        "probers": [
            {
                "shard": v.shard,
                "pod": v.pod,
                "source": v.source,
                "from": rfc3339(started + v.from_ns),
                "to": rfc3339(started + v.to_ns),
            }
            for v in node.vantages
        ],
        **{name: sum(getattr(s, name) for s in seen) for name in SEEN_COUNTS},
        "longest_seconds": node.longest_ns / NS,
        "seen": [
            {
                "lane": s.lane,
                "target": s.target,
                **{name: getattr(s, name) for name in SEEN_COUNTS},
                "windows": [
                    {
                        "from": rfc3339(started + w.from_ns),
                        "to": rfc3339(started + w.to_ns),
                        "seconds": (w.to_ns - w.from_ns) / NS,
                        "class": w.outcome.label,
                        "planned": w.planned,
                        "lost": w.lost,
                    }
                    for w in s.windows
                ],
                "lags": node.lags.get((s.lane, s.target)),
            }
            for s in seen
        ],
    }


def _mark(run: Run, mark: Mark) -> dict[str, Json]:
    return {
        "at": rfc3339(run.head.started_unix_ns + mark.at_ns),
        "seconds": mark.at_ns / NS,
        "kind": mark.kind,
        "text": mark.text,
        "source": mark.source,
        "subject": mark.subject,
    }


def _environment(run: Run) -> dict[str, Json]:
    own: dict[str, Json] = {
        "run": run.head.name,
        "command": run.head.command,
        "file": str(run.path),
        "started": rfc3339(run.head.started_unix_ns),
        "ended": rfc3339(run.head.started_unix_ns + run.end_ns),
        "planned_seconds": run.head.planned_ns / NS,
        "schedule_lag_p99_seconds": _seconds(ranked_ns(run.lag, run.lag_max_ns, 0.99)),
        "schedule_lag_max_seconds": run.lag_max_ns / NS,
        "dnsprobe": run.version,
    }
    return own | {name: value for name, value in run.head.facts.items() if name not in own}


def _named(labels: Iterable[str], values: Iterable[int]) -> dict[str, Json]:
    return dict(zip(labels, values, strict=True))


def _seconds(ns: float) -> float | None:
    return ns / NS if math.isfinite(ns) else None
