"""Client profiles: steps in time that nobody spends, c-ares itself, a run with clients, what they felt in windows."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from probe.clients import CLIENTS, Client
from probe.clients.asking import Asking, Lookups
from probe.clients.simulated import simulate
from probe.clients.steps import Event, Hears, Send
from probe.diagnosis.messages import meaning_of
from probe.errors import EnvironmentProblem, ScenarioError
from probe.felt import observed, predicted
from probe.model import NS, Fate, Lookup, Mark
from probe.outcome import Outcome
from probe.resolv import read_resolv_conf
from probe.runfile import open_run
from probe.scenario.file import read_scenario_text
from probe.timeline import Timeline
from tests.servers import REPLIES, Rule, ScriptedServer, closed_port
from tests.test_netns import needs_namespaces
from tests.test_runs import reported


class Sent(NamedTuple):
    """A query: when, in seconds; how; its type; from which port, by first use."""

    at: float
    transport: str
    qtype: str
    port: int


Rules = Callable[[Sent], Outcome]


class World:
    """Replies after 1 ms as the rules say."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.sent = rules, list[Sent]()
        self.ports: dict[int, int] = {}

    def events(self, send: Send, at_ns: int) -> Iterator[Event]:
        port = self.ports.setdefault(id(send.socket), len(self.ports))
        sent = Sent(at_ns / NS, send.socket.transport, send.query.question.qtype, port)
        self.sent.append(sent)
        outcome = self.rules(sent)
        if outcome is Outcome.TIMEOUT or (outcome is Outcome.CONNECTION_REFUSED and send.socket.hears is Hears.NOTHING):
            return
        answers = ("192.0.2.1",) if outcome is Outcome.ANSWER else ()
        yield Event(at_ns + NS // 1000, outcome, send.socket, send.server, send.query, answers)


def felt(profile: str, rules: Rules) -> tuple[World, Fate, float]:
    """A lookup of an absolute name, one nameserver: what was sent, what came of it, after how many seconds."""
    world = World(rules)
    answer, end_ns = simulate(client_of(profile).lookup("name.test.", 0), world, 0)
    return world, answer.fate, round(end_ns / NS, 1)


def client_of(profile: str, options: str = "") -> Client:
    return CLIENTS[profile].client(read_resolv_conf(f"nameserver 192.0.2.53\n{options}"), 53)


def always(outcome: Outcome) -> Rules:
    return lambda _: outcome


def dead(when: Callable[[Sent], bool]) -> Rules:
    return lambda sent: Outcome.TIMEOUT if when(sent) else Outcome.ANSWER


silent, refused, servfail = (always(o) for o in (Outcome.TIMEOUT, Outcome.CONNECTION_REFUSED, Outcome.SERVFAIL))
first_port_dead = dead(lambda sent: sent.port == 0)
dead_for_2_s = dead(lambda sent: sent.at < 2)
no_aaaa = dead(lambda sent: sent.qtype == "AAAA")


AT_DEFAULTS = [
    ("glibc", silent, Fate.FAILED, 10.0, 4),
    ("glibc", refused, Fate.FAILED, 0.0, 4),
    ("glibc", first_port_dead, Fate.FAILED, 10.0, 4),
    ("glibc", dead_for_2_s, Fate.FOUND, 5.0, 4),
    ("glibc-single-request", silent, Fate.FAILED, 10.0, 2),
    ("glibc-ack", silent, Fate.FAILED, 6.0, 3),
    ("glibc-ack", dead_for_2_s, Fate.FOUND, 2.0, 3),
    ("glibc-use-vc", dead_for_2_s, Fate.FOUND, math.inf, 2),
    ("musl", silent, Fate.FAILED, 5.0, 4),
    ("musl", refused, Fate.FAILED, 5.0, 4),
    ("musl", first_port_dead, Fate.FAILED, 5.0, 4),
    ("musl", dead_for_2_s, Fate.FOUND, 2.5, 4),
    ("musl", servfail, Fate.FAILED, 5.0, 12),
    ("node", silent, Fate.FAILED, 10.0, 4),
    ("c-ares", silent, Fate.FAILED, 13.7, 4),
    ("c-ares", refused, Fate.FAILED, 0.0, 4),
    ("c-ares", first_port_dead, Fate.FOUND, 5.0, 4),
    ("c-ares", no_aaaa, Fate.FOUND, 5.0, 2),
    ("go", silent, Fate.FAILED, 10.0, 4),
    ("go", refused, Fate.FAILED, 0.0, 4),
    ("go", first_port_dead, Fate.FOUND, 5.0, 3),
    ("go", dead_for_2_s, Fate.FOUND, 5.0, 4),
]
"""With a resolv.conf that sets nothing: profile, fault, what comes of it, seconds (inf: hardly ever), queries sent."""


@pytest.mark.parametrize(("profile", "rules", "came", "seconds", "queries"), AT_DEFAULTS)
def test_a_profile_takes_as_long_as_its_source_says(
    profile: str, rules: Rules, came: Fate, seconds: float, queries: int
) -> None:
    world, got, took = felt(profile, rules)
    assert len(world.sent) == queries
    if math.isinf(seconds):
        assert took > 3600, "glibc has no timeout on an open connection"
    else:
        assert (got, took) == (came, seconds)


def test_glibc_stays_on_a_dead_port_and_go_leaves_it() -> None:
    assert {sent.port for sent in felt("glibc", silent)[0].sent} == {0}
    assert len({sent.port for sent in felt("go", silent)[0].sent}) == 4


def test_glibc_asks_one_after_the_other_once_one_of_two_was_lost() -> None:
    client = client_of("glibc")
    first, second = World(no_aaaa), World(no_aaaa)
    assert simulate(client.lookup("name.test.", 0), first, 0)[1] / NS == pytest.approx(15, abs=0.1)
    assert simulate(client.lookup("name.test.", 0), second, 0)[1] / NS == pytest.approx(5, abs=0.1)
    assert [sent.qtype for sent in second.sent] == ["A", "AAAA"]
    assert [sent.port for sent in second.sent] == [0, 1]


FAULTS = ("timeout", "connection_refused", "servfail", "refused", "nxdomain", "nodata")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("profile", CLIENTS)
def test_what_a_client_prints_is_known_to_mean_what_it_met(profile: str, fault: str) -> None:
    met = next(outcome for outcome in Outcome if outcome.label == fault)
    for name in ("name.test", "name.test."):
        world = World(always(met))
        answer, end_ns = simulate(client_of(profile).lookup(name, 0), world, 0)
        if profile == "glibc-use-vc" and fault in ("timeout", "refused"):
            return  # it waits for ever, and takes REFUSED by TCP for a name that is not there
        meaning = meaning_of(answer.error, end_ns / NS)
        assert meaning, answer.error
        assert met in meaning.outcomes, (answer.error, meaning)


def test_java_keeps_a_failure_for_10_s_and_an_address_for_30_s() -> None:
    java = client_of("java", "options timeout:1 attempts:1")
    seen = []
    for second in range(50):
        world = World(dead(lambda sent: sent.at < 2))
        answer, _ = simulate(java.lookup("name.test.", second * NS), world, second * NS)
        seen.append(("asked " if world.sent else "kept ") + answer.fate)
        if second < 2:
            why = ": Temporary failure in name resolution" if not second else ""
            assert answer.error == f"java.net.UnknownHostException: name.test.{why}"
    # It failed at 1 s, and was found at 11 s.
    assert seen[:12] == ["asked failed", *["kept failed"] * 10, "asked found"]
    assert seen[12:44] == ["kept found"] * 30 + ["asked found", "kept found"]


@pytest.mark.parametrize("lookups", [5])
def test_c_ares_asks_anew_for_each_lookup(lookups: int) -> None:
    async def look_up(server: ScriptedServer) -> list[Fate]:
        look = CLIENTS["c-ares"].looks_up(read_resolv_conf(CARES), [("127.0.0.1", server.port)])
        return [(await look("kept")).fate for _ in range(lookups)]

    with ScriptedServer([Rule(REPLIES["nxdomain"], name="kept.one.test")]) as server:
        assert asyncio.run(look_up(server)) == [Fate.FOUND] * lookups
        asked = server.received()
    assert asked.name.tolist().count("kept.two.test") == 2 * lookups >= lookups
    assert len(asked) == 4 * lookups, "A and AAAA in both domains of the search list"


CARES = "nameserver 127.0.0.1\nsearch one.test two.test\noptions ndots:2 timeout:1 attempts:2"


@pytest.mark.parametrize(
    ("kind", "code", "fate"),
    [
        ("servfail", "ARES_ESERVFAIL", Fate.FAILED),
        ("nxdomain", "ARES_ENOTFOUND", Fate.NOT_FOUND),
        ("silent", "ARES_ETIMEOUT", Fate.FAILED),
        ("closed", "ARES_ECONNREFUSED", Fate.FAILED),
    ],
)
def test_c_ares_says_what_went_wrong(kind: str, code: str, fate: Fate) -> None:
    async def look_up(port: int) -> tuple[str, Fate]:
        look = CLIENTS["c-ares"].looks_up(read_resolv_conf(CARES), [("127.0.0.1", port)])
        answer = await look("name.test.")
        return answer.code, answer.fate

    with ScriptedServer([Rule(REPLIES["servfail" if kind == "closed" else kind])]) as server:
        assert asyncio.run(look_up(closed_port() if kind == "closed" else server.port)) == (code, fate)


@pytest.mark.parametrize("dies", [False, True])
def test_a_process_of_clients_that_dies_is_a_mark_and_one_that_is_ended_is_none(dies: bool) -> None:
    async def story(server: ScriptedServer) -> list[Lookup | Mark]:
        lookups = Lookups()
        await lookups.start(Asking(("go",), ("a.test",), rate=20), (("127.0.0.1", server.port),), "")
        found: list[Lookup | Mark] = []
        try:
            async for told in lookups.made():
                found.append(told)
                if len(found) == 3 and dies:
                    os.kill(clients_of_this_process(), signal.SIGKILL)
                elif len(found) == 3:
                    lookups.end()
        finally:
            await lookups.stop()
        return found

    with ScriptedServer([Rule(REPLIES["answer"])]) as server:
        found = asyncio.run(asyncio.wait_for(story(server), 30))
    died = [(told.kind, told.text) for told in found if isinstance(told, Mark) and told.kind != "clients_late"]
    text = "the clients' process ended with exit code -9: nothing is looked up any more"
    assert died == ([("clients_died", text)] if dies else [])
    assert any(isinstance(told, Lookup) and told.fate is Fate.FOUND for told in found)


def clients_of_this_process() -> int:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return next(int(pid) for pid in children if b"probe.clients.process" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_process_of_clients_that_does_not_start_is_named() -> None:
    with pytest.raises(EnvironmentProblem, match="the clients' process did not start: it ended with exit code 1"):
        asyncio.run(Lookups().start(Asking(("go",), ("a.test",)), (("127.0.0.1", 53),), "/run/netns/is-not-there"))


SCENARIO = """\
name: clients
duration: 5s
lanes: [{name: vip, target: service, rate: 10, questions: [a.test]}]
clients:
  profiles: [glibc]
  names: [kubernetes.default]
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("glibc]|gilbc]", "x.yaml:5: clients.profiles[0]: 'gilbc': unknown profile; nearest: glibc"),
        ("glibc]|glibc, glibc]", "clients.profiles[1]: 'glibc' is there twice"),
        ("  names:|  rate: 50\n  names:", "clients.rate: '50': at most 20 lookups a second"),
        ("  names:|  target: nobody\n  names:", "clients.target: 'nobody': unknown target; targets are service"),
        ("[kubernetes.default]|[a..b]", "an empty label"),
        ("  names:|  nmaes:", "clients.nmaes: unknown key; nearest: names"),
    ],
)
def test_a_bad_key_of_clients_is_named_with_its_line(change: str, said: str) -> None:
    old, new = change.split("|")
    with pytest.raises(ScenarioError) as problem:
        read_scenario_text("x.yaml", SCENARIO.replace(old, new), [])
    assert said in str(problem.value)


KILLED = """\
name: killed
duration: 21s
lab: {backend: netns, coredns: stand-in, replicas: 3, lameduck: 0s, propagation: 2s, cache: 0s}
lanes:
  - {name: vip, target: service, rate: 200, timeout: 1s, questions: [kubernetes.default.svc.cluster.local]}
clients:
  profiles: [glibc, musl, go, c-ares]
  names: [kubernetes.default]
  search: [svc.cluster.local, cluster.local]
  rate: 15
steps: [{wait: 2s}, {kill_pod: oldest}, {wait: 8s}, {kill_pod: oldest}]
"""


@needs_namespaces
def test_what_was_predicted_from_the_counts_is_what_lookups_felt(tmp_path: Path) -> None:
    (tmp_path / "killed.yaml").write_text(KILLED)
    report = reported(tmp_path, killed="killed.yaml --lab")["killed"]
    run = open_run(tmp_path / "killed.db")
    timeline = Timeline.of(run)
    windows = [w for w in timeline.windows if w.to_ns - w.from_ns > NS]
    assert len(windows) == 2
    for client in ("glibc", "musl", "go", "c-ares"):
        said = [next(f for f in predicted(timeline, w) if f.client == client) for w in windows]
        seen = [next(f for f in observed(run.lookups, w) if f.client == client) for w in windows]
        n = sum(f.lookups for f in seen)
        assert n > 20
        expected = sum(f.lookups * (a.failed + a.slowed) for f, a in zip(seen, said, strict=True)) / n
        share = sum(f.lookups * (f.failed + f.slowed) for f in seen) / n
        noise = math.sqrt(expected * (1 - expected) / n) + 0.025
        assert share == pytest.approx(expected, abs=3.5 * noise), client
        slowed = next(f for f in seen if f.slowed)
        assert slowed.mean_ns / NS == pytest.approx(said[0].mean_ns / NS, abs=0.6), client
    assert {client["client"] for client in report["lookups"]} == {"glibc", "musl", "go", "c-ares"}
    told = {client["client"]: client for client in report["lookups"]}
    with sqlite3.connect(tmp_path / "killed.db") as db:
        rows = dict(db.execute("SELECT client, count(*) FROM lookups GROUP BY client"))
    assert {name: sum(client[fate] for fate in Fate) for name, client in told.items()} == rows
    assert [len(window["observed"]) for window in report["felt"] if window["predicted"]] == [4, 4]
    assert json.dumps(report["felt"])


KEPT = """\
name: kept
duration: DURATION
lab: {coredns: stand-in, replicas: 2, lameduck: 0s, propagation: 0s, cache: 0s}
lanes:
  - {name: vip, target: service, rate: 100, timeout: 1s, questions: [kubernetes.default.svc.cluster.local]}
clients:
  profiles: [java]
  names: [kubernetes.default, kube-dns.kube-system, dnsprobe.default, dual.default, headless.default]
  search: [svc.cluster.local, cluster.local]
  rate: 20
steps: [{wait: WAIT}, {scale: 0}, {wait: 2.5s}, {scale: 2}]
"""


@pytest.mark.parametrize(
    ("duration", "wait", "least", "most"),
    [("36s", "29s", 0.6, 1.0), ("12s", "5s", 0.0, 0.0)],
    ids=["as it looks its names up anew", "while it keeps them"],
)
def test_what_a_jvm_feels_depends_on_what_it_keeps(
    tmp_path: Path, duration: str, wait: str, least: float, most: float
) -> None:
    (tmp_path / "kept.yaml").write_text(KEPT.replace("WAIT", wait).replace("DURATION", duration))
    reported(tmp_path, kept="kept.yaml --lab")
    run = open_run(tmp_path / "kept.db")
    timeline = Timeline.of(run)
    window = max(timeline.windows, key=lambda w: w.to_ns - w.from_ns)
    [said] = [f for f in predicted(timeline, window) if f.client == "java"]
    [seen] = observed(run.lookups, window)
    assert seen.lookups > 50
    assert least <= seen.failed <= most
    assert said.failed + said.slowed == pytest.approx(seen.failed + seen.slowed, abs=0.1)
