"""Plans: lanes x targets -> series whose rates, phases and counts add up; ad hoc options -> a plan."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from probe.book import Book
from probe.cluster.settings import LabSettings
from probe.errors import DnsprobeError, EnvironmentProblem, UsageError
from probe.model import NS, Edns, Lane, Leg, Ports, Question, Shape, Target, TargetKind
from probe.scenario.adhoc import Options, plan_of
from probe.scenario.file import read_scenario_text
from probe.scenario.limits import check_ceiling
from probe.scenario.plan import (
    Plan,
    check_load,
    expected_series,
    first_series,
    planned,
    planned_text,
    series_of,
)
from probe.scenario.quantity import MAX_RATE
from probe.schedule import pacer_of

ONE = Target("one", TargetKind.SERVER, "127.0.0.1", 5300)
FAR = Target("far", TargetKind.SERVER, "192.0.2.1")


def lane(*types: str, rate: Fraction = Fraction(100), target: str = "servers", name: str = "lane") -> Lane:
    questions = tuple(Question.of(f"n{i}.example", qtype) for i, qtype in enumerate(types))
    return Lane(name, target, "udp", Ports("fresh"), rate, 2 * NS, questions)


@pytest.mark.parametrize(
    ("types", "rate", "shares"),
    [
        # questions of a lane, its rate -> the rate of each type's series
        (("A",), Fraction(100), {"A": Fraction(100)}),
        (("A", "AAAA"), Fraction(100), {"A": Fraction(50), "AAAA": Fraction(50)}),
        (("A", "AAAA", "A"), Fraction(100), {"A": Fraction(200, 3), "AAAA": Fraction(100, 3)}),
        (("A", "AAAA"), Fraction(1, 1000), {"A": Fraction(1, 1000), "AAAA": Fraction(1, 1000)}),
    ],
)
def test_a_lane_shares_its_rate_by_questions(
    types: tuple[str, ...], rate: Fraction, shares: dict[str, Fraction]
) -> None:
    series = series_of(lane(*types, rate=rate), ONE, 0, 0, 10 * NS)
    assert {s.qtype: s.rate for s in series} == shares
    assert all(s.rate.denominator <= 1000 for s in series)


def test_questions_of_a_type_share_a_series_in_order() -> None:
    a, aaaa = series_of(lane("A", "AAAA", "A", "A"), ONE, 7, 5 * NS, 10 * NS)
    assert [q.name for q in a.questions] == ["n0.example", "n2.example", "n3.example"]
    assert [q.name for q in aaaa.questions] == ["n1.example"]
    assert (a.index, aaaa.index) == (7, 8)
    assert (a.start_ns, a.stop_ns, a.timeout_ns) == (5 * NS, 10 * NS, 2 * NS)
    assert a.channel == aaaa.channel == ("lane", "one")


def test_a_lane_shares_its_rate_by_weight() -> None:
    weighed = replace(lane("A", "AAAA", "A"), weights=(5, 2, 1))
    a, aaaa = series_of(weighed, ONE, 0, 0, NS)
    assert (a.rate, a.weights) == (Fraction(75), (5, 1))
    assert (aaaa.rate, aaaa.weights) == (Fraction(25), (2,))
    assert [s.weights for s in series_of(lane("A", "AAAA"), ONE, 0, 0, NS)] == [(), ()]


def test_a_series_of_many_names_is_a_book(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("".join(f"n{i}.example {'AAAA' if i % 10 == 9 else 'A'}\n" for i in range(10_000)))
    (only,) = plan_of(Options(["127.0.0.1"], datafile=str(file))).lanes
    a, aaaa = series_of(only, ONE, 0, 0, NS)
    assert isinstance(a.questions, Book)
    assert isinstance(aaaa.questions, Book)
    assert (a.qtype, a.rate, len(a.questions)) == ("A", Fraction(90), 9_000)
    assert (aaaa.qtype, aaaa.rate, len(aaaa.questions)) == ("AAAA", Fraction(10), 1_000)
    assert [q.name for q in aaaa.questions[:2]] == ["n9.example", "n19.example"]


def test_no_two_series_are_due_together() -> None:
    series = [s for k in range(32) for s in series_of(lane("A"), ONE, k, 0, NS)]
    firsts = sorted(pacer_of(s).take(NS, 1)[0] for s in series)
    period = NS // 100
    assert firsts[0] >= 0
    assert firsts[-1] < period
    assert min(b - a for a, b in pairwise(firsts)) > period // 100


def test_planned_is_rate_x_time() -> None:
    plan = Plan("p", 10 * NS, (lane("A", "AAAA", rate=Fraction(250)),), servers=(ONE, FAR))
    assert planned(expected_series(plan)) == 2 * 250 * 10


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (Shape(), "2,000"),
        (Shape(legs=(Leg(10 * NS, Fraction(0), Fraction(1)),)), "1,000"),
        (Shape("max", window=100), "as fast as replies allow"),
        (Shape("max", window=4, pause_ns=NS // 10), "up to 400"),
    ],
)
def test_what_is_planned_is_told(shape: Shape, text: str) -> None:
    shaped = replace(lane("A", "AAAA", rate=Fraction(200)), shape=shape)
    series = expected_series(Plan("p", 10 * NS, (shaped,), servers=(ONE,)))
    assert planned_text(series) == text
    more = series_of(lane("A"), ONE, 0, 0, NS)
    if text.startswith("as"):
        assert planned_text([*series, *more]) == f"100 and, {text}, more"


def test_the_types_of_a_lane_share_its_window_and_draw_their_own_arrivals() -> None:
    a, aaaa = series_of(replace(lane("A", "AAAA"), shape=Shape("max", window=5)), ONE, 0, 0, NS)
    assert (a.shape.window, aaaa.shape.window) == (2, 2)
    a, aaaa = series_of(replace(lane("A", "AAAA"), shape=Shape("poisson", seed=7)), ONE, 3, 0, NS)
    assert (a.shape.seed, aaaa.shape.seed) == (10, 11)


@pytest.mark.parametrize("shape", [Shape(), Shape("poisson"), Shape(legs=(Leg(NS, Fraction(0), Fraction(1)),))])
def test_a_and_aaaa_of_a_pair_are_due_together_a_first(shape: Shape) -> None:
    paired = replace(lane("AAAA", "A", rate=Fraction(100)), pair=True, shape=shape)
    a, aaaa = series_of(paired, ONE, 4, 0, 5 * NS)
    assert (a.qtype, a.index, aaaa.qtype, aaaa.index) == ("A", 4, "AAAA", 5)
    assert pacer_of(a).take(5 * NS).tolist() == pacer_of(aaaa).take(5 * NS).tolist()


def test_lanes_select_their_targets() -> None:
    pods = [Target(f"pod-{n}", TargetKind.POD, f"127.53.0.{n}") for n in (1, 2)]
    vip = Target("kube-dns", TargetKind.SERVICE, "127.53.0.10")
    lanes = tuple(lane("A", target=t, name=t) for t in ("service", "pods", "servers", "far"))
    series = first_series(Plan("p", NS, lanes, servers=(ONE, FAR)), {"service": [vip], "pods": pods}.__getitem__)
    assert [(s.lane, s.target.name) for s in series] == [
        ("service", "kube-dns"),
        ("pods", "pod-1"),
        ("pods", "pod-2"),
        ("servers", "one"),
        ("servers", "far"),
        ("far", "far"),
    ]
    assert [s.index for s in series] == list(range(6))


def test_a_lane_with_nobody_to_ask_is_an_environment_problem() -> None:
    with pytest.raises(EnvironmentProblem, match="lane lane: nothing stands behind target pods"):
        first_series(Plan("p", NS, (lane("A", target="pods"),)), lambda _: [])


def test_a_dry_run_expects_the_labs_pods() -> None:
    plan = Plan("p", NS, (lane("A", target="pods"),), lab=LabSettings(replicas=4))
    assert len(expected_series(plan)) == 4


def test_the_ceiling_protects_all_but_loopback() -> None:
    fast = lane("A", rate=Fraction(1001))
    near = expected_series(Plan("p", NS, (fast,), servers=(ONE,)))
    far = expected_series(Plan("p", NS, (fast,), servers=(FAR,)))
    check_ceiling(near, Fraction(1000))
    check_ceiling(far, Fraction(1001))
    with pytest.raises(UsageError, match=r"1,001 q/s in all .* 1,000 q/s is the ceiling .* --max-qps 1001"):
        check_ceiling(far, Fraction(1000))


@pytest.mark.parametrize(
    ("overloaded", "said"),
    [
        # ports and rate of the second lane of two -> what a person reads
        ("ports: fixed\n    rate: 20000", "x.yaml:9: lanes[1]: lane b: 20,000 q/s on 1 source port"),
        ("ports: fixed\n    rate: 20000", "say ports: pool:2, or a shorter timeout"),
        ("ports: fresh\n    rate: 500000", "x.yaml:9: lanes[1]: rate x timeout needs up to 1,0"),
        ("ports: fresh\n    rate: 500000", "or use ports: pool:64"),
    ],
)
def test_a_load_that_cannot_be_carried_is_refused_with_its_lanes_line(overloaded: str, said: str) -> None:
    head = "name: x\nduration: 1s\nlanes:\n"
    lanes = [
        f"  - name: {name}\n    target: service\n    {what}\n    questions: [a.example]\n"
        for name, what in (("a", "ports: fresh\n    rate: 10"), ("b", overloaded))
    ]
    with pytest.raises(DnsprobeError) as caught:
        check_load(read_scenario_text("x.yaml", head + "".join(lanes), []))
    assert said in str(caught.value)


def test_as_fast_as_replies_allow_is_for_loopback_unless_a_person_says_otherwise() -> None:
    fast = replace(lane("A"), ports=Ports("pool", 64), rate=Fraction(MAX_RATE), shape=Shape("max", window=100))
    near = expected_series(Plan("p", NS, (fast,), servers=(ONE,)))
    far = expected_series(Plan("p", NS, (fast,), servers=(ONE, FAR)))
    check_ceiling(near, Fraction(1000))
    check_ceiling(far, None)
    with pytest.raises(UsageError, match=r"lane lane: as fast as replies allow, towards far .* --max-qps max"):
        check_ceiling(far, Fraction(1_000_000))


def test_a_closed_loop_with_a_pause_counts_with_what_it_comes_to_at_the_most() -> None:
    slow = replace(lane("A", "AAAA"), shape=Shape("max", window=5, pause_ns=NS // 100))
    far = expected_series(Plan("p", NS, (slow, lane("A", rate=Fraction(600), name="other")), servers=(FAR,)))
    assert [(s.shape.window, int(s.rate)) for s in far] == [(2, 200), (2, 200), (0, 600)]
    check_ceiling(far, Fraction(1000))
    with pytest.raises(UsageError, match=r"1,000 q/s in all .* raise it with --max-qps 1000"):
        check_ceiling(far, Fraction(999))


def test_a_ceiling_and_the_limits_go_by_the_highest_rate() -> None:
    legs = (Leg(NS, Fraction(1, 100), Fraction(1)), Leg(NS, Fraction(1), Fraction(1, 100)))
    far = expected_series(
        Plan("p", NS, (replace(lane("A", rate=Fraction(1001)), shape=Shape(legs=legs)),), servers=(FAR,))
    )
    with pytest.raises(UsageError, match="1,001 q/s in all"):
        check_ceiling(far, Fraction(1000))


@pytest.mark.parametrize(
    ("lameduck", "pre_stop", "grace", "cut"),
    [(5, 0, 30, False), (100, 0, 1, True), (20, 15, 30, True), (30, 0, 30, False), (2, 0, 0, False), (2.1, 0, 0, True)],
)
def test_a_lameduck_that_sigkill_cuts_is_noted(lameduck: float, pre_stop: float, grace: float, *, cut: bool) -> None:
    lab = LabSettings(lameduck=lameduck, pre_stop=pre_stop, grace_period=grace)
    notes = Plan("p", NS, (lane("A", target="pods"),), lab=lab).notes
    assert [note.partition(":")[0] for note in notes] == ["SIGKILL cuts the lameduck"] * cut
    assert Plan("p", NS, (lane("A"),), servers=(ONE,), lab=lab).notes == []


def test_ad_hoc_defaults() -> None:
    plan = plan_of(Options(["127.0.0.1"]))
    (only,) = plan.lanes
    assert (only.name, only.transport, str(only.ports)) == ("udp-fresh", "udp", "fresh")
    assert (only.rate, only.timeout_ns) == (Fraction(100), 2 * NS)
    assert only.questions == (Question.of("kubernetes.default.svc.cluster.local", "A"),)
    assert plan.duration_ns == 10 * NS
    assert plan.servers == (Target("127.0.0.1", TargetKind.SERVER, "127.0.0.1", 53),)
    assert plan.cluster_needs == []


@pytest.mark.parametrize(
    ("options", "name", "ports", "fact"),
    [
        (Options(["::1"], rate="5000"), "udp-fresh", "fresh", "fresh (the default up to 5,000 q/s)"),
        (Options(["::1"], rate="5001"), "udp-pool", "pool:64", "pool:64 (the default above 5,000 q/s)"),
        (
            Options(["::1"], rate="5001", transport="tcp"),
            "tcp-reused",
            "reused",
            "reused (the default above 5,000 q/s)",
        ),
        (Options(["::1"], transport="TCP"), "tcp-fresh", "fresh", "fresh (the default up to 5,000 q/s)"),
        (Options(["::1"], rate="9000", ports="fresh"), "udp-fresh", "fresh", "fresh (as asked)"),
        (Options(["::1"], ports="pool:8"), "udp-pool", "pool:8", "pool:8 (as asked)"),
    ],
)
def test_ad_hoc_ports_and_the_fact_that_says_which(options: Options, name: str, ports: str, fact: str) -> None:
    plan = plan_of(options)
    assert (plan.lanes[0].name, str(plan.lanes[0].ports), plan.facts["ports"]) == (name, ports, fact)


def test_ad_hoc_servers_names_and_types() -> None:
    plan = plan_of(
        Options(["127.0.0.1", "[::1]", "localhost"], port="5353", names=["a.example", "b.example"], types=["A", "mx"])
    )
    assert [str(t) for t in plan.servers] == ["127.0.0.1 (127.0.0.1:5353)", "::1 ([::1]:5353)"]
    asked = [(q.name, q.qtype) for q in plan.lanes[0].questions]
    assert asked == [("a.example", "A"), ("a.example", "MX"), ("b.example", "A"), ("b.example", "MX")]


def test_ad_hoc_search_list_and_edns() -> None:
    options = Options(["::1"], names=["db", "a.test."], search=["svc.test", "test."], ndots="1", dnssec=True, nsid=True)
    (only,) = plan_of(options).lanes
    assert [q.name for q in only.questions] == ["db.svc.test", "db.test", "db", "a.test."]
    assert {q.edns for q in only.questions} == {Edns(1232, do=True, nsid=True)}
    (other,) = plan_of(replace(options, ndots="0", search=["test"], edns="4096", nsid=False, dnssec=False)).lanes
    assert [q.name for q in other.questions] == ["db", "db.test", "a.test."]
    assert {q.edns for q in other.questions} == {Edns(4096)}


def test_ad_hoc_names_that_change() -> None:
    (only,) = plan_of(Options(["::1"], names=["{random}.test", "x{number}.cluster.local"])).lanes
    assert [q.name for q in only.questions] == ["{random}.test", "x{number}.cluster.local"]
    assert plan_of(Options(["::1"], names=["{random}.dnsprobe.dev"], external=True)).lanes


@pytest.mark.parametrize(
    ("options", "rate", "shape", "seconds"),
    [
        (Options(["::1"]), 100, Shape(), 10),
        (Options(["::1"], rate="20", arrivals="poisson"), 20, Shape("poisson"), 10),
        (Options(["::1"], rate="MAX"), MAX_RATE, Shape("max", window=200), 10),
        (Options(["::1"], rate="max", max_inflight="80"), MAX_RATE, Shape("max", window=80), 10),
        (Options(["::1"], ramp="10:500:30"), 500, Shape(legs=(Leg(30 * NS, Fraction(1, 50), Fraction(1)),)), 30),
        (
            Options(["::1"], ramp="8:0.5:1m", length="90", arrivals="poisson"),
            8,
            Shape("poisson", (Leg(60 * NS, Fraction(1), Fraction(1, 16)),)),
            90,
        ),
        (Options(["::1"], ramp="0:6000:2.5"), 6000, Shape(legs=(Leg(5 * NS // 2, Fraction(0), Fraction(1)),)), 2.5),
    ],
)
def test_ad_hoc_shapes(options: Options, rate: int, shape: Shape, seconds: float) -> None:
    plan = plan_of(options)
    (only,) = plan.lanes
    assert (int(only.rate), only.shape, plan.duration_ns / NS) == (rate, shape, seconds)
    assert (str(only.ports) == "pool:64") == (rate > 5000)
    assert plan.unplanned == ("as fast as replies allow" if rate == MAX_RATE else "")


def test_ad_hoc_pairs_and_bursts() -> None:
    (only,) = plan_of(Options(["::1"], names=["a.test", "b.test"], pair=True, ports="pool:8", gso="16")).lanes
    assert (only.pair, only.gso) == (True, 16)
    assert [(q.name, q.qtype) for q in only.questions][:2] == [("a.test", "A"), ("a.test", "AAAA")]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("a.test A\na.test AAAA\nb.test AAAA\nb.test A\n", ""),
        ("a.test A\na.test AAAA\nb.test AAAA\n", "b.test is not asked as both"),
        ("a.test A\nb.test A\nb.test AAAA\na.test AAAA\n", "a.test is not asked as both, in the same order"),
        ("".join(f"n{i}.test A\nn{i}.test AAAA\n" for i in range(5000)), ""),
        ("".join(f"n{i}.test A\nn{i % 4999}.test AAAA\n" for i in range(5000)), "n4999.test is not asked as both"),
    ],
)
def test_pairs_of_a_data_file(lines: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(lines)
    options = Options(["::1"], datafile=str(tmp_path / "names.txt"), pair=True)
    if not said:
        assert plan_of(options).lanes[0].pair
        return
    with pytest.raises(UsageError, match=said):
        plan_of(options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(["dns.example"]), "-s 'dns.example': not an IP address; a server is given by address"),
        (Options(["127.0.0.1:53"]), "-s '127.0.0.1:53': not an IP address: the port goes to -p 53"),
        (Options(["[::1]:53"]), "-s '[::1]:53': not an IP address: the port goes to -p 53"),
        (Options(["255.255.255.255"]), "-s '255.255.255.255': not the address of one host"),
        (Options(["ff02::1"]), "-s 'ff02::1': not the address of one host"),
        (Options(["0.0.0.0"]), "-s '0.0.0.0': not the address of one host"),
        (Options(["::1"], port="0"), "-p '0': a port is a whole number from 1 to 65535"),
        (Options(["::1"], rate="-5"), "-Q '-5': a rate is a number of queries a second from 0.001 to 1,000,000"),
        (
            Options(["::1"], rate="fast"),
            "-Q 'fast': a rate is a number of queries a second from 0.001 to 1,000,000, or max",
        ),
        (Options(["::1"], rate="5", ramp="1:2:3"), "--ramp gives the rate itself: leave out -Q 5"),
        (Options(["::1"], ramp="1:2"), "--ramp '1:2': say FROM:TO:SECONDS, e.g. 10:500:30"),
        (Options(["::1"], ramp="1:0:5"), "--ramp '0': a rate is a number of queries a second from 0.001"),
        (Options(["::1"], ramp="1:2:soon"), "--ramp 'soon': a duration is like 500ms, 30s, 1m30s, or plain seconds"),
        (Options(["::1"], ramp="1:2:30", length="20"), "--ramp takes 30 s, but the run lasts 20 s: run longer"),
        (Options(["::1"], arrivals="bursty"), "--arrivals 'bursty': say even or poisson"),
        (Options(["::1"], rate="max", arrivals="poisson"), "--arrivals 'poisson': goes with a rate: under max a query"),
        (Options(["::1"], max_inflight="50"), "-q '50': there is no limit on outstanding queries"),
        (Options(["::1"], rate="max", max_inflight="0"), "-q '0': the number of queries outstanding is a"),
        (
            Options(["::1"], rate="max", ports="fresh"),
            "ports fresh: under a rate of max nothing bounds how many a second",
        ),
        (
            Options(["::1"], gso="16"),
            "--gso 16: only with ports pool:K or a rate of max: a burst crosses NAT as one packet",
        ),
        (Options(["::1"], gso="65", ports="pool:2"), "--gso '65': the number of queries in a burst is a whole number"),
        (Options(["::1"], gso="16", transport="tcp"), "--gso 16: bursts are for udp: tcp joins queries by itself"),
        (Options(["::1"], pair=True, types=["A"]), "--pair: a pair is A and AAAA of a name, and here A is asked"),
        (
            Options(["::1"], pair=True, types=["A", "AAAA", "TXT"]),
            "and here A, AAAA, TXT is asked: say types A and AAAA",
        ),
        (Options(["::1"], pair=True, transport="tcp"), "--pair: pairs are for udp"),
        (Options(["::1"], pair=True, rate="max"), "--pair: pairs need a schedule: say a rate instead of max"),
        (Options(["::1"], length="0"), "-l '0': a duration from 100ms to 24h is allowed here"),
        (Options(["::1"], timeout="0"), "-t '0': a duration from 1ms to 1m is allowed here"),
        (Options(["::1"], transport="dot"), "-m 'dot': say udp or tcp"),
        (Options(["::1"], ports="many"), "ports 'many': for udp say fresh, fixed or pool:K"),
        (Options(["::1"], transport="tcp", ports="fixed"), "ports 'fixed': for tcp say fresh"),
        (Options(["::1"], names=[""]), "name '': empty; the root is `.`"),
        (Options(["::1"], names=["a" * 64]), "has 64 octets, 63 are allowed"),
        (Options(["::1"], types=["HOST"]), "type 'HOST': not a DNS type"),
        (Options(["::1"], expect="luck"), "expect 'luck': say answer, nodata, nxdomain"),
        (Options(["::1"], datafile="x", names=["a.example"]), "-d gives names and types itself"),
        (Options(["::1"], search=["a..b"]), "--search name 'a..b': an empty label"),
        (Options(["::1"], search=["."]), "--search '.': empty; the name itself is always asked, too"),
        (Options(["::1"], ndots="1"), "--ndots '1': goes with --search"),
        (
            Options(["::1"], search=["test"], ndots="five"),
            "--ndots 'five': the number of dots is a whole number from 0",
        ),
        (Options(["::1"], edns="100"), "--edns '100': the size of UDP replies is a whole number from 512 to 65535"),
        (Options(["::1"], names=["{random}.dnsprobe.dev"]), "the servers of dnsprobe.dev: if they may be loaded, say"),
        (Options(["::1"], names=["{rnd}.test"]), "name '{rnd}.test': a label that changes is one {random} or one"),
    ],
)
def test_ad_hoc_mistakes_name_option_and_value(options: Options, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(options)
    assert said in str(caught.value)
