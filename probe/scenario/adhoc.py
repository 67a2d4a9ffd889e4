"""Options in dnsperf's letters -> a plan of one lane towards the servers named, or a UsageError."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from probe.errors import UsageError
from probe.model import NS, Lane, Ports, Question, Target, TargetKind
from probe.scenario.datafile import read_questions
from probe.scenario.load import (
    Load,
    arriving,
    burst_of,
    check_burst,
    check_length,
    check_pair,
    check_ports,
    load_of,
    ramp_of,
    window_of,
    within,
)
from probe.scenario.names import NDOTS, Asking, edns_of, edns_size_of, ndots_of, suffixes_of
from probe.scenario.plan import ALL_SERVERS, Plan
from probe.scenario.quantity import DAY_NS, address_of, duration_ns, port_of, seconds_text, timeout_of

Typed = TypeVar("Typed", str, Sequence[str])
T = TypeVar("T")

DEFAULT_NAME = "kubernetes.default.svc.cluster.local"
RATE, LENGTH = "100", "10"
FRESH_UP_TO = 5_000
"""Queries a second up to which every query gets a new source port, unless --ports says otherwise."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was typed, as text; '' or nothing where it was left out."""

    servers: Sequence[str]
    port: str = "53"
    datafile: str = ""
    names: Sequence[str] = ()
    types: Sequence[str] = ()
    expect: str = ""
    rate: str = ""
    length: str = ""
    timeout: str = "2"
    transport: str = "udp"
    ports: str = ""
    ramp: str = ""
    arrivals: str = "even"
    max_inflight: str = ""
    pair: bool = False
    gso: str = ""
    search: Sequence[str] = ()
    ndots: str = ""
    edns: str = ""
    dnssec: bool = False
    nsid: bool = False
    external: bool = False


def plan_of(options: Options) -> Plan:
    """The plan; every UsageError names the option and the value."""
    transport = options.transport.strip().lower()
    if transport not in ("udp", "tcp"):
        raise UsageError(f"-m {options.transport!r}: say udp or tcp")
    load = _load(options)
    length = options.length or (seconds_text(load.lasts_ns).removesuffix(" s") if load.lasts_ns else LENGTH)
    duration = _read("-l", length, lambda text: duration_ns(text, NS // 10, DAY_NS))
    _told("--ramp", lambda: check_length(load, duration))
    ports, why = _ports(options.ports, transport, load)
    lane = Lane(
        name=f"{transport}-{ports.policy}",
        target=ALL_SERVERS,
        transport=transport,
        ports=ports,
        rate=load.rate,
        timeout_ns=_read("-t", options.timeout, timeout_of),
        questions=_questions(options),
        shape=load.shape,
        pair=options.pair,
        gso=_read("--gso", options.gso, burst_of) if options.gso else 1,
    )
    if lane.gso > 1:
        _told(f"--gso {lane.gso}:", lambda: check_burst(transport, ports, load.shape, changes=False))
    if lane.pair:
        _told("--pair:", lambda: check_pair(transport, load.shape, lane.questions, lane.weights))
    return Plan(
        name="adhoc",
        duration_ns=duration,
        lanes=(lane,),
        servers=_servers(options.servers, _read("-p", options.port, port_of)),
        facts={"ports": f"{ports} ({why})"},
    )


def _read(option: str, typed: Typed, read: Callable[[Typed], T]) -> T:
    try:
        return read(typed)
    except UsageError as problem:
        raise UsageError(f"{option} {problem}") from None


def _told(option: str, check: Callable[[], None]) -> None:
    """A check whose UsageError begins with the option it is about."""
    try:
        check()
    except UsageError as problem:
        raise UsageError(f"{option} {problem}") from None


def _load(options: Options) -> Load:
    if options.ramp and options.rate:
        raise UsageError(f"--ramp gives the rate itself: leave out -Q {options.rate}")
    load = _read("--ramp", options.ramp, ramp_of) if options.ramp else _read("-Q", options.rate or RATE, load_of)
    load = _read("--arrivals", options.arrivals, lambda text: arriving(load, text))
    if options.max_inflight:
        return _read("-q", options.max_inflight, lambda text: within(load, window_of(text)))
    return load


def _ports(text: str, transport: str, load: Load) -> tuple[Ports, str]:
    """The source ports and why these."""
    if text:
        ports = Ports.parse(text, transport)
        check_ports(transport, ports, load.shape)
        return ports, "as asked"
    if load.rate <= FRESH_UP_TO:
        return Ports("fresh"), f"the default up to {FRESH_UP_TO:,} q/s"
    reused = "pool:64" if transport == "udp" else "reused"
    return Ports.parse(reused, transport), f"the default above {FRESH_UP_TO:,} q/s"


def _servers(given: Sequence[str], port: int) -> tuple[Target, ...]:
    addresses = [_read("-s", text, address_of) for text in given]
    return tuple(Target(a, TargetKind.SERVER, a, port) for a in dict.fromkeys(addresses))


def _questions(options: Options) -> Sequence[Question]:
    asking = _asking(options)
    if options.datafile:
        if options.names or options.types:
            raise UsageError("-d gives names and types itself: leave out -n and --type, or leave out -d")
        return read_questions(options.datafile, options.expect, asking)
    return tuple(
        question
        for name in options.names or (DEFAULT_NAME,)
        for qtype in options.types or (("A", "AAAA") if options.pair else ("A",))
        for question in asking.questions(name, qtype, options.expect)
    )


def _asking(options: Options) -> Asking:
    if options.ndots and not options.search:
        raise UsageError(f"--ndots {options.ndots!r}: goes with --search: without one a name is asked as it stands")
    size = _read("--edns", options.edns, edns_size_of) if options.edns else None
    return Asking(
        edns=edns_of(size, options.dnssec, options.nsid),
        search=_read("--search", options.search, suffixes_of),
        ndots=_read("--ndots", options.ndots, ndots_of) if options.ndots else NDOTS,
        external=options.external,
    )
