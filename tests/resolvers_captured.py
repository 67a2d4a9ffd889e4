"""Client profiles beside the resolvers that they stand for: the same faults, the same packets, results and durations.

glibc, musl, Go, c-ares, Java and Node.js look names up in a namespace without uplink; so does each profile. All are
captured. Some resolvers do not do the same each time: of two threads one comes first. So each runs several times, and a
profile has to do what it was seen to do at least once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.resolvers import Order, Packet, Seen
from tests.servers import ROOT, need
from tests.test_netns import needs_namespaces

SOURCES = ROOT / "tests" / "data" / "resolvers"
TIMES, ROUNDS = 3, 5
"""How often each resolver runs at first, and so often again until it has done what its profile did."""
TOLERANCE = 0.45
"""Seconds: less than any resolver waits here, more than a busy machine makes it wait."""
FAULTS = (
    *("answer", "silent", "servfail", "refused", "nxdomain", "nodata", "truncated", "reset", "hang-up"),
    *("a-lost", "aaaa-lost", "a-servfail", "aaaa-servfail", "ipv4-only"),
)
SEARCHES = ("searched", "stopped", "failing", "refusing", "empty", "nowhere")
NAMES = {**{fault: f"{fault}-*.test." for fault in FAULTS}, **{kind: f"*-{kind}" for kind in SEARCHES}}
"""What becomes of each name is in tests.resolvers.RULES; those without a dot go through a search list of two."""
ONE = ("127.0.0.1",)


@dataclass(frozen=True)
class Case:
    """A profile under a resolv.conf, and the resolver that it stands for. at, patience: as in an Order."""

    profile: str
    resolver: str
    options: str = "timeout:1"
    nameservers: tuple[str, ...] = ONE
    names: tuple[str, ...] = tuple(NAMES)
    at: tuple[float, ...] = (0.0,)
    patience: float = 7.0

    @property
    def conf(self) -> str:
        lines = [*(f"nameserver {ip}" for ip in self.nameservers), "search one.test two.test"]
        return "\n".join([*lines, f"options {self.options}", ""])


ACK = "timeout:2 attempts:3 rotate single-request-reopen"
SOME = ("answer", "silent", "servfail", "refused", "truncated", "a-lost", "searched")
AGAIN = (0.0, 3.0, 9.5, 10.6, 29.0, 31.5)
CASES = {
    "glibc": Case("glibc", "glibc"),
    "glibc-ndots": Case("glibc", "glibc", "timeout:1 ndots:5", names=("answer", "silent", "searched", "stopped")),
    "glibc-single-request": Case("glibc-single-request", "glibc", "timeout:1 single-request"),
    "glibc-single-request-reopen": Case("glibc-single-request-reopen", "glibc", "timeout:1 single-request-reopen"),
    "glibc-use-vc": Case("glibc-use-vc", "glibc", "use-vc"),
    "glibc-ack": Case("glibc-ack", "glibc", ACK),
    "glibc-rotate": Case("glibc-rotate", "glibc", "timeout:1 rotate", ("127.0.0.1", "127.0.0.2"), SOME),
    "musl": Case("musl", "musl", "timeout:2"),
    "go": Case("go", "go"),
    "go-rotate": Case("go", "go", "timeout:1 rotate", ("127.0.0.1", "127.0.0.2"), SOME),
    "go-single-request": Case("go", "go", "timeout:1 single-request", names=SOME),
    "go-use-vc": Case("go", "go", "timeout:1 use-vc", names=("answer", "silent", "reset", "searched")),
    "c-ares": Case("c-ares", "c-ares"),
    "c-ares-rotate": Case("c-ares", "c-ares", "timeout:1 rotate", ("127.0.0.1", "127.0.0.2"), ("answer",)),
    "java": Case("java", "java", names=SOME),
    "java-again": Case("java", "java", names=("answer", "servfail", "nxdomain"), at=AGAIN, patience=60.0),
    "java-at-once": Case("java", "java", names=("silent", "a-lost"), at=(0.0, 0.5, 1.0), patience=20.0),
    "node": Case("node", "node", names=(*SOME, "nxdomain", "nodata", "nowhere")),
    **{
        f"{resolver}-{kind}": Case(resolver, resolver, "timeout:2", nameservers, SOME)
        for resolver in ("glibc", "musl", "go", "c-ares")
        for kind, nameservers in {"closed": ("127.0.0.3",), "first-closed": ("127.0.0.3", "127.0.0.1")}.items()
    },
}
BUILDS = {
    "glibc": ["gcc", "-o", "{program}", "resolve.c"],
    "musl": ["musl-gcc", "-o", "{program}", "resolve.c"],
    "go": ["go", "build", "-o", "{program}", "resolve.go"],
    "java": ["javac", "-d", "{program}", "Resolve.java"],
    "node": ["node", "--check", "resolve.js"],
    "c-ares": ["true"],
}
RUNS = {
    "java": ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "{program}", "Resolve"],
    "node": ["node", str(SOURCES / "resolve.js"), "lookup"],
    "c-ares": [],
}
"""Of those that are no programs by themselves."""
LIFT = {
    "glibc": "make servers",
    "musl": "make servers",
    "go": "get it from https://go.dev/dl",
    "java": "apt-get install default-jdk-headless",
    "node": "apt-get install nodejs",
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The commands of those resolvers that can be built here."""
    folder = tmp_path_factory.mktemp("resolvers")
    built = {}
    for resolver, command in BUILDS.items():
        program = str(folder / resolver)
        words = [word.format(program=program) for word in command]
        done = subprocess.run(["env", "CGO_ENABLED=0", *words], cwd=SOURCES, check=False, capture_output=True)
        if done.returncode == 0:
            built[resolver] = [word.format(program=program) for word in RUNS.get(resolver, ["{program}"])]
    return built


def has_tcp(program: str) -> bool:
    """Whether a program's musl is 1.2.4 or later: its loader says so."""
    loader = re.search(rb"/[\w/.-]+/ld-musl-[\w.-]+", Path(program).read_bytes())
    assert loader, "not linked with musl"
    said = subprocess.run([loader[0].decode()], capture_output=True, text=True, check=False).stderr
    version = re.search(r"Version (\d+)\.(\d+)\.(\d+)", said)
    assert version, said
    return tuple(map(int, version.groups())) >= (1, 2, 4)


def look(case: Case, program: list[str], names: Sequence[str]) -> dict[str, list[Seen]]:
    """By name of the fault: the profile's lookup, those of the resolver."""
    profile = case.profile if case.profile != "musl" or has_tcp(program[0]) else "musl-1.2.3"
    asked = [NAMES[name] for name in names]
    order = Order(profile, case.conf, program, asked, TIMES, list(case.at), case.patience)
    if case.resolver in RUNS:
        order = replace(order, at_once=10)
    command = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.resolvers", json.dumps(asdict(order))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return {name: [_seen(one) for one in said[NAMES[name]]] for name in names}


def _seen(said: dict[str, Any]) -> Seen:
    return Seen(**{**said, "packets": [Packet(**packet) for packet in said["packets"]]})


Looks = dict[str, Future[dict[str, list[Seen]]]]


Counted = dict[str, list[tuple[int, int, int]]]
"""By case, of each fault: how often the resolver ran, in how many ways, how often as the profile did."""


@pytest.fixture(scope="module")
def counted(request: pytest.FixtureRequest) -> Iterator[Counted]:
    """Told at the end."""
    found: Counted = defaultdict(list)
    yield found
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    terminal.write_line("\n\ncase: faults, runs of the original, faults in which it varied, runs like the profile's")
    for key, rows in found.items():
        runs, alike = (sum(row[k] for row in rows) for k in (0, 2))
        terminal.write_line(f"{key}: {len(rows)}, {runs}, {sum(row[1] > 1 for row in rows)}, {alike}")


@pytest.fixture(scope="module")
def looks(programs: dict[str, list[str]]) -> Iterator[Looks]:
    """All cases, some at a time."""
    with ThreadPoolExecutor(6) as pool:
        yield {
            key: pool.submit(look, case, programs[case.resolver], case.names)
            for key, case in CASES.items()
            if case.resolver in programs
        }


def same_words(text: str) -> str:
    """Without what differs between any two lookups: our own port, the mark in the name."""
    return re.sub(r"127\.0\.0\.1:\d{3,}|real\d|emulated", "*", text)


def asked(packets: list[Packet], *, in_order: bool, in_turn: bool) -> list[tuple[str, int, int, str, str, str]]:
    """What was sent, ports and ids by their first appearance; in_order: A before AAAA means something.

    in_turn: which server comes first is drawn. TCP is listed after UDP: what two connections say interleaves by chance.
    """
    if not in_order:
        packets = sorted(packets, key=lambda p: (round(p.at / TOLERANCE), p.transport, p.qtype, p.name))
    ports: dict[tuple[str, int], int] = {}
    ids: dict[int, int] = {0: 0}
    servers: dict[str, int] = {}
    rows: list[tuple[str, int, int, str, str, str]] = []
    for p in packets:
        port = ports.setdefault((p.transport, p.port), len(ports))
        server = str(servers.setdefault(p.server, len(servers))) if in_turn else p.server
        rows.append((p.transport, port, ids.setdefault(p.id, len(ids)), server, same_words(p.name), p.qtype))
    return [*(row for row in rows if row[0] == "udp"), *sorted(row for row in rows if row[0] == "tcp")]


def trace(case: Case, seen: Seen) -> tuple[object, ...]:
    """All that must be the same but for the time. Go's types ask from threads of their own, as c-ares' do not."""
    in_turn = "rotate" in case.options
    rows = asked(seen.packets, in_order=case.resolver != "go", in_turn=in_turn)
    # Under rotate it is chance whether Go's A or AAAA gets the first server, and so whose error is the last.
    said = re.sub(r"127\.0\.0\.[12]:53", "*" if in_turn else r"\g<0>", seen.error)
    return tuple(rows), tuple(seen.addresses), same_words(said)


def as_long(one: Seen, other: Seen) -> bool:
    """Both took as long, and sent each query as late."""
    took = abs(one.took - other.took) < TOLERANCE
    times = [sorted(p.at for p in seen.packets) for seen in (one, other)]
    return took and times[0] == pytest.approx(times[1], abs=TOLERANCE)


@needs_namespaces
@pytest.mark.parametrize(("key", "fault"), [(key, fault) for key, case in CASES.items() for fault in case.names])
def test_a_profile_does_what_its_resolver_does(
    key: str, fault: str, looks: Looks, programs: dict[str, list[str]], counted: Counted
) -> None:
    case = CASES[key]
    if case.resolver not in programs:
        need(BUILDS[case.resolver][0], LIFT[case.resolver])
    [emulated, *real] = looks[key].result()[fault]
    for _ in range(ROUNDS):
        real = [one for one in real if one.packets]  # the others had not begun when patience was over
        alike = [one for one in real if trace(case, one) == trace(case, emulated)]
        if any(as_long(emulated, one) for one in alike):
            break
        [emulated, *more] = look(case, programs[case.resolver], [fault])[fault]
        real += more
    counted[key].append((len(real), len({trace(case, one) for one in real}), len(alike)))
    assert real, "nothing was captured"
    assert trace(case, emulated) in [trace(case, one) for one in real]
    assert any(as_long(emulated, one) for one in alike), (emulated, alike)
