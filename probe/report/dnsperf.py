"""A Run -> what dnsperf would have printed of it, label by label, for the parsers that people have.

The layout is that of dnsperf 2.14 with `-O latency-histogram` (src/dnsperf.c: print_statistics), and for kubernetes/
perf-tests (dns/py/data.py) the `#histogram MS COUNT` lines of the dnsperf that it builds (dns/image/histogram.patch):
its parser fails without them. What dnsprobe counts otherwise is told in dnsperf's words:

    sent           rows that left; what was due and never sent is in a Warning line, as all that is to be doubted
    completed      rows that were replied to, expected or not
    lost           timeouts, refused connections, network errors, lost connections; 4,999 ms in the #histogram
    interrupted    rows that a run which was cut left undecided
    codes          NOERROR is answer, nodata and wrong_answer; a code that was not kept goes by its outcome:
                   OTHER_RCODE, TRUNCATED, MALFORMED
    packet size    octets of DNS messages
    latency        from send to reply (rtt): max is exact, min, mean and deviation come from the middles of the
                   histogram's bins (a bin is 3.2 % wide), each in the bucket that dnsperf would have put it in
    connections    attempts: those that opened, and one for each row whose connection did not (of a reused connection
                   that may be several rows)

Times of day are UTC. As with dnsperf, a parser that takes the last `Average Latency` takes that of connections.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import numpy as np

from probe.histogram import BINS, lower_edge_ns
from probe.model import NS
from probe.outcome import REPLIED, Counter, Outcome
from probe.recorder import Duration
from probe.report.text import headline
from probe.report.units import plain
from probe.runfile import Run
from probe.timeline.spans import Ints
from probe.verdict import verdict_of

CODES = {
    "NOERROR": (Outcome.ANSWER, Outcome.NODATA, Outcome.WRONG_ANSWER),
    "SERVFAIL": (Outcome.SERVFAIL,),
    "NXDOMAIN": (Outcome.NXDOMAIN,),
    "REFUSED": (Outcome.REFUSED,),
    "OTHER_RCODE": (Outcome.OTHER_RCODE,),
    "TRUNCATED": (Outcome.TRUNCATED,),
    "MALFORMED": (Outcome.MALFORMED,),
}
SLOWEST_MS = 4999
"""The last bucket of perf-tests' histogram: all that took longer, and all that was lost."""
SIGNIFICANT_BITS = 6
"""dnsperf's buckets keep so many leading bits of a latency in microseconds."""

_MIDDLES_NS = np.array([(lower_edge_ns(i) + lower_edge_ns(i + 1)) / 2 for i in range(BINS)])


def dnsperf_report(run: Run) -> str:
    """Ends with a newline, to which printing adds the empty line that dnsperf ends with."""
    rows = run.counts
    outcomes = {o: int(rows.n[rows.outcome == o].sum()) for o in Outcome}
    completed = sum(outcomes[o] for o in REPLIED)
    interrupted = int(run.in_flight.n.sum())
    sent = sum(outcomes.values()) - outcomes[Outcome.UNSENT] + interrupted
    lost = sent - completed - interrupted
    codes = {code: sum(outcomes[o] for o in members) for code, members in CODES.items()}
    said = [f"{code} {_with_share(n, completed)}" for code, n in codes.items() if n]
    counters = run.counters.sum(axis=0)
    request, response = counters[Counter.SENT_OCTETS], counters[Counter.RECEIVED_OCTETS]
    every = [s.index for s in run.series]
    rtt, slowest = run.histograms.total(every, Duration.RTT)
    lines = [
        *_opening(run),
        "Statistics:",
        "",
        f"  Queries sent:         {sent}",
        f"  Queries completed:    {_with_share(completed, sent)}",
        f"  Queries lost:         {_with_share(lost, sent)}",
        *([f"  Queries interrupted:  {_with_share(interrupted, sent)}"] if interrupted else []),
        "",
        f"  Response codes:       {', '.join(said)}",
        f"  Average packet size:  request {request // max(1, sent)}, response {response // max(1, completed)}",
        f"  Run time (s):         {_seconds(run.end_ns)}",
        f"  Queries per second:   {completed / max(1, run.end_ns) * NS:.6f}",
        "",
        *_latency(rtt, slowest, "answer count"),
        "",
        *_milliseconds(rtt, lost),
        *_connections(run),
    ]
    return "\n".join(lines) + "\n"


def _opening(run: Run) -> Iterable[str]:
    head, verdict = run.head, verdict_of(run)
    yield "DNS Performance Testing Tool"
    yield f"dnsprobe Version {plain(run.version)}"
    yield ""
    yield f"[Status] Command line: {plain(head.command) or 'dnsprobe'}"
    yield f"[Status] Sending queries (to {_asked(run)})"
    yield f"[Status] Started at: {time.asctime(time.gmtime(head.started_unix_ns // NS))}"
    yield f"[Status] Stopping after {_seconds(head.planned_ns)} seconds"
    for doubt in verdict.doubts:
        yield f"Warning: {plain(doubt.text)}"
    yield f"[Status] {headline(verdict)}"
    yield f"[Status] Testing complete ({'interruption' if run.cut else 'time limit'})"
    yield ""


def _asked(run: Run) -> str:
    """The one address, or the first of several."""
    targets = dict.fromkeys((s.target.address, s.target.port) for s in run.series)
    if not targets:
        return "nobody"
    address, port = next(iter(targets))
    text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return plain(text if len(targets) == 1 else f"{text} and {len(targets) - 1} more")


def _latency(counts: Ints, longest: int, what: str) -> Iterable[str]:
    n = int(counts.sum())
    middles = np.minimum(_MIDDLES_NS, longest)
    mean = counts @ middles / max(1, n)
    shortest = middles[np.flatnonzero(counts)[0]] if n else 0
    yield f"  Average Latency (s):  {_seconds(mean)} (min {_seconds(shortest)}, max {_seconds(longest)})"
    if n > 1:
        yield f"  Latency StdDev (s):   {math.sqrt(counts @ (middles - mean) ** 2 / (n - 1)) / NS:.6f}"
        yield f"  Latency bucket (s):   {what}"
        yield from _buckets(counts, middles)


def _buckets(counts: Ints, middles: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Iterable[str]:
    """dnsperf's, first and last microsecond (src/ext/hg64.c)."""
    us = (middles[counts > 0] // 1000).astype(np.int64)
    bits = np.maximum(0, np.frexp(us)[1] - SIGNIFICANT_BITS)
    firsts, place = np.unique(us >> bits << bits, return_inverse=True)
    width = np.zeros(len(firsts), np.int64)
    width[place] = 1 << bits
    for first, wide, n in zip(firsts, width, np.bincount(place, counts[counts > 0]), strict=True):
        yield f"  {_seconds(first * 1000)} - {_seconds((first + wide - 1) * 1000)}:  {n:.0f}"


def _milliseconds(counts: Ints, lost: int) -> Iterable[str]:
    ms = np.minimum(_MIDDLES_NS // 10**6, SLOWEST_MS).astype(np.int64)
    by_ms = np.bincount(ms, counts, minlength=SLOWEST_MS + 1)
    by_ms[SLOWEST_MS] += lost
    yield "  Latency histogram"
    for n in [0, *(np.flatnonzero(by_ms[1:]) + 1)]:
        yield f"#histogram {n} {by_ms[n]:.0f}"


def _connections(run: Run) -> Iterable[str]:
    tcp = [s.index for s in run.series if s.transport == "tcp"]
    rows = run.counts
    failed = np.isin(rows.outcome, (Outcome.CONNECTION_REFUSED, Outcome.NETWORK_ERROR)) & np.isin(rows.series, tcp)
    opened = int(run.counters[tcp, Counter.CONNECTS].sum())
    attempts = opened + int(rows.n[failed].sum() + run.counters[tcp, Counter.TIMEOUT_CONNECT].sum())
    if attempts:
        yield ""
        yield "Connection Statistics:"
        yield ""
        yield f"  Connection attempts:  {attempts} ({opened} successful, {100 * opened / attempts:.2f}%)"
        yield ""
        yield from _latency(*run.histograms.total(tcp, Duration.CONNECT), "connection count")


def _with_share(n: int, whole: int) -> str:
    return f"{n} ({100 * n / max(1, whole):.2f}%)"


def _seconds(ns: float) -> str:
    """Whole microseconds, as dnsperf cuts them."""
    us = int(ns) // 1000
    return f"{us // 10**6}.{us % 10**6:06}"
