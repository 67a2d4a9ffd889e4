"""Scenario files: what is read from them, and what a person is told about every wrong one."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest

from probe.cluster.settings import LabSettings
from probe.errors import ScenarioError, UsageError
from probe.model import NS, Edns, Lane, Leg, Ports, Question, Shape, Target, TargetKind
from probe.scenario.file import _Lab, read_scenario, read_scenario_text, shipped_scenarios
from probe.scenario.plan import Plan, expected_series, planned, series_of
from probe.scenario.quantity import MAX_RATE, duration_ns, rate_of
from probe.scenario.steps import STEPS, Step, changes_of

WHOLE = """\
name: whole
duration: 1m
lab:
  lameduck: 500ms
  kubernetes: 1.30
  expire_nodest_conn: no
servers:
  - name: upstream
    address: 127.0.0.1
    port: 5300
    kind: upstream
lanes:
  - name: vip
    target: service
    ports: pool:4
    rate: 10.5
    timeout: 1500ms
    questions:
      - a.example
      - {name: b.example, type: txt, expect: nxdomain}
  - name: up
    target: upstream
    transport: tcp
    ports: reused
    rate: 1
    types: [A]
    questions: [a.example]
steps:
  - wait: 5s
  - scale: 2
  - delete_pod:
  - delete_pod: coredns-x
  - mark: a word
objectives:
  - loss(vip) <= 0.1%
"""


TARGET = Target("one", TargetKind.SERVER, "127.0.0.1")


def read(text: str, *settings: str) -> Plan:
    return read_scenario_text("x.yaml", text, list(settings))


def test_everything_in_a_file_is_in_its_plan() -> None:
    plan = read(WHOLE)
    assert plan == Plan(
        name="whole",
        duration_ns=60 * NS,
        lanes=(
            Lane(
                name="vip",
                target="service",
                transport="udp",
                ports=Ports("pool", 4),
                rate=Fraction(21, 2),
                timeout_ns=1_500_000_000,
                questions=(
                    Question.of("a.example", "A"),
                    Question.of("a.example", "AAAA"),
                    Question.of("b.example", "TXT", "nxdomain"),
                ),
            ),
            Lane("up", "upstream", "tcp", Ports("reused"), Fraction(1), 2 * NS, (Question.of("a.example"),)),
        ),
        scenario=WHOLE,
        servers=(Target("upstream", TargetKind.UPSTREAM, "127.0.0.1", 5300),),
        lab=LabSettings(lameduck=0.5, kubernetes="1.30", expire_nodest_conn=False),
        steps=(
            Step("wait", ns=5 * NS),
            Step("scale", "2"),
            Step("delete_pod", "oldest"),
            Step("delete_pod", "coredns-x"),
            Step("mark", "a word"),
        ),
        objectives=("loss(vip) <= 0.1%",),
    )
    assert plan.cluster_needs == [
        "lane vip (target: service)",
        "step scale to 2",
        "step delete the oldest pod",
        "step delete pod coredns-x",
    ]
    assert plan.places == {"vip": "x.yaml:13: lanes[0]", "up": "x.yaml:21: lanes[1]"}


def test_how_names_are_asked_is_said_of_the_lane() -> None:
    text = WHOLE.replace(
        "    types: [A]\n    questions: [a.example]\n",
        """\
    types: [A]
    search: [svc.test, test]
    ndots: 2
    edns: 4096
    dnssec: true
    nsid: yes
    external: true
    questions:
      - {name: a.example, weight: 3}
      - "{random}.dnsprobe.dev"
      - {name: c.example., expect: same}
""",
    )
    lane = read(text).lanes[1]
    edns = Edns(4096, do=True, nsid=True)
    assert lane.questions == (
        Question.of("a.example.svc.test", "A", "pinned", edns),
        Question.of("a.example.test", "A", "pinned", edns),
        Question.of("a.example", "A", "pinned", edns),
        Question.of("{random}.dnsprobe.dev", "A", "", edns),
        Question.of("{random}.dnsprobe.dev.svc.test", "A", "pinned", edns),
        Question.of("{random}.dnsprobe.dev.test", "A", "pinned", edns),
        Question.of("c.example.", "A", "same", edns),
    )
    assert lane.weights == (3, 3, 3, 1, 1, 1, 1)
    assert read(text.replace("weight: 3", "weight: 1")).lanes[1].weights == ()


WRONG = [
    # one change to the whole file above -> what a person reads
    ("rate: 10.5", "rat: 10.5", "x.yaml:16: lanes[0].rat: unknown key; nearest: rate; keys here are name, target"),
    ("rate: 10.5", "rate: -5", "x.yaml:16: lanes[0].rate: '-5': a rate is a number of queries a second from 0.001"),
    ("rate: 10.5", "rate: 0", "x.yaml:16: lanes[0].rate: '0': a rate is"),
    ("rate: 10.5", "rate: 1e3", "x.yaml:16: lanes[0].rate: '1e3': a rate is"),
    ("rate: 10.5", "rate: [1]", "x.yaml:16: lanes[0].rate: a single value is expected here, not a list"),
    ("duration: 1m", "duration: 1 minute", "x.yaml:2: duration: '1 minute': a duration is like 500ms, 30s, 1m30s"),
    ("duration: 1m", "duration: 25h", "x.yaml:2: duration: '25h': a duration from 1s to 24h is allowed here"),
    ("duration: 1m", "duration: 5s", "x.yaml:28: steps: they wait 5 s in all, but the run lasts 5 s"),
    ("timeout: 1500ms", "timeout: 2m", "x.yaml:17: lanes[0].timeout: '2m': a duration from 1ms to 1m"),
    ("lameduck: 500ms", "lameduk: 1s", "x.yaml:4: lab.lameduk: unknown key; nearest: lameduck"),
    ("kubernetes: 1.30", "kubernetes: new", "x.yaml:5: lab.kubernetes: 'new': a version is like 1.33"),
    ("expire_nodest_conn: no", "expire_nodest_conn: 0", "x.yaml:6: lab.expire_nodest_conn: '0': say true or false"),
    ("lab:\n  lameduck: 500ms", "lab:\n  proxy_mode: nft", "x.yaml:4: lab.proxy_mode: 'nft': say iptables or ipvs"),
    ("  lameduck: 500ms", "  port: 8080", "x.yaml:4: lab.port: '8080': there the pods serve /health; choose another"),
    ("  lameduck: 500ms", "  port: 8181", "x.yaml:4: lab.port: '8181': there the pods serve /ready"),
    ("  lameduck: 500ms", "  port: 9153", "x.yaml:4: lab.port: '9153': there the pods serve /metrics"),
    ("address: 127.0.0.1", "address: 127.0.0.1:53", "the port goes to -p 53, in a scenario to port: 53"),
    ("address: 127.0.0.1", "address: 224.0.0.1", "x.yaml:9: servers[0].address: '224.0.0.1': not the address of one"),
    ("address: 127.0.0.1", "address: ns.example", "x.yaml:9: servers[0].address: 'ns.example': not an IP address"),
    ("port: 5300", "port: 65536", "x.yaml:10: servers[0].port: '65536': a port is a whole number from 1 to 65535"),
    ("name: upstream", "name: pods", "x.yaml:8: servers[0].name: 'pods' has a meaning already"),
    ("name: upstream", "name: api", "x.yaml:8: servers[0].name: 'api' has a meaning already"),
    ("name: up\n", "name: vip\n", "x.yaml:21: lanes[1].name: 'vip' is there twice"),
    ("name: up\n", "name: a b\n", "x.yaml:21: lanes[1].name: 'a b': a name has 1 to 60 letters"),
    ("target: service", "target: services", "x.yaml:14: lanes[0].target: 'services': unknown target; nearest: service"),
    ("ports: pool:4", "ports: pool", "x.yaml:15: lanes[0].ports: ports 'pool': for udp say fresh, fixed or pool:K"),
    ("ports: reused", "ports: fixed", "x.yaml:24: lanes[1].ports: ports 'fixed': for tcp say fresh"),
    ("transport: tcp", "transport: dot", "x.yaml:23: lanes[1].transport: 'dot': say udp, tcp, connect or http"),
    ("types: [A]", "types: [A, HOST]", "x.yaml:26: lanes[1].types[1]: type 'HOST': not a DNS type"),
    ("      - a.example", f"      - {'a' * 64}.example", "x.yaml:19: lanes[0].questions[0]: name"),
    ("      - a.example", f"      - {'a' * 64}.example", "has 64 octets, 63 are allowed"),
    ("      - a.example", f"      - {'abcdefg.' * 31}abcdefg", "257 octets on the wire, 255 are allowed"),
    ("      - a.example", "      - ''", "x.yaml:19: lanes[0].questions[0]: name '': empty; the root is `.`"),
    ("      - a.example", "      - a..example", "x.yaml:19: lanes[0].questions[0]: name 'a..example': an empty label"),
    ("type: txt", "typ: txt", "x.yaml:20: lanes[0].questions[1].typ: unknown key; nearest: type"),
    ("expect: nxdomain", "expect: gone", "x.yaml:20: lanes[0].questions[1]: expect 'gone': say answer, nodata"),
    (
        "expect: nxdomain",
        "weight: 0",
        "x.yaml:20: lanes[0].questions[1].weight: '0': a weight is a whole number from 1",
    ),
    ("type: txt", "wieght: 2", "x.yaml:20: lanes[0].questions[1].wieght: unknown key; nearest: weight"),
    (
        "types: [A]",
        "types: [A]\n    ndots: 1",
        "x.yaml:27: lanes[1].ndots: goes with search: without it a name is asked",
    ),
    ("types: [A]", "search: [.]", "x.yaml:26: lanes[1].search[0]: '.': empty; the name itself is always asked, too"),
    ("types: [A]", "search: svc.test", "x.yaml:26: lanes[1].search: a list is expected here"),
    ("types: [A]", "edns: big", "x.yaml:26: lanes[1].edns: 'big': the size of UDP replies is a whole number from 512"),
    ("types: [A]", "dnssec: 1", "x.yaml:26: lanes[1].dnssec: '1': say true or false"),
    (
        "- a.example",
        "- '{random}.dnsprobe.dev'",
        "x.yaml:19: lanes[0].questions[0]: name '{random}.dnsprobe.dev': no cache",
    ),
    ("- a.example", "- '{random}.dnsprobe.dev'", "in a scenario external: true"),
    (
        "- a.example",
        "- {name: a.example, weight: 1000}" + "\n      - {name: a.example, weight: 999}" * 11,
        "x.yaml:18: lanes[0].questions: weights that add up to 11,989 when divided",
    ),
    ("questions: [a.example]", "questions: []", "x.yaml:27: lanes[1].questions: empty; at least one is needed"),
    ("questions: [a.example]", "questions: a.example", "x.yaml:27: lanes[1].questions: a list is expected here"),
    ("- scale: 2", "- scael: 2", "x.yaml:30: steps[1]: unknown step 'scael'; nearest: scale; steps are wait, scale"),
    ("- scale: 2", "- scale: two", "x.yaml:30: steps[1]: 'two': the number of replicas is a whole number"),
    ("- scale: 2", "- {scale: 2, wait: 1}", "x.yaml:30: steps[1]: a step is one key and its value"),
    ("- scale: 2", "- scale: [2]", "x.yaml:30: steps[1]: scale: a single value is expected, not a list"),
    (
        "delete_pod: coredns-x",
        'delete_pod: "a\\eb"',
        r"x.yaml:32: steps[3]: 'a\x1bb': say oldest, newest, or a pod's name",
    ),
    ("mark: a word", "mark:", "x.yaml:33: steps[4]: '': a mark is a text of 1 to 200 characters"),
    ("loss(vip) <= 0.1%", "loss(vip) ~ 1", "x.yaml:35: objectives[0]: "),
    (
        "loss(vip)",
        "loss(vpi*)",
        "x.yaml:35: objectives[0]: objective 'loss(vpi*) <= 0.1%': matches no lane; nearest: vip;",
    ),
    ("loss(vip)", "loss(vpi*)", "lanes are vip, up"),
    ("duration: 1m", "duration: 1m\nduration: 2m", "x.yaml:3: duration: given twice, first at x.yaml:2"),
    ("lab:", "lab: [", "x.yaml:5: not valid YAML: "),
    ("  lameduck", "\tlameduck", "x.yaml:4: not valid YAML: found character '\\t' that cannot start any token; indent"),
]


LOADS = [
    # what stands in place of the second lane's rate -> the highest rate and the shape
    ("rate: 7", 7, Shape()),
    ("rate: max", MAX_RATE, Shape("max", window=200)),
    ("rate: Max\n    max_inflight: 50", MAX_RATE, Shape("max", window=50)),
    ("rate: max\n    max_inflight: 3\n    pause: 100ms", 30, Shape("max", window=3, pause_ns=NS // 10)),
    ("rate: max\n    pause: 2s", Fraction(1, 2), Shape("max", window=1, pause_ns=2 * NS)),
    ("rate: 7\n    arrivals: poisson", 7, Shape("poisson")),
    ("ramp: {from: 10, to: 500, over: 30s}", 500, Shape(legs=(Leg(30 * NS, Fraction(1, 50), Fraction(1)),))),
    (
        "ramp: {from: 8, to: 0.5, over: 1m}\n    arrivals: poisson",
        8,
        Shape("poisson", (Leg(60 * NS, Fraction(1), Fraction(1, 16)),)),
    ),
    (
        "rates: [{rate: 100, for: 10s}, {rate: 0, for: 5s}, {rate: 400, for: 500ms}]",
        400,
        Shape(legs=tuple(Leg(ns, share, share) for ns, share in (
            (10 * NS, Fraction(1, 4)), (5 * NS, Fraction(0)), (NS // 2, Fraction(1))
        ))),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("load", "rate", "shape"), LOADS)
def test_loads_of_any_shape(load: str, rate: int | Fraction, shape: Shape) -> None:
    alone = WHOLE[: WHOLE.index("  - name: vip")] + WHOLE[WHOLE.index("  - name: up\n") : WHOLE.index("objectives:")]
    (lane,) = read(alone.replace("rate: 1\n", f"{load}\n")).lanes
    assert (lane.rate, lane.shape, lane.pair, lane.gso) == (rate, shape, False, 1)


def test_a_closed_loop_with_a_pause_is_one_lane_among_others_and_each_type_has_its_own() -> None:
    """A socket for each query, too: what may be outstanding bounds them."""
    vip, _ = read(
        WHOLE.replace("ports: pool:4", "ports: fresh").replace("rate: 10.5", "rate: max\n    pause: 50ms")
    ).lanes
    assert (str(vip.ports), int(vip.rate), vip.shape) == ("fresh", 60, Shape("max", window=3, pause_ns=NS // 20))


def test_pairs_and_bursts() -> None:
    steady = WHOLE.replace("      - {name: b.example, type: txt, expect: nxdomain}\n", "")
    paired, _ = read(steady.replace("rate: 10.5", "rate: 10.5\n    pair: true")).lanes
    assert paired.pair
    a, aaaa = series_of(paired, TARGET, 3, 0, NS)
    assert a.offset_ns == aaaa.offset_ns
    bursts = steady[: steady.index("steps:")].replace("rate: 10.5", "rate: 10.5\n    gso: 16")
    assert read(bursts).lanes[0].gso == 16


WRONG_LOADS = [
    # what stands in place of the first lane's rate -> what a person reads
    (
        "rate: fast",
        "x.yaml:16: lanes[0].rate: 'fast': a rate is a number of queries a second from 0.001 to 1,000,000, or max",
    ),
    (
        "rate: 5\n    ramp: {from: 1, to: 2, over: 1s}",
        "x.yaml:17: lanes[0].ramp: gives the rate itself: leave out rate",
    ),
    ("rate: max\n    rates: [{rate: 1, for: 1s}]", "x.yaml:17: lanes[0].rates: gives the rate itself: leave out rate"),
    ("gso: 1", "x.yaml:16: lanes[0].gso: '1': the number of queries in a burst is a whole number from 2 to 64"),
    ("ramp: 10:500:30", "x.yaml:16: lanes[0].ramp: keys and values are expected here, not a text"),
    (
        "ramp: {from: 1, till: 2, over: 1s}",
        "x.yaml:16: lanes[0].ramp.till: unknown key; nearest: to; keys here are from, to, over",
    ),
    ("ramp: {from: 1, over: 1s}", "x.yaml:16: lanes[0].ramp.to: missing; this key must be given"),
    ("ramp: {from: 1, to: 0, over: 1s}", "x.yaml:16: lanes[0].ramp.to: '0': a rate is"),
    ("ramp: {from: 1, to: 2, over: 2m}", "x.yaml:16: lanes[0].ramp: takes 120 s, but the run lasts 60 s: run longer"),
    ("rates: []", "x.yaml:16: lanes[0].rates: empty; at least one is needed"),
    ("rates: [{rate: 1, for: 1s}, {rate: 0, for: 1s}]", "x.yaml:16: lanes[0].rates: the last rate stays until the end"),
    (
        "rates: [{rate: 1, fro: 1s}]",
        "x.yaml:16: lanes[0].rates[0].fro: unknown key; nearest: for; keys here are rate, for",
    ),
    (
        "rates: [{rate: 1, for: 1m}, {rate: 2, for: 1s}]",
        "x.yaml:16: lanes[0].rates: takes 61 s, but the run lasts 60 s",
    ),
    ("rate: 5\n    arrivals: bursty", "x.yaml:17: lanes[0].arrivals: 'bursty': say even or poisson"),
    ("rate: max\n    arrivals: poisson", "x.yaml:17: lanes[0].arrivals: 'poisson': goes with a rate: under max"),
    (
        "rate: 5\n    pause: 1s",
        "x.yaml:17: lanes[0].pause: '1 s': a pause follows an outcome, and a schedule waits for",
    ),
    ("rate: max\n    pause: 0s", "x.yaml:17: lanes[0].pause: '0s': a duration from 1ms to 1000s is allowed here"),
    (
        "rate: max\n    max_inflight: 2000\n    pause: 1ms",
        "x.yaml:18: lanes[0].pause: '0.001 s': with 2000 outstanding up to 2,000,000 q/s: 1,000,000 is the most",
    ),
    (
        "rate: max\n    max_inflight: 2\n    pause: 1s",
        "x.yaml:17: lanes[0].max_inflight: '2': with a pause A, AAAA, TXT have loops of their own: say 3,",
    ),
    ("rate: 5\n    max_inflight: 9", "x.yaml:17: lanes[0].max_inflight: '9': there is no limit on outstanding queries"),
    (
        "rate: max\n    max_inflight: many",
        "x.yaml:17: lanes[0].max_inflight: 'many': the number of queries outstanding",
    ),
    (
        "rate: 5\n    pair: yes",
        "x.yaml:17: lanes[0].pair: a pair is A and AAAA of a name, and here A, AAAA, TXT is asked",
    ),
    (
        "rate: 5\n    gso: 16",
        "x.yaml:17: lanes[0].gso: not in a scenario with steps: a burst crosses NAT as one packet",
    ),
]


@pytest.mark.parametrize(("load", "said"), WRONG_LOADS)
def test_what_is_wrong_with_a_load_is_said(load: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        read(WHOLE.replace("rate: 10.5", load, 1))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value), "one mistake, one line"


def test_a_lane_of_fresh_ports_needs_a_rate() -> None:
    with pytest.raises(ScenarioError, match=r"x.yaml:15: lanes\[0\].ports: ports fresh: under a rate of max nothing"):
        read(WHOLE.replace("ports: pool:4\n    rate: 10.5", "ports: fresh\n    rate: max"))


def test_a_pair_weighs_the_same() -> None:
    text = WHOLE.replace("      - a.example\n      - {name: b.example, type: txt, expect: nxdomain}\n", "{}")
    text = text.replace("rate: 10.5", "rate: 10\n    pair: true")
    alike = "      - {name: a.example, weight: 3}\n      - b.example\n"
    assert read(text.replace("{}", alike)).lanes[0].weights == (3, 3, 1, 1)
    odd = "".join(f"      - {{name: a.example, type: {t}, weight: {w}}}\n" for t, w in (("A", 1), ("AAAA", 2)))
    with pytest.raises(
        ScenarioError, match=r"lanes\[0\].pair: a pair is A and AAAA of a name: both must have the same"
    ):
        read(text.replace("{}", odd))


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_what_is_wrong_is_said_with_file_line_key_and_remedy(old: str, new: str, said: str) -> None:
    assert WHOLE.count(old) >= 1
    with pytest.raises(ScenarioError) as caught:
        read(WHOLE.replace(old, new, 1))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value), "one mistake, one line"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x.yaml: empty; a scenario has at least name, duration and lanes"),
        ("# a comment\n", "x.yaml: empty"),
        ("- 1", "x.yaml:1: keys and values are expected here, not a list"),
        ("word", "x.yaml:1: keys and values are expected here, not a text"),
        ("a: 1\n---\na: 1", "x.yaml:2: not valid YAML: "),
        ("? [a]\n: 1", "x.yaml:1: a key must be a plain word"),
        ("name: \x07", "x.yaml:1: not valid YAML: special characters are not allowed"),
        ("a: &a [*a]", "x.yaml:1: nested too deeply; 20 levels are allowed"),
        ("[" * 1_000, "nested too deeply"),
        (
            "a0: &a0 [1,1,1,1,1,1,1,1]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 8}]\n" for i in range(1, 9)),
            "20,000",
        ),
    ],
)
def test_what_is_no_scenario_at_all_is_refused_quickly(text: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        read(text)
    assert said in str(caught.value)


def test_aliases_that_do_not_explode_are_welcome() -> None:
    text = WHOLE.replace("[a.example]", "&q [a.example]") + "x: *q\n"
    with pytest.raises(ScenarioError, match=r"x.yaml:36: x: unknown key"):
        read(text)
    assert read(text.replace("x: *q\n", "")).lanes == read(WHOLE).lanes


def test_several_mistakes_are_said_together() -> None:
    with pytest.raises(ScenarioError) as caught:
        read(WHOLE.replace("rate: 10.5", "rate: x").replace("port: 5300", "port: y"))
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["10", "16"]


def test_settings_are_put_in_and_checked_as_if_they_stood_in_the_file() -> None:
    plan = read(WHOLE, "lab.lameduck=0s", "lanes[1].rate=7", "steps=[{wait: 1s}]", "lab.replicas=5")
    assert (plan.lab.lameduck, plan.lab.replicas) == (0, 5)
    assert plan.lanes[1].rate == 7
    assert plan.steps == (Step("wait", ns=NS),)
    assert plan.scenario.endswith("# --set lab.lameduck=0s\n# --set lanes[1].rate=7\n# --set steps=[{wait: 1s}]\n"
                                  "# --set lab.replicas=5\n")  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lab.lameduk=0s", "--set lab.lameduk=0s: lab.lameduk: unknown key; nearest: lameduck"),
        ("lba.lameduck=0s", "--set lba.lameduck=0s: lba: unknown key; nearest: lab"),
        ("lab.lameduck=soon", "--set lab.lameduck=soon: lab.lameduck: 'soon': a duration is like"),
        ("lanes[2].rate=1", "--set lanes[2].rate=1: the scenario has no 2 there; it has 2 items, counted from 0"),
        ("lanes.rate=1", "--set lanes.rate=1: the scenario has no 'rate' there"),
        ("lab=3", "--set lab=3: lab: keys and values are expected here, not a text"),
        ("lab.lameduck", "--set lab.lameduck: say PATH=VALUE"),
        ("=3", "--set =3: say PATH=VALUE"),
        ("lab..x=3", "--set lab..x=3: say PATH=VALUE"),
        ("lanes=[", "--set lanes:1: not valid YAML"),
    ],
)
def test_a_setting_that_leads_nowhere_is_named(setting: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(WHOLE, setting)
    assert said in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: x\nother: \xe4\n")
    (tmp_path / "big.yaml").write_bytes(b"#" * 300_000)
    table = {
        "none.yaml": "none.yaml: no such file or shipped scenario; `dnsprobe scenarios` lists them",
        "base-line": "base-line: no such file or shipped scenario; nearest: baseline;",
        str(tmp_path): f"{tmp_path}: a directory; a scenario in YAML is expected there",
        f"{tmp_path}/latin.yaml": "latin.yaml:2: not UTF-8 text",
        f"{tmp_path}/big.yaml": "big.yaml: longer than 262,144 octets",
    }
    for path, said in table.items():
        with pytest.raises(UsageError) as caught:
            read_scenario(path)
        assert said in str(caught.value)


def test_the_lab_section_is_the_lab_settings() -> None:
    assert LabSettings(**dict(_Lab())) == LabSettings()
    assert set(_Lab.model_fields) == {field.name for field in dataclasses.fields(LabSettings)}


def test_shipped_scenarios_open_with_what_they_prove_change_and_undo() -> None:
    shipped = shipped_scenarios()
    assert set(shipped) >= {"baseline", "scale-down", "scale-to-zero"}
    for name, file in shipped.items():
        lines = file.read_text().splitlines()
        for line, opening in zip(lines, ("# Proves ", "# Changes: ", "# Undone: "), strict=False):
            assert line.startswith(opening), f"{file}: {line}"
        plan = read_scenario(name)
        assert plan.name == name
        assert planned(expected_series(plan)) >= 600
        assert (lines[1] == "# Changes: nothing.") == (not changes_of(plan.steps))


def test_a_step_that_changes_the_cluster_says_how_it_is_undone() -> None:
    assert {word for word, kind in STEPS.items() if kind.changes} == STEPS.keys() - {"wait", "wait_for", "mark"}
    for kind in STEPS.values():
        assert kind.help
        assert bool(kind.undo) == kind.changes


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("30s", 30 * NS),
        ("30", 30 * NS),
        ("0.5", NS // 2),
        ("1m30s", 90 * NS),
        ("250us", 250_000),
        ("0", 0),
        ("2h", 7200 * NS),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 s", "1e3", "5 min", "\u0661s", "1s1", "nan", "99999999999999"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        duration_ns(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("5", Fraction(5)), ("0.25", Fraction(1, 4)), ("33.3333", Fraction(100, 3))]
)
def test_rates(text: str, rate: Fraction) -> None:
    assert rate_of(text) == rate
    assert rate_of(text).denominator <= 1000


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e3", "1000001", "0.0001", "1_0"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(UsageError):
        rate_of(text)
