"""Namespaces without uplink, in which port 53 is redirected or not -> whether a run says that it was intercepted."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from probe.cluster import Cluster
from probe.cluster.images import find_coredns
from probe.doubts import doubts_of
from probe.linux import in_network
from probe.model import Series, Target, TargetKind
from probe.runfile import open_run
from probe.scenario.preflight import look
from tests.servers import REPLIES, Rule, ScriptedServer
from tests.synthetic import series_of

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft"))),
    reason="needs root, iproute2 and nftables: sudo make servers, then sudo make test",
)

POD = Target("coredns-a", TargetKind.POD, "10.244.0.2")
SERVICE = Target("kube-dns", TargetKind.SERVICE, "10.96.0.10")
LOCAL = Target("node-local-dns", TargetKind.NODELOCAL, "169.254.20.10")
COREFILE = """\
. {{
    bind {address}
    template ANY ANY {{
        answer "{{{{ .Name }}}} 60 IN A 192.0.2.7"
    }}
    prometheus {address}:9153
}}
"""


@dataclass
class Here:
    """A network namespace: the pod's and the Service's addresses are its own; what else is asked leads nowhere."""

    name: str
    mesh: int
    """The port of a server that no one asks for."""

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def run(self, *words: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name, *words], check=True)

    def redirect(self, what: str) -> None:
        self.run("nft", f"add table ip mesh; add chain ip mesh out {{ type nat hook output priority -150; }};"
                 f" add rule ip mesh out {what} redirect to :{self.mesh}")  # fmt: skip

    def as_service(self) -> None:
        """kube-proxy's part."""
        self.run("nft", "add table ip proxy; add chain ip proxy out { type nat hook output priority -100; };"
                 f" add rule ip proxy out ip daddr {SERVICE.address} dnat to {POD.address}")  # fmt: skip


@pytest.fixture
def here() -> Iterator[Here]:
    with ExitStack() as stack:
        name = f"preflight-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
        for words in ("link set lo up", f"address add {POD.address}/32 dev lo", "route add default dev lo"):
            subprocess.run(["ip", "-n", name, *words.split()], check=True)
        with in_network(f"/run/netns/{name}"):
            server = stack.enter_context(ScriptedServer([Rule(REPLIES["answer"])]))
        yield Here(name, server.port)


@pytest.fixture
def coredns(here: Here, tmp_path: Path) -> Iterator[None]:
    """A real one at the pod's address, which counts."""
    program = find_coredns()
    if not program:
        pytest.skip("needs coredns: run `make coredns`")
    (tmp_path / "Corefile").write_text(COREFILE.format(address=POD.address))
    words = ["ip", "netns", "exec", here.name, str(program), "-conf", str(tmp_path / "Corefile")]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        until = time.monotonic() + 20
        while b"CoreDNS-" not in (tmp_path / "log").read_bytes() and time.monotonic() < until:
            time.sleep(0.05)
        yield
        process.terminate()


class Stub:
    """As much of a Cluster as is looked at."""

    namespaces = ("",)

    def __init__(self, *targets: Target) -> None:
        self._targets = targets

    def targets(self, selector: str) -> list[Target]:
        kind = {"pods": TargetKind.POD, "nodelocal": TargetKind.NODELOCAL}[selector]
        return [target for target in self._targets if target.kind is kind]


LANES = {"vip": (SERVICE, "udp"), "vip-tcp": (SERVICE, "tcp"), "pods": (POD, "udp")}


def lanes() -> list[Series]:
    return [
        series_of(i, lane=name, target=target.name, kind=target.kind, address=target.address, transport=transport)
        for i, (name, (target, transport)) in enumerate(LANES.items())
    ]


def looked(here: Here, monkeypatch: pytest.MonkeyPatch, cluster: object = None) -> tuple[dict[str, str], str]:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    told: Cluster | None = cluster  # type: ignore[assignment]
    with in_network(here.path):
        found = asyncio.run(look(lanes(), told, "cluster.local"))
    return dict(found.found), found.said


def test_where_nobody_is_nobody_answers(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(here, monkeypatch) == (
        {},
        "nobody answered at 192.0.2.1 by UDP; nobody answered at 192.0.2.1 by TCP",
    )


@pytest.mark.parametrize(
    ("rule", "doubtful"),
    [
        ("udp dport 53", ["vip", "pods"]),
        ("tcp dport 53", ["vip-tcp"]),
        ("meta l4proto { tcp, udp } th dport 53", list(LANES)),
    ],
)
def test_a_redirected_port_answers_even_there(
    rule: str, doubtful: list[str], here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.redirect(rule)
    found, said = looked(here, monkeypatch)
    assert sorted(found) == sorted(doubtful)
    assert all("192.0.2.1 is nobody's address, and answered by " in text for text in found.values())
    assert "192.0.2.1" in said


@pytest.mark.usefixtures("coredns")
def test_what_pods_answer_they_count(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.as_service()
    found, said = looked(here, monkeypatch, Stub(POD, SERVICE))
    assert found == {}
    for text in (
        "coredns-a answered 8 queries by UDP, of which its own counter saw 8",
        "kube-dns answered 8 queries by UDP, of which its pods' counters saw 8",
        "kube-dns answered 8 queries by TCP, of which its pods' counters saw 8",
    ):
        assert text in said.split("; ")


@pytest.mark.usefixtures("coredns")
@pytest.mark.parametrize(
    ("where", "doubtful", "others"),
    [
        (f"ip daddr {SERVICE.address} udp dport 53", {"vip"}, ()),
        (f"ip daddr {SERVICE.address} tcp dport 53", {"vip-tcp"}, ()),
        (f"ip daddr {SERVICE.address} udp dport 53", set(), (LOCAL,)),
        (f"ip daddr {POD.address} udp dport 53", {"pods"}, (LOCAL,)),
    ],
)
def test_one_who_answers_in_their_place_is_found_by_their_counters(
    where: str, doubtful: set[str], others: tuple[Target, ...], here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sidecar does that redirects the nameservers of resolv.conf alone; NodeLocal DNSCache may do so rightly."""
    here.as_service()
    here.redirect(where)
    found, _ = looked(here, monkeypatch, Stub(POD, SERVICE, *others))
    assert set(found) == doubtful
    assert all("answered 8 queries by " in text and "saw 0" in text for text in found.values())


def test_a_pod_that_does_not_count_is_said_and_is_no_doubt(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.redirect(f"ip daddr {POD.address} udp dport 53")
    found, said = looked(here, monkeypatch, Stub(POD))
    assert found == {}
    assert "what pods count of coredns-a was not seen: [Errno 111]" in said


def test_out_of_a_cluster_nothing_is_looked_for(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    here.redirect("udp dport 53")
    with in_network(here.path):
        assert asyncio.run(look(lanes(), None, "cluster.local")).said == ""


@pytest.mark.parametrize(("rule", "code", "doubts"), [("", 0, []), ("udp dport 53", 3, ["intercepted"])])
def test_a_run_that_is_intercepted_does_not_pass(
    rule: str, code: int, doubts: list[str], here: Here, tmp_path: Path
) -> None:
    here.redirect(rule or f"ip daddr {SERVICE.address} udp dport 53")
    command = f"-m probe.cli run -s {SERVICE.address} -n a.test -Q 50 -l 3 --fail lo>50% -o {tmp_path}/run.db".split()
    command[command.index("lo>50%")] = "loss > 50%"
    words = ["ip", "netns", "exec", here.name, "env", "KUBERNETES_SERVICE_HOST=10.96.0.1", sys.executable, *command]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    run = open_run(tmp_path / "run.db")
    found = [doubt for doubt in doubts_of(run) if doubt.id == "intercepted"]
    assert [doubt.id for doubt in found] == doubts
    assert all(doubt.hides_loss and doubt.lanes for doubt in found)
    marks = [mark.subject for mark in run.marks if mark.kind == "intercepted"]
    assert marks == [lane for doubt in found for lane in doubt.lanes]
