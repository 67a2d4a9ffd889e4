"""Limits of the load on others: each refused before the first query, with the numbers and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from probe.cluster import Extent
from probe.cluster.kube.corefile import read_corefile
from probe.errors import EnvironmentProblem, UsageError
from probe.model import NS, WHOLE, Lane, Ports, Question, Series, Slice, Target, TargetKind
from probe.scenario.limits import Limits, check_ceiling, nodes_of
from probe.scenario.plan import Plan, expected_series, first_series, rated
from tests.apiserver import ApiServer
from tests.kube_objects import COREFILE, config_map
from tests.test_cli import told
from tests.test_kube import kubeadm

VIP = Target("kube-dns", TargetKind.SERVICE, "10.96.0.10")
PODS = [Target(f"coredns-{n}", TargetKind.POD, f"10.244.0.{n}") for n in (2, 3, 4)]
UPSTREAM = Target("upstream", TargetKind.UPSTREAM, "192.0.2.53")
NEAR = Target("kube-dns", TargetKind.SERVICE, "127.53.0.10")
INSIDE, OUTSIDE = "kubernetes.default.svc.cluster.local", "example.com"


def lane(
    name: str, rate: int, *names: str, to: str = "service", ports: str = "pool:4", by: str = "udp", pair: bool = False
) -> Lane:
    types = ("A", "AAAA") if pair else ("A",)
    questions = tuple(Question.of(n, qtype) for n in names or (INSIDE,) for qtype in types)
    return Lane(name, to, by, Ports.parse(ports, by), Fraction(rate), 2 * NS, questions, pair=pair)


def asked(*lanes: Lane, vip: Target = VIP, share: Slice = WHOLE) -> list[Series]:
    there = {"service": [vip], "pods": PODS, "upstream": [UPSTREAM]}
    return first_series(Plan("p", NS, lanes, share=share), lambda selector: there[selector])


@pytest.mark.parametrize(
    ("limits", "lanes", "said"),
    [
        (Limits(), [lane("a", 1000)], ""),
        (Limits(), [lane("a", 1001)], ("1,001 q/s in all towards other machines; 1,000 q/s is the ceiling that protects"
         " them: lower the rate, or raise it with --max-qps 1001")),
        (Limits(), [lane("a", 250), lane("b", 250), lane("c", 250), lane("d", 251)], "1,001 q/s in all towards"),
        (Limits(), [lane("a", 334, to="pods")], "1,002 q/s in all towards"),
        (Limits(total=Fraction(1002)), [lane("a", 334, to="pods")], ""),
        (Limits(total=None), [lane("a", 5000)], ""),
        (Limits(nodes=20), [lane("a", 50)], ""),
        (Limits(nodes=21), [lane("a", 50)], "1,050 q/s in all over 21 nodes towards other machines; 1,000 q/s is"),
        (Limits(), [lane("a", 10, INSIDE, OUTSIDE)], ""),
        (Limits(), [lane("a", 11, INSIDE, OUTSIDE)], ("lane a: 11 q/s for what upstream servers have to answer, which"
         " others own; 10 q/s a lane is the limit: lower its rate, or raise the limit with --max-external-qps 11")),
        (Limits(), [lane("a", 10, OUTSIDE), lane("b", 10, to="upstream")], ""),
        (Limits(), [lane("up", 11, to="upstream")], "lane up: 11 q/s for what upstream servers have to answer"),
        (Limits(), [lane("a", 4, OUTSIDE, to="pods")], "lane a: 12 q/s for what upstream servers"),
        (Limits(nodes=3), [lane("a", 4, OUTSIDE)], "lane a: 12 q/s over 3 nodes for what upstream servers"),
        (Limits(external=Fraction(12)), [lane("a", 12, OUTSIDE)], ""),
        (Limits(zones=("corp.example",)), [lane("a", 11)], "lane a: 11 q/s for what upstream"),
        (Limits(zones=("corp.example",)), [lane("a", 11, "Db.Corp.Example")], ""),
        (Limits(), [lane("a", 11, "10.0.96.10.in-addr.arpa", "{random}.default.svc.cluster.local")], ""),
        (Limits(), [lane("a", 11, "notcluster.local")], "lane a: 11 q/s"),
        (Limits(tracked=65536), [lane("a", 109, ports="fresh")], ""),
        (Limits(tracked=65536), [lane("a", 110, ports="fresh")], ("new source ports would hold 3,300 flows in this"
         " machine's conntrack table, most of them of lane a; 3,276, 5% of its 65,536, is the limit, for a full table"
         " drops everybody's packets: ask at 99% of these rates, or from ports pool:64")),
        (Limits(tracked=65536), [lane("a", 500)], ""),
        (Limits(tracked=65536), [lane("a", 60, ports="fresh"), lane("b", 60, ports="fresh")], "would hold 3,600 flows"),
        (Limits(tracked=65536), [lane("a", 50, ports="fresh", to="pods")], "would hold 4,500 flows"),
        (Limits(tracked=65536), [lane("a", 27, ports="fresh", by="tcp")], ""),
        (Limits(tracked=65536), [lane("a", 28, ports="fresh", by="tcp")], "would hold 3,360 flows"),
        (Limits(tracked=65536), [lane("a", 56, ports="fresh", pair=True)], "would hold 3,360 flows"),
        (Limits(), [lane("a", 900, ports="fresh")], ""),
    ],
)  # fmt: skip
def test_what_is_too_much_is_refused(limits: Limits, lanes: list[Lane], said: str) -> None:
    if not said:
        limits.check(asked(*lanes))
        return
    with pytest.raises(UsageError) as refused:
        limits.check(asked(*lanes))
    assert said in str(refused.value)


def test_loopback_is_exempt() -> None:
    fast = [lane("a", 5000, ports="fresh"), lane("b", 100, OUTSIDE)]
    Limits(tracked=1000).check(asked(*fast, vip=NEAR))


def test_shards_share_the_ceiling_but_each_has_a_conntrack_table() -> None:
    for n in range(4):
        share = Slice(n, 4)
        with pytest.raises(UsageError, match=r"1,001 q/s in all towards other machines"):
            check_ceiling(asked(lane("a", 1001), share=share), Fraction(1000))
        Limits(tracked=65536).check(asked(lane("a", 400, ports="fresh"), share=share))
    with pytest.raises(UsageError, match="would hold 12,000 flows"):
        Limits(tracked=65536).check(asked(lane("a", 400, ports="fresh")))


def test_nodes_that_count_are_said_or_seen() -> None:
    assert (nodes_of("7"), nodes_of("every")) == (7, 0)
    with pytest.raises(UsageError, match=r"^DNSPROBE_NODES='many': how many nodes ask the same, or `every`, is"):
        nodes_of("many")
    every = Limits(nodes=0)
    assert every.within(Extent(5, ("k8s.example",))) == Limits(nodes=5, zones=("k8s.example",))
    assert Limits(nodes=3).within(Extent(5)) == Limits(nodes=3)
    with pytest.raises(EnvironmentProblem, match="DNSPROBE_NODES=every: the cluster's nodes cannot be seen: say how"):
        every.within(Extent())


def test_lanes_that_say_no_rate_share_50_a_second() -> None:
    series = asked(lane("vip", 0), lane("pods", 0, to="pods"), lane("up", 5, to="upstream"))
    rates = {s.channel: s.rate for s in series}
    assert rates == {**{("pods", pod.name): Fraction(25, 2) for pod in PODS}, ("vip", "kube-dns"): Fraction(25, 2),
                     ("up", "upstream"): 5}  # fmt: skip
    plan = Plan("p", NS, (lane("vip", 0),))
    assert rated(plan, lambda _: []).lanes[0].rate == 50
    assert sum(s.rate for s in expected_series(plan)) == 50


@pytest.mark.parametrize(
    ("line", "logs"),
    [
        ("log", True),
        ("log . {remote}", True),
        ("log {\n class all\n }", True),
        ("log . {combined} {\n class denial error\n }", False),
        ("log example.org", False),
        ("errors", False),
        ("# log", False),
    ],
)
def test_a_corefile_that_logs_every_query(line: str, logs: bool) -> None:
    read = read_corefile(COREFILE.replace("    errors\n", f"    {line}\n"))
    assert (read.logs, read.zones) == (logs, ("cluster.local", "in-addr.arpa", "ip6.arpa"))
    assert read_corefile("corp.example:53 {\n kubernetes\n}\n").zones == ("corp.example",)


# -- on the command line

FAR = "run -s 192.0.2.1 --dry-run"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"{FAR} -Q 1001 --ports pool:64", 2, "dnsprobe: 1,001 q/s in all towards other machines; 1,000 q/s is"),
        (f"{FAR} -Q 1001 --ports pool:64 --shard 0/4", 2, "protects them: lower the rate, or raise it with --max-qps"),
        (f"{FAR} -Q 1001 --ports pool:64 --shard 3/4", 2, "1,001 q/s in all towards other machines"),
        (f"{FAR} -s 192.0.2.2 -s 192.0.2.3 -s 192.0.2.4 -Q 250.25 --ports pool:64", 2, "1,001 q/s in all"),
        (f"{FAR} -Q 1001 --ports pool:64 --shard 0/4 --max-qps 1001", 0, ""),
        (f"{FAR} -Q 4001 --ports fresh --max-qps 5000", 2, "drops everybody's packets: ask at"),
        ("run -s 127.0.0.1 -Q 4001 --ports fresh --dry-run", 0, ""),
        (f"{FAR} --max-external-qps some", 2, "--max-external-qps 'some': a rate is a number"),
    ],
)  # fmt: skip
def test_a_load_is_refused_before_anything_starts(
    command: str, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.cli.run.most_tracked", lambda: 262_144)
    exit_code, _, err = told(command, capsys)
    assert (exit_code, said in err) == (code, True), err


def test_a_job_s_shards_and_a_daemon_set_s_nodes_count(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    monkeypatch.setenv("JOB_COMPLETIONS", "4")
    code, _, err = told(f"{FAR} -Q 1001 --ports pool:64", capsys)
    assert (code, "1,001 q/s in all towards" in err) == (2, True)
    monkeypatch.setenv("DNSPROBE_NODES", "40")
    code, _, err = told(f"{FAR} -Q 50 --ports pool:64", capsys)
    assert (code, "2,000 q/s in all over 40 nodes towards other machines; 1,000 q/s is" in err) == (2, True)


SCENARIO = """
name: real
duration: 10s
lanes:
  - {name: vip-udp, target: service, ports: pool:4, questions: [kubernetes.default.svc.cluster.local]}
  - {name: pods, target: pods, ports: pool:4, rate: RATE, questions: [NAME]}
"""


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    # Loopback is exempt; nobody is asked here, so that pods may be elsewhere.
    server = ApiServer(*json.loads(json.dumps(kubeadm()).replace("127.244.", "10.244.")))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    monkeypatch.chdir(tmp_path)
    yield server
    server.stop()


def dry(rate: str, name: str, words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    Path("it.yaml").write_text(SCENARIO.replace("RATE", rate).replace("NAME", name))
    return told(f"run it.yaml --dry-run {words}", capsys)


def test_a_dry_run_shows_the_clusters_own_targets(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dry("20", INSIDE, "", capsys)
    assert code == 0
    assert re.search(r"vip-udp +kube-dns +udp pool:4 +A AAAA +50 +500", out)
    assert re.search(r"pods +2 pods +udp pool:4 +A AAAA +20 +400", out)
    api.stop()
    code, out, _ = dry("20", INSIDE, "", capsys)
    assert code == 0
    assert re.search(r"Targets are the lab's, for the cluster's cannot be seen: .* cannot\s+be\s+reached", out)


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("rate", "name", "words", "said"),
    [
        ("476", INSIDE, "", "1,002 q/s in all towards other machines; 1,000 q/s is the ceiling"),
        ("6", OUTSIDE, "", "lane pods: 12 q/s for what upstream servers have to answer"),
        ("6", OUTSIDE, "--max-external-qps 12", ""),
    ],
)
def test_what_a_cluster_is_decides_how_much_a_load_is(
    rate: str, name: str, words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = dry(rate, name, words, capsys)
    assert (code, said in err) == (2 if said else 0, True), err


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("rate", "words", "said"),
    [
        ("8", "", ""),
        (
            "10",
            "",
            "1,030 q/s in all (clients' lookups: up to 960 q/s) towards other machines; 1,000 q/s is the ceiling",
        ),
        ("10", "--max-qps 1030", ""),
        ("4", "--shard 0/2", ""),
        ("5", "--shard 0/2", "1,030 q/s in all (clients' lookups: up to 960 q/s) towards other machines"),
    ],
)
def test_what_clients_look_up_counts_with_all_its_tries(
    rate: str, words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four profiles, A and AAAA, four names for one, three tries."""
    profiles, search = "[glibc, musl, go, c-ares]", "[a.example, b.example, c.example]"
    asking = f"clients: {{profiles: {profiles}, names: [api], rate: {rate}, search: {search}}}\n"
    Path("it.yaml").write_text(SCENARIO.replace("RATE", "10").replace("NAME", INSIDE) + asking)
    code, _, err = told(f"run it.yaml --dry-run {words}", capsys)
    assert (code, said in err) == (2 if said else 0, True), err


def test_every_ready_node_counts_where_each_asks_the_same(
    api: ApiServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DNSPROBE_NODES", "every")
    code, _, err = dry("250", INSIDE, "", capsys)
    assert (code, "1,100 q/s in all over 2 nodes towards other machines" in err) == (2, True), err
    api.refuse = lambda path: 403 if path.partition("?")[0].endswith("/nodes") else 0
    code, _, err = dry("1", INSIDE, "", capsys)
    assert (code, "DNSPROBE_NODES=every: the cluster's nodes cannot be seen: say how many there are" in err) == (
        4,
        True,
    )


def test_a_corefile_that_logs_every_query_is_told_before_the_first(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(config_map(Corefile=COREFILE.replace("    errors\n", "    errors\n    log\n")))
    Path("it.yaml").write_text(SCENARIO.replace("RATE", "2000").replace("NAME", INSIDE))
    code, _, err = told("run it.yaml", capsys)
    assert code == 2, "its load is refused, so that nothing is asked here"
    assert "note: its Corefile logs every query (plugin log)" in err
