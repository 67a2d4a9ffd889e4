"""Client profiles beside the resolvers that they stand for: the same faults, the same packets, results and durations.

glibc, musl and Go look names up in a namespace without uplink; so does each profile. Both are captured.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.resolvers import Packet, Seen
from tests.servers import ROOT, need
from tests.test_netns import needs_namespaces

SOURCES = ROOT / "tests" / "data" / "resolvers"
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
    """A profile under a resolv.conf, and the resolver that it stands for."""

    profile: str
    resolver: str
    options: str = "timeout:1"
    nameservers: tuple[str, ...] = ONE
    names: tuple[str, ...] = tuple(NAMES)

    @property
    def conf(self) -> str:
        lines = [*(f"nameserver {ip}" for ip in self.nameservers), "search one.test two.test"]
        return "\n".join([*lines, f"options {self.options}", ""])


ACK = "timeout:2 attempts:3 rotate single-request-reopen"
SOME = ("answer", "silent", "servfail", "refused", "truncated", "a-lost", "searched")
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
    **{
        f"{resolver}-{kind}": Case(resolver, resolver, "timeout:2", nameservers, SOME)
        for resolver in ("glibc", "musl", "go")
        for kind, nameservers in {"closed": ("127.0.0.3",), "first-closed": ("127.0.0.3", "127.0.0.1")}.items()
    },
}
BUILDS = {
    "glibc": ["gcc", "-o", "{program}", "resolve.c"],
    "musl": ["musl-gcc", "-o", "{program}", "resolve.c"],
    "go": ["go", "build", "-o", "{program}", "resolve.go"],
}
LIFT = {"glibc": "make servers", "musl": "make servers", "go": "get it from https://go.dev/dl"}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Those resolvers' programs that can be built here."""
    folder = tmp_path_factory.mktemp("resolvers")
    built = {}
    for resolver, command in BUILDS.items():
        program = folder / resolver
        words = [word.format(program=program) for word in command]
        try:
            subprocess.run(["env", "CGO_ENABLED=0", *words], cwd=SOURCES, check=True, capture_output=True)
        except subprocess.CalledProcessError:
            continue
        built[resolver] = program
    return built


def has_tcp(program: Path) -> bool:
    """Whether a program's musl is 1.2.4 or later: its loader says so."""
    loader = re.search(rb"/[\w/.-]+/ld-musl-[\w.-]+", program.read_bytes())
    assert loader, "not linked with musl"
    said = subprocess.run([loader[0].decode()], capture_output=True, text=True, check=False).stderr
    version = re.search(r"Version (\d+)\.(\d+)\.(\d+)", said)
    assert version, said
    return tuple(map(int, version.groups())) >= (1, 2, 4)


def look(case: Case, program: Path) -> dict[str, tuple[Seen, Seen]]:
    """By name of the fault: the resolver's lookup, the profile's."""
    profile = case.profile if case.profile != "musl" or has_tcp(program) else "musl-1.2.3"
    order = {"profile": profile, "conf": case.conf, "program": [str(program)]}
    order["names"] = [NAMES[name] for name in case.names]
    command = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.resolvers", json.dumps(order)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return {name: (_seen(*said[NAMES[name]][:1]), _seen(*said[NAMES[name]][1:])) for name in case.names}


def _seen(said: dict[str, list[dict[str, float]]]) -> Seen:
    return Seen(**{**said, "packets": [Packet(**packet) for packet in said["packets"]]})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def looks(programs: dict[str, Path]) -> Iterator[dict[str, Future[dict[str, tuple[Seen, Seen]]]]]:
    """All cases, some at a time."""
    with ThreadPoolExecutor(6) as pool:
        yield {
            key: pool.submit(look, case, programs[case.resolver])
            for key, case in CASES.items()
            if case.resolver in programs
        }


def same_words(text: str) -> str:
    """Without what differs between any two lookups: our own port, the mark in the name."""
    return re.sub(r"127\.0\.0\.1:\d{3,}|real|emulated", "*", text)


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


@needs_namespaces
@pytest.mark.parametrize(("key", "fault"), [(key, fault) for key, case in CASES.items() for fault in case.names])
def test_a_profile_does_what_its_resolver_does(
    key: str, fault: str, looks: dict[str, Future[dict[str, tuple[Seen, Seen]]]]
) -> None:
    case = CASES[key]
    need(BUILDS[case.resolver][0], LIFT[case.resolver])
    real, emulated = looks[key].result()[fault]
    how = {"in_order": case.resolver != "go", "in_turn": "rotate" in case.options}
    assert asked(emulated.packets, **how) == asked(real.packets, **how)
    assert emulated.addresses == real.addresses
    # Under rotate it is chance whether Go's A or AAAA gets the first server, and so whose error is the last.
    said = [re.sub(r"127\.0\.0\.[12]:53", "*" if how["in_turn"] else r"\g<0>", one.error) for one in (emulated, real)]
    assert same_words(said[0]) == same_words(said[1])
    assert emulated.took == pytest.approx(real.took, abs=TOLERANCE)
    spacing = [p.at for p in real.packets]
    assert sorted(p.at for p in emulated.packets) == pytest.approx(spacing, abs=TOLERANCE)
    assert real.packets, "nothing was captured"
