"""What was measured and recommended -> a screen for people, JSON for programs."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from probe.advice import Clients, Departure, Need, Platform, Recommendation, keeps_flows
from probe.advice.propagation import COUNTER
from probe.advice.recommendation import QUICK
from probe.advice.rule import DNS_STOP, GRACE_MARGIN
from probe.report.units import plain

WIDTH = 110
WHO = {
    Clients.FRESH: "fresh ports (Go, glibc, dig)",
    Clients.FIXED: "fixed ports (Envoy, c-ares, nginx)",
}


READINESS = {
    "health": "never while it serves: the readiness probe asks /health, which answers until lameduck is over",
    "none": "never while it serves: there is no readiness probe",
}
READINESS_UNKNOWN = "not known: the readiness probe is not CoreDNS's"


def advice_text(advice: Recommendation, found: Sequence[Departure], name: str, platform: Platform) -> str:
    """About 110 columns of printable characters, ends with a newline. `found` is empty if nothing was measured."""
    parts = [
        [headline(advice)],
        ["HOW LATE NODES LEARN THAT A POD GOES", *_propagation(advice, found)],
        ["LAMEDUCK THAT IS SAFE", *_needs(advice)],
        ["WHAT TO SET", *_setting(advice)],
    ]
    if patch := _patch(advice, platform):
        parts.append([f"HOW ({name})", *[f"  {line}".rstrip() for line in patch.splitlines()]])
    parts[-1] += _wrapped(f"{name}: {platform.keeps}")
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def headline(advice: Recommendation) -> str:
    """One line: whether what is set is safe, or what is."""
    cut = f", of which SIGKILL leaves {_s(advice.lameduck_now)}"
    now = f"lameduck {_s(advice.shutdown.lameduck)}{cut * (advice.lameduck_now < advice.shutdown.lameduck)}"
    if advice.at_least:
        return f"NOT KNOWN YET: {now} ended before the last node had learnt of it: measure again with a longer one"
    short = [need for need in advice.needs if need.safe > advice.lameduck_now]
    if not short:
        return f"SAFE: {now} loses nothing when a pod goes"
    who = " and ".join(need.clients.value for need in short)
    still = [need for need in advice.needs if need.lost_then]
    if not still:
        return f"TOO SHORT for {who} ports: {now}; set {_s(advice.lameduck)}"
    unsafe = " and ".join(need.clients.value for need in still)
    return f"TOO SHORT for {who} ports: {now}; no lameduck that can be set here is safe for {unsafe} ports"


def _propagation(advice: Recommendation, found: Sequence[Departure]) -> list[str]:
    lines = []
    for one in found:
        value = f"{'>= ' if one.at_least else ''}{one.seconds:.2f} s"
        lines.append(f"  {value:>9} at {plain(one.node)}: {plain(one.pod)}, by {one.by}, seen every {_ms(one.every)}")
    if not found:
        lines.append(f"  D = {_s(advice.propagation)}, as given, from its deletion to the last query that it is sent")
        lines.append("  what is set now is what is usual there; yours: --set lab.lameduck=10s, lab.grace_period, ...")
    else:
        least, equal = min(one.seconds for one in found), ">=" if advice.at_least else "="
        spread = f", the longest of {len(found)} (from {_s(least)} on)" if len(found) > 1 else ""
        lines.append(
            f"  D {equal} {_s(advice.propagation)}{spread}, from its deletion to the last query that it was sent"
        )
    if any(one.by == COUNTER for one in found):
        lines += _wrapped(
            "The counter has the queries of all clients, and those from fixed ports may come for longer: D may be"
            " shorter. With `nsid` in the Corefile it is known exactly, and for each node."
        )
    shutdown = advice.shutdown
    if math.isinf(shutdown.unready_after):
        lines.append(f"  R: {READINESS.get(shutdown.readiness, READINESS_UNKNOWN)}")
    else:
        probe = f"/ready, {_s(shutdown.readiness_period)} x {shutdown.readiness_failures}"
        lines.append(f"  R = {_s(shutdown.unready_after)} at most, from SIGTERM until readiness fails ({probe})")
    if advice.at_least:
        lines += _wrapped(
            "The pod stopped answering while it was still asked, so D is longer than this. Set the lameduck below and"
            " measure again; or give --propagation what kube-proxy's own metric says, the 99th percentile of"
            " kubeproxy_network_programming_duration_seconds."
        )
    return lines


def _needs(advice: Recommendation) -> list[str]:
    rows = [("", "needed", "now", "")]
    for need in advice.needs:
        needed = f"> {_s(need.least)}" if advice.at_least else _s(need.safe)
        needed = "no lameduck is" if math.isinf(need.safe) else needed
        rows.append((WHO[need.clients], needed, _s(advice.lameduck_now), _verdict(need, advice)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"  {a:{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
    shutdown = advice.shutdown
    if advice.lameduck_now < shutdown.lameduck:
        lines += _wrapped(
            f"now: of lameduck {_s(shutdown.lameduck)} SIGKILL leaves {_s(advice.lameduck_now)}: the grace period is"
            f" {_s(shutdown.grace_period)}"
        )
    margin = f"a margin of {_s(advice.margin)}"
    before = f" - preStop {_s(shutdown.pre_stop)}" if shutdown.pre_stop else ""
    if keeps_flows(shutdown):
        lines += _wrapped(
            f"fresh: D + {margin}{before}; fixed: R + D + {margin}, for kube-proxy {plain(shutdown.kubernetes)} deletes"
            " the flows of a pod once it does not serve any more"
        )
    else:
        lines += _wrapped(f"both: D + {margin}{before}, for {_why_both(advice)}")
    return lines


def _why_both(advice: Recommendation) -> str:
    shutdown = advice.shutdown
    if shutdown.proxy_mode == "ipvs":
        return (
            "IPVS gives a flow another pod once its own is removed, if net.ipv4.vs.expire_nodest_conn is 1 (look); if"
            " it is 0 a port is dead for the UDP timeout (300 s) whatever the lameduck; a kernel before 5.9 loses one"
            " query of each port"
        )
    return f"kube-proxy {plain(shutdown.kubernetes)} deletes the flows of a pod as soon as it terminates"


def _verdict(need: Need, advice: Recommendation) -> str:
    if advice.at_least:
        return "not known"
    now = advice.lameduck_now
    if need.safe <= now:
        return "safe"
    if not need.lost_now:
        return f"enough by {now - need.least:.2f} s, which is less than the margin"
    lost = f"{_share(need, advice)} for up to {_s(need.lost_now)} when a pod goes"
    return lost if math.isinf(need.safe) else f"SHORT by {_s(need.safe - now)}: {lost}"


def _share(need: Need, advice: Recommendation) -> str:
    n = advice.shutdown.replicas
    return f"1 query in {n} lost" if need.clients is Clients.FRESH else f"1 port in {n} dead"


def _setting(advice: Recommendation) -> list[str]:
    shutdown = advice.shutdown
    sums = f"preStop {_s(shutdown.pre_stop)} + lameduck {_s(advice.lameduck)} + {_s(DNS_STOP)} in which CoreDNS stops"
    grace = f"at least {advice.grace} s = {sums} + {_s(GRACE_MARGIN)}; it is {_s(shutdown.grace_period)}"
    lines = [
        f"  lameduck      {_s(advice.lameduck)}{_as_what(advice)}",
        f"  grace period  {grace}",
    ]
    if not advice.settable:
        lines = [f"  nothing can be set: lameduck is {_s(advice.lameduck)} here"]
    elif shutdown.grace_fixed:
        room = f"there is room for a lameduck of {_s(advice.most)}"
        lines += _wrapped(f"The grace period cannot be changed ({plain(shutdown.grace_fixed)}): {room}.")
    for need in advice.needs:
        if need.lost_then and not advice.at_least:
            lines += _wrapped(
                f"Still lost with it, {need.clients.value} ports: {_share(need, advice)} for up to {_s(need.lost_then)}"
                " when a pod goes."
            )
    return lines + _remedy(advice)


def _as_what(advice: Recommendation) -> str:
    if not advice.changes_lameduck:
        return ", as it is"
    return ", to measure again" if advice.at_least else ""


def _remedy(advice: Recommendation) -> list[str]:
    """What else helps fixed ports: to be seen sooner as not serving; or what clients can do."""
    fixed = next(need for need in advice.needs if need.clients is Clients.FIXED)
    if advice.at_least or fixed.safe <= advice.lameduck_now:
        return []
    if advice.shutdown.grace_fixed or not advice.settable:
        return _wrapped(
            "What helps fixed ports here is on the clients' side: fewer queries to a port (c-ares: udp_max_queries), or"
            " NodeLocal DNSCache, which asks by TCP."
        )
    if not advice.quicker < fixed.safe - QUICK[0]:
        return []
    period, failures = QUICK
    return _wrapped(
        f"Better: a readiness probe on /ready (port 8181), periodSeconds {period:g}, failureThreshold {failures}; then"
        f" lameduck {_s(advice.quicker)} is safe for all. A pod in lameduck answers from the records it had at SIGTERM:"
        " the shorter, the fresher."
    )


def _patch(advice: Recommendation, platform: Platform) -> str:
    return platform.patch(advice) if advice.changes_lameduck or advice.raises_grace else ""


def advice_json(advice: Recommendation, found: Sequence[Departure], name: str, platform: Platform) -> str:
    """The same for programs: seconds, or null where no lameduck is enough or there is no bound; ends with a newline."""
    told = {
        "propagation_seconds": advice.propagation,
        "margin_seconds": advice.margin,
        "at_least": advice.at_least,
        "measured": [asdict(one) for one in found],
        "unready_after_seconds": _finite(advice.shutdown.unready_after),
        "shutdown": asdict(advice.shutdown),
        "needs": [{k: _finite(v) for k, v in asdict(need).items()} for need in advice.needs],
        "lameduck_seconds": advice.lameduck,
        "lameduck_now_seconds": advice.lameduck_now,
        "grace_seconds": advice.grace,
        "most_lameduck_seconds": _finite(advice.most),
        "platform": name,
        "patch": _patch(advice, platform),
    }
    return json.dumps(told, indent=2) + "\n"


def _finite(value: float | str) -> float | str | None:
    return None if isinstance(value, float) and math.isinf(value) else value


def _s(seconds: float) -> str:
    """5 s, 4.6 s, 2.01 s."""
    return f"{round(seconds, 2):g} s"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
