"""The name of what is fuzzed -> the function that takes octets, inputs to begin with, and words to put in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import yaml

from probe.outcome import Outcome
from probe.report.lines import lines_report
from probe.runfile import open_run
from probe.scenario.file import shipped_scenarios
from tests.clusters import sound
from tests.fuzz import files, replies
from tests.test_corefile import SEEDS as COREFILES
from tests.test_wire import TABLE


@dataclass(frozen=True)
class Target:
    """check: raises what is wrong with us, and nothing else. seeds: inputs to begin with.

    words: what a change may put in. longest: octets of an input. seconds: of CPU that an input may take. short: how
    many inputs `make test` tries.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    longest: int = 4096
    seconds: float = 2.0
    short: int = 200


def _words(text: str) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(word.encode() for word in text.split()))


# -- inputs to begin with


def _spliced(number: int, wire: bytes, section: int) -> bytes:
    """A reply whose question the target puts in."""
    rest = wire[:12] + wire[12 + section :]
    return bytes([number, 1]) + len(rest).to_bytes(4, "big") + rest


def _of_table() -> list[tuple[int, bytes, bytes]]:
    """Of the table of tests: the question's number, the reply as it is, and as one with the question put in."""
    asked = list(dict.fromkeys(question for question, _, _ in TABLE.values()))
    found = []
    for question, wire, outcome in TABLE.values():
        number = asked.index(question)
        section = len(replies._asked(replies._questions(), number, 0)) if len(wire) > 12 else 0
        whole = bytes([number, 0]) + len(wire).to_bytes(4, "big") + wire
        found.append((number, whole, whole if outcome == "unmatched" else _spliced(number, wire, section)))
    return found


def _wire_seeds() -> list[bytes]:
    each = [octets for _, *both in _of_table() for octets in both]
    return [*each, b"".join(each[:40:2])]


def _udp_seeds() -> list[bytes]:
    """Two rows leave, a reply comes to the first, another twice, time passes."""
    return [
        bytes([0, 0, number, 1])
        + bytes([5, 0])
        + spliced
        + bytes([1, 0])
        + spliced
        + bytes([4, 0])
        + bytes([3, 0, 200])
        for number, _, spliced in _of_table()
    ]


def _tcp_seeds() -> list[bytes]:
    wires = [wire for _, wire, _ in TABLE.values()]
    framed = [len(wire).to_bytes(2, "big") + wire for wire in wires]
    stream = b"".join(framed[:12])
    return [b"\0" + stream, bytes([3, 1, 1, 1]) + stream, bytes([5, 0, 11, 47, 2, 200]) + stream + b"\xff\xff", *framed]


_DATA = """\
; a comment
www.example.com A
example.com. AAAA
*.a_b-c/d+e.test TXT
{random}.example.test A
x{number}.test TYPE65
a\\.b\\032c.test mx

\u00fc.test A
"""


def _cells_seeds() -> list[bytes]:
    """Each story in some form, changed a little."""
    return [bytes([n, n, *range(n, 256, 9)]) for n in range(9)]


def _log_seeds() -> list[bytes]:
    """Logs of runs that lost something, whole and cut."""
    with files._file(b"", "run.db") as path:
        found = []
        for octets in files.run_files():
            path.write_bytes(octets)
            text = lines_report(open_run(path)).encode()
            found += [text, text[: len(text) * 2 // 3]]
        return found


def _scenario_seeds() -> list[bytes]:
    return [path.read_bytes() for path in shipped_scenarios().values()]


_SETTINGS = (
    "x\nduration=30s\nlanes[0].rate=50\nlab.lameduck=0s",
    "xx\nlanes[0].ports=pool:8\nlanes[0].timeout=2s\nobjectives=[p99(vip-*) <= 100ms, loss <= 0.1%]",
    "xxx\nsteps=[wait: 5s, scale: 2]\nlab.propagation=1s to 5s\nabort_on=[loss > 50% for 5s]",
    "xxxx\nlanes=[{name: a, target: service, rate: 100/3, questions: [{name: a.test, type: A, expect: answer}]}]",
    "xxxxx\nlab.propagation=[p50 1s p99 8s]\nlab.kernel=5.9\nclients={names: [a.test]}",
)
_SCENARIO_WORDS = _words(
    "name: duration: lab: servers: lanes: steps: objectives: abort_on: clients: matrix: rate: ports: timeout: target: "
    "questions: type: expect: transport: pool:8 fresh fixed tcp udp service pods all max ramp: rates: from: to: over: "
    "lanes[0]. lab. steps[0] wait: scale: restart rollout: 10s 1m 50% p99 loss longest_disruption <= >= ( ) [ ] { } - "
    "&a *a !!python/object <<: ? | > # 1e999 .inf ~ null 0s 1/0 -1 vary: under: repeats: longer_by:"
)
_COREFILE_WORDS = (
    *_words(
        '{ } " # \\ // , ( ) {$A} {%B%} import a.conf *.server :53 . (x) import\tx log errors health lameduck 5s ready '
        "kubernetes pods insecure ttl 30 fallthrough in-addr.arpa prometheus forward max_concurrent cache success "
        "prefetch loop reload loadbalance hosts template rewrite bind transfer to upstream resyncperiod federation "
        "header file auto secondary bufsize 10.0.0.0/9 tls:// grpc://"
    ),
    *(b"\n", b"\n}\n", b" {\n", b"\xef\xbb\xbf", b"\xc2\xa0", b"\r\n"),
)
_CLUSTER_WORDS = _words(
    "apiVersion: kind: List items: metadata: name: namespace: kube-system labels: spec: status: data: Corefile: "
    "Service Deployment DaemonSet ConfigMap Pod Node EndpointSlice NetworkPolicy Event template: containers: volumes: "
    "DnsprobeSnapshot unread: --- ... null ~ [] {} [ ] { } - ? : | > & * !! # 1 -1 1e999 .nan true coredns kube-dns"
)


def _cluster_seeds() -> list[bytes]:
    """A few objects of a cluster, as YAML and as JSON."""
    things = list(sound().things.values())
    few = [one for one in things if one["kind"] in ("Service", "Deployment", "ConfigMap")][:4]
    listed = {"apiVersion": "v1", "kind": "List", "items": few}
    return [yaml.safe_dump(listed).encode(), json.dumps(listed).encode(), yaml.safe_dump_all(few).encode()]


TARGETS: dict[str, Target] = {
    "wire": Target(replies.wire, _wire_seeds, (b"\xc0\x0c", b"\0\1\0\1", b"\0\x29", b"\0\5\0\1"), short=1000),
    "udp": Target(replies.udp, _udp_seeds, (b"\xc0\x0c", b"\0\1\0\1"), short=600),
    "tcp": Target(replies.tcp, _tcp_seeds, (b"\0\0", b"\xff\xff", b"\0\x0c"), 65_536, short=1500),
    "questions": Target(files.questions, lambda: [_DATA.encode()], (*_words(_DATA), b"\n", b"\r", b"\t"), short=600),
    "scenario": Target(files.scenario, _scenario_seeds, _SCENARIO_WORDS, short=60),
    "settings": Target(files.settings, lambda: [text.encode() for text in _SETTINGS], _SCENARIO_WORDS, 400, short=120),
    "corefile": Target(files.corefile, lambda: [text.encode() for text in COREFILES], _COREFILE_WORDS, short=400),
    "snapshot": Target(files.snapshot, _cluster_seeds, _CLUSTER_WORDS, 16_384, short=60),
    "cluster": Target(files.cluster, lambda: [bytes(range(n, 256, 7)) for n in range(7)], longest=120, short=100),
    "runfile": Target(files.runfile, files.run_files, longest=65_536, seconds=5.0, short=100),
    "cells": Target(files.cells, _cells_seeds, longest=80, seconds=5.0, short=100),
    "log": Target(files.log, _log_seeds, _words(" ".join(one.label for one in Outcome)), 32_768, short=60),
}
"""Who adds one adds a line here: `make fuzz` and `make test` have it then."""
