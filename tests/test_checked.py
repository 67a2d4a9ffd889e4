"""What paths answered -> the likely cause, the next command and the exit code: a row for each rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from probe.advice.checkup import ApiServer, Checkup, Path, State
from probe.diagnosis import RULES
from probe.diagnosis.checked import CAUSES, causes_of, exit_code_of
from probe.model import Target, TargetKind
from probe.outcome import Outcome
from probe.report.check import WIDTH, check_text, headline
from probe.resolv import ResolvConf

KINDS = {
    "service": Target("kube-dns", TargetKind.SERVICE, "10.96.0.10"),
    "pod-a": Target("coredns-a", TargetKind.POD, "10.244.0.2"),
    "pod-b": Target("coredns-b", TargetKind.POD, "10.244.0.3"),
    "pod-c": Target("coredns-c", TargetKind.POD, "10.244.0.4"),
    "local": Target("node-local-dns", TargetKind.NODELOCAL, "169.254.20.10"),
    "upstream": Target("upstream", TargetKind.UPSTREAM, "10.0.0.2"),
    "ns1": Target("nameserver 10.96.0.10", TargetKind.SERVER, "10.96.0.10"),
    "ns2": Target("nameserver 10.0.0.9", TargetKind.SERVER, "10.0.0.9"),
}
FATES = {
    "ok": (20, Outcome.ANSWER),
    "timeout": (0, Outcome.TIMEOUT),
    "refused": (0, Outcome.CONNECTION_REFUSED),
    "hangs": (0, Outcome.TIMEOUT),
    "some": (13, Outcome.TIMEOUT),
    "NXDOMAIN": (0, Outcome.NXDOMAIN),
    "SERVFAIL": (0, Outcome.SERVFAIL),
    "REFUSED": (0, Outcome.REFUSED),
}
API = ApiServer("https://10.96.0.1:443", "v1.34.1", (0.004,), 1, reached=True)
POD = ResolvConf(("10.96.0.10",), search=("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), ndots=5)


def paths(text: str) -> tuple[Path, ...]:
    """`service udp ok, service tcp timeout, service udp outside ok`; `*` is udp and tcp."""
    found = []
    for part in text.split(", "):
        name, how, *outside, fate = part.split()
        answered, outcome = FATES.get(fate, (20, None))
        for transport in ("udp", "tcp") if how == "*" else (how,):
            p50 = 2e8 if fate == "slow" else 1e6
            bad = None if answered == 20 else outcome
            connects = 20 if fate == "hangs" else 0
            found.append(Path(KINDS[name], transport, bool(outside), 20, answered, p50, p50, bad, connects))
    return tuple(found)


def beside(text: str) -> tuple[Path, ...]:
    """`pod-a ok, pod-b timeout`: of each pod /health, by HTTP."""
    return tuple(replace(one, transport="http") for one in paths(text.replace(" ", " tcp ").replace(", tcp", ",")))


PODS = "pod-a * ok, pod-b * ok"
FINE = f"service * ok, service udp outside ok, {PODS}"
SILENT = "service * timeout, service udp outside timeout, pod-a * timeout, pod-b * timeout"


def seen(text: str, **more: Any) -> Checkup:
    pods = len({word for word in text.split() if word.startswith("pod-")})
    return Checkup(**{"paths": paths(text), "api": API, "ready": pods, "wanted": pods, "resolver": POD, **more})


DOWN = ApiServer("https://10.96.0.1:443", asked=1, problem="https://10.96.0.1:443 has not answered for 3 s")
DENIED = ApiServer("https://10.96.0.1:443", asked=1, problem="no right to get version (403)", reached=True)


@pytest.mark.parametrize(
    ("checkup", "ids", "code", "said"),
    [
        (seen(FINE), [], 0, "OK: all 7 paths answered"),
        (seen(FINE, api=DENIED), [], 0, "no right to get version"),
        (seen(FINE, api=DOWN), ["api_server"], 4, "CoreDNS goes on with the records that it has"),
        (seen(FINE, intercepted=("x answers",)), [], 3, "UNKNOWN: somebody else answers on the way"),
        (Checkup(api=API), [], 3, "there was nobody to ask"),
        (seen("service * timeout", ready=0, wanted=2), ["no_pods"], 1, "of 2 that should be none is Ready: no CoreDNS"),
        (
            seen("service * refused", ready=0, wanted=0, facts={"made by": "DaemonSet dns, 0 replicas"}),
            ["no_pods"],
            1,
            "scale daemonset dns --replicas=2",
        ),
        (seen("service * some", ready=0, wanted=2), ["no_pods"], 1, "comes from pods that are ending"),
        (seen(SILENT, resolver=None), ["outside"], 3, "not in the cluster's network"),
        (seen(f"{SILENT}, local * timeout", resolver=None), ["outside"], 3, "kubectl run dnsprobe --rm -it"),
        (seen(SILENT, resolver=None, in_lab=True), ["port_blocked"], 1, "NetworkPolicy"),
        (seen(SILENT), ["port_blocked"], 1, "and the API server answers: it is not the network as such: port 53 is"),
        (seen(SILENT, beside=beside("pod-a ok, pod-b timeout")), ["port_blocked"], 1, "pods and nodes answer"),
        (seen(SILENT, beside=beside("pod-a timeout, pod-b timeout")), ["network"], 1, "the pod network is broken"),
        (seen(SILENT, api=DOWN), ["network", "api_server"], 1, "LIKELY CAUSE 2 of 2"),
        (seen(SILENT.replace("timeout", "refused")), ["port_blocked"], 1, "refused: or no CoreDNS listens"),
        (seen("ns1 * timeout, ns1 udp outside timeout"), ["port_blocked"], 1, "no nameserver of this pod"),
        (
            seen(f"service * timeout, service udp outside timeout, {PODS}"),
            ["kube_proxy"],
            1,
            "BROKEN: 3 of 7 paths: Service 10.96.0.10, names outside",
        ),
        (seen(f"service * refused, {PODS}"), ["kube_proxy"], 1, "kube-proxy knows of no endpoint"),
        (seen(f"service * timeout, {PODS}", resolver=None), ["kube_proxy"], 1, "then that is no fault"),
        (
            seen(f"service udp timeout, service tcp ok, service udp outside timeout, {PODS}"),
            ["udp_blocked"],
            1,
            "the Service answers by TCP and not by UDP",
        ),
        (
            seen("service udp ok, service tcp timeout, pod-a udp ok, pod-a tcp timeout"),
            ["udp_blocked"],
            1,
            "the Service and every pod answer by UDP and not by TCP",
        ),
        (seen("ns1 udp ok, ns1 tcp refused, ns1 udp outside ok"), ["udp_blocked"], 1, "this pod's nameserver"),
        (
            seen("service * some, service udp outside some, pod-a * ok, pod-b * timeout, pod-c * ok"),
            ["node_lost"],
            1,
            "the other 2 of 3 pods do; nothing there takes connections; so 1 of 3 queries to the Service are lost: a",
        ),
        (seen(f"{FINE}, pod-c * refused"), ["crashed"], 1, "it crashed, or was killed for want of memory"),
        (seen(f"{FINE}, pod-c * SERVFAIL"), ["other_answers"], 1, "it has lost the API server"),
        (seen(f"{FINE}, pod-c udp some, pod-c tcp ok"), ["pod_stuck"], 1, "does not always answer"),
        (
            seen(f"{FINE}, pod-c * timeout", beside=beside("pod-c ok")),
            ["pod_stuck"],
            1,
            "connections are taken there: one CoreDNS pod is overloaded or hangs",
        ),
        (seen(f"{FINE}, pod-c * timeout", beside=beside("pod-c timeout")), ["node_lost"], 1, "nothing there takes"),
        (seen(f"{FINE}, pod-c * timeout", beside=beside("pod-c hangs")), ["pod_stuck"], 1, "connections are taken"),
        (
            seen("service * NXDOMAIN, service udp outside ok, pod-a * NXDOMAIN, pod-b * NXDOMAIN"),
            ["no_record"],
            1,
            "kubernetes.default.svc.cluster.local is answered with NXDOMAIN, the cluster's domain is not cluster.local",
        ),
        (seen("service * SERVFAIL, pod-a * SERVFAIL"), ["no_api"], 1, "it cannot reach the API server"),
        (seen("ns1 * REFUSED, ns1 udp outside ok"), ["no_record"], 1, "serves no such zone"),
        (
            seen(f"service * ok, service udp outside SERVFAIL, {PODS}, upstream * outside timeout"),
            ["upstream_silent"],
            1,
            "and 10.0.0.2 does not answer them here, either: the upstream is silent",
        ),
        (
            seen(f"service * ok, service udp outside SERVFAIL, {PODS}, upstream * outside ok"),
            ["way_upstream"],
            1,
            "the way from its nodes",
        ),
        (seen(f"service * ok, service udp outside REFUSED, {PODS}"), ["upstream_refuses"], 1, "max_concurrent"),
        (seen(f"service * ok, service udp outside timeout, {PODS}"), ["upstream_silent"], 1, "is silent or closed"),
        (seen("ns1 * ok, ns1 udp outside SERVFAIL"), ["upstream_silent"], 1, "names outside are not"),
        (
            seen(f"service * ok, service udp outside REFUSED, {PODS}, upstream * outside ok"),
            ["max_concurrent"],
            1,
            "10.0.0.2 answers here",
        ),
        (seen(f"{FINE}, upstream * outside timeout"), [], 0, "OK: 7 of 9 paths answered; CoreDNS itself has its"),
        (seen(f"{FINE}, local * timeout"), ["nodelocal"], 1, "pods that ask 169.254.20.10 have no DNS"),
        (
            seen(
                "ns1 * timeout, ns1 udp outside timeout, ns2 * ok, ns2 udp outside ok",
                resolver=replace(POD, nameservers=("10.96.0.10", "10.0.0.9")),
            ),
            ["nameservers"],
            1,
            "every lookup waits 5 s before the next is asked",
        ),
        (seen(FINE.replace("pod-b * ok", "pod-b * slow")), ["one_slow"], 1, "took over 100 ms"),
        (seen(f"service * some, {PODS}"), ["undetermined"], 1, "no rule fits"),
    ],
)  # fmt: skip
def test_a_cause_for_every_symptom(checkup: Checkup, ids: list[str], code: int, said: str) -> None:
    causes = causes_of(checkup)
    text = check_text(checkup, causes)
    assert ([cause.id for cause in causes], exit_code_of(checkup, causes)) == (ids, code), text
    assert said in " ".join(text.split()) or said in text
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    explained = "; ".join(cause.evidence for cause in causes)
    assert [path for path in checkup.broken if str(path) not in explained] == []


def test_every_cause_has_a_row() -> None:
    (rows,) = test_a_cause_for_every_symptom.pytestmark  # type: ignore[attr-defined]
    seen = [row[0] for row in rows.args[1]]
    assert [cause for cause in CAUSES if not any(cause(one, one.broken) for one in seen)] == []


def test_every_command_can_be_pasted() -> None:
    """But for IMAGE and POD, which only the person knows, and what is to stand in a file."""
    for row in test_a_cause_for_every_symptom.pytestmark[0].args[1]:  # type: ignore[attr-defined]
        for cause in causes_of(row[0]):
            starts = {line.split()[0] for line in cause.remedy.splitlines() if not line.startswith(" ")}
            assert starts <= {"kubectl", "dnsprobe", "#"}


def test_a_cause_is_said_as_reports_say_it() -> None:
    """One sentence and one remedy for each, with this cluster's namespace and labels."""
    (cause,) = causes_of(seen(f"{FINE}, pod-c * timeout", namespace="openshift-dns"))
    assert cause.text.endswith(f": {RULES['node_lost'].cause}")
    assert "kubectl -n openshift-dns get pods -l dns.operator.openshift.io/daemonset-dns -o wide" in cause.remedy
    assert (cause.source, cause.apart) == (RULES["node_lost"].source, RULES["node_lost"].apart)


@pytest.mark.parametrize(("n", "bad", "rows"), [(4, 0, 4), (50, 0, 1), (50, 1, 2), (50, 30, 2)])
def test_many_pods_are_few_rows(n: int, bad: int, rows: int) -> None:
    made = []
    for k in range(n):
        target = Target(f"coredns-6bf9885bc6-{k:05}", TargetKind.POD, f"10.244.0.{k}")
        fate: dict[str, Any] = {"answered": 0, "outcome": Outcome.TIMEOUT} if k < bad else {"answered": 20}
        made += [Path(target, transport, False, 20, p50_ns=1e6, worst_ns=2e6, **fate) for transport in ("udp", "tcp")]
    checkup = Checkup(paths=(*paths("service * ok"), *made), api=API, ready=n, wanted=n)
    table = check_text(checkup, causes_of(checkup)).split("\n\n")[1].splitlines()
    assert len(table) == 1 + 1 + rows + 1
    assert headline(checkup, causes_of(checkup)).startswith("BROKEN" if bad else "OK")


def test_a_path_that_was_not_asked_leaves_it_open() -> None:
    checkup = seen(FINE)
    checkup = replace(checkup, paths=(*checkup.paths, Path(KINDS["local"], "udp", False, 0, 0)))
    assert checkup.paths[-1].state is State.UNKNOWN
    assert exit_code_of(checkup, causes_of(checkup)) == 3
