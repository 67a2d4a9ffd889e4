"""A Kubernetes API, scripted -> what is found and said of it, what happens in it, and how its faults are told."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from probe.cli import main
from probe.cluster import Happened, Stretch
from probe.cluster.kube import Kube, named_service
from probe.cluster.kube.api import connect
from probe.errors import DnsprobeError, EnvironmentProblem, UsageError
from probe.model import NS
from probe.runfile import open_run
from tests.apiserver import ApiServer
from tests.conftest import Start
from tests.kube_objects import (
    COREFILE,
    Json,
    config_map,
    daemon_set,
    deployment,
    endpoint_slice,
    node,
    pod,
    service,
)
from tests.servers import REPLIES, Rule
from tests.test_kube_objects import DELETED, FOUR, TOLD, told

T = TypeVar("T")

# -- a whole cluster, by HTTP


def kubeadm() -> list[Json]:
    """Two CoreDNS pods on two nodes, with all there may be."""
    return [
        service(),
        service("kube-dns-upstream", "10.96.0.11"),
        endpoint_slice(("coredns-a", "127.244.0.2", True, False), ("coredns-b", "127.244.0.3", True, False)),
        pod(),
        pod("coredns-b", "127.244.0.3"),
        deployment(),
        config_map(),
        config_map("kube-proxy", **{"config.conf": "mode: nftables\n"}),
        daemon_set("kube-proxy", "registry.k8s.io/kube-proxy:v1.33.4"),
        daemon_set("node-local-dns", "k8s-dns-node-cache:1.26", "-localip", "169.254.20.10,10.96.0.10"),
        node(),
        node("node-2", "b"),
    ]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    server = ApiServer(*kubeadm())
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    yield server
    server.stop()


def in_cluster(look: Callable[[Kube], Awaitable[T]], **asked: Any) -> T:
    """What `look` finds in a cluster that has started."""

    async def started() -> T:
        kube = Kube(**asked)
        try:
            await kube.start()
            return await look(kube)
        finally:
            await kube.stop()

    return asyncio.run(started())


async def names(kube: Kube) -> dict[str, str]:
    kinds = ("service", "pods", "nodelocal", "upstream")
    return {kind: ", ".join(str(target) for target in kube.targets(kind)) for kind in kinds}


async def facts(kube: Kube) -> dict[str, str]:
    return kube.facts()


def test_a_cluster_is_found_not_assumed(api: ApiServer) -> None:
    assert in_cluster(names) == {
        "service": "kube-dns (10.96.0.10:53)",
        "pods": "coredns-a (127.244.0.2:53), coredns-b (127.244.0.3:53)",
        "nodelocal": "node-local-dns (169.254.20.10:53)",
        "upstream": "",
    }
    found = in_cluster(facts)
    assert found.pop("cluster").startswith(f"http://127.0.0.1:{api.port}, context test in ")
    assert found == {
        "kubernetes": "v1.34.1",
        "service": "kube-system/kube-dns, 10.96.0.10, UDP 53, TCP 53",
        "pods": "registry.k8s.io/coredns/coredns:v1.12.1 on node-1 (a), node-1 (a)",
        "nodes": "2 in 2 zones, kubelet v1.34.1",
        "kube-proxy": "nftables, registry.k8s.io/kube-proxy:v1.33.4",
        "nodelocal": "169.254.20.10, k8s-dns-node-cache:1.26",
        "zone": "cluster.local",
        "upstream": "/etc/resolv.conf of the pods: their nodes', which this machine does not know",
        "made by": "Deployment coredns, 2 replicas",
        "ends with": "grace period 30 s, preStop 0 s",
        "readiness": "ready, 10 s x 3",
        "corefile": "lameduck 5 s, ready, no nsid, reload",
    }


def test_a_name_is_a_target_and_an_unknown_one_is_told_the_names(api: ApiServer) -> None:
    async def one(kube: Kube) -> str:
        with pytest.raises(UsageError, match=r"target 'x': the cluster has service, nodelocal, .*coredns-b"):
            kube.targets("x")
        return ", ".join(map(str, kube.targets("coredns-b")))

    assert in_cluster(one) == "coredns-b (127.244.0.3:53)"
    assert api.asked


def test_what_knows_no_dns_is_found_beside_it(api: ApiServer) -> None:
    async def found(kube: Kube) -> tuple[str, frozenset[str], frozenset[str]]:
        beside = [*kube.targets("nodes"), *kube.targets("api")]
        here, elsewhere = [await kube.headless("kube-dns", each) for each in ("kube-system", "default")]
        return ", ".join(map(str, beside)), here, elsewhere

    said, here, elsewhere = in_cluster(found)
    assert said == f"node-1 (127.244.1.1:10250), kube-apiserver (127.0.0.1:{api.port})", "no pod is on node-2"
    assert (here, elsewhere) == (frozenset({"127.244.0.2", "127.244.0.3"}), frozenset())


def test_what_shutdown_says_follows_the_cluster(api: ApiServer) -> None:
    async def look(kube: Kube) -> tuple[float, float, str, str]:
        before = kube.shutdown()
        api.put(config_map(Corefile=COREFILE.replace("5s", "12s")))
        await until(kube, "corefile_patched")
        return before.lameduck, kube.shutdown().lameduck, before.proxy_mode, before.kubernetes

    assert in_cluster(look) == (5.0, 12.0, "nftables", "1.33")


def forbidden(*resources: str) -> Callable[[str], int]:
    return lambda path: 403 if urlsplit(path).path.rpartition("/")[2] in resources else 0


def test_what_may_not_be_read_is_left_out_and_said(api: ApiServer) -> None:
    api.refuse = forbidden("nodes", "configmaps", "daemonsets", "deployments")
    found = in_cluster(facts)
    rights = [
        ("deployments in kube-system", "its Role in kube-system", "apps", "deployments"),
        ("daemonsets in kube-system", "its Role in kube-system", "apps", "daemonsets"),
        ("configmaps in kube-system", "its Role in kube-system", "", "configmaps"),
        ("nodes", "its ClusterRole", "", "nodes"),
    ]
    missing = [
        f'{what}: no right to list them (403): add to {role}: {{apiGroups: ["{group}"], resources: [{plural}],'
        " verbs: [list, watch]}"
        for what, role, group, plural in rights
    ]
    supposed = "kube-proxy's mode: no ConfigMap says it: iptables is supposed"
    assert found["not seen"].split("; ") == [*missing, supposed]
    assert in_cluster(names)["pods"] == "coredns-a (127.244.0.2:53), coredns-b (127.244.0.3:53)"


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        (forbidden("services"), r"services in kube-system: no right to list them \(403\): add to its Role in kube-sys"),
        (forbidden("pods"), r"pods in kube-system: no right to list them \(403\)"),
        (
            lambda _: 401,
            r"127.0.0.1:\d+ does not accept who we are \(401\): the token or client certificate of context",
        ),
        (lambda _: 500, r"refuses to get version: 500: said 500"),
    ],
)
def test_what_must_be_read_and_cannot_is_one_sentence(api: ApiServer, refuse: Callable[[str], int], said: str) -> None:
    api.refuse = refuse
    with pytest.raises(EnvironmentProblem, match=said):
        in_cluster(names)


@pytest.mark.parametrize(
    ("nameservers", "host", "asked", "said"),
    [
        ("10.0.0.2 10.0.0.3", "10.96.0.1", "10.0.0.2 10.0.0.3", "10.0.0.2, 10.0.0.3 by this pod's own, which is its"),
        ("10.96.0.10", "10.96.0.1", "", "this pod's own asks cluster DNS itself: with dnsPolicy Default it would say"),
        ("169.254.20.10", "10.96.0.1", "", "this pod's own asks cluster DNS itself"),
        ("127.0.0.53", "10.96.0.1", "", "this pod's own"),
        ("10.0.0.2", "", "", "their nodes', which this machine does not know"),
    ],
)
def test_where_the_corefile_says_resolv_conf_the_prober_s_own_is_taken_if_it_is_a_node_s(
    nameservers: str, host: str, asked: str, said: str, api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api.port
    (tmp_path / "resolv.conf").write_text("".join(f"nameserver {ip}\n" for ip in nameservers.split()))
    monkeypatch.setattr("probe.resolv.RESOLV_CONF", tmp_path / "resolv.conf")
    if host:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)

    async def look(kube: Kube) -> tuple[str, str]:
        return " ".join(target.address for target in kube.targets("upstream")), kube.facts()["upstream"]

    addresses, text = in_cluster(look)
    assert addresses == asked
    assert text.startswith("/etc/resolv.conf of the pods: their nodes'")
    assert said in text


def test_managed_dns_has_a_service_and_no_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ApiServer(service("kube-dns", "10.0.0.10", selector=None))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    assert in_cluster(names) == {"service": "kube-dns (10.0.0.10:53)", "pods": "", "nodelocal": "", "upstream": ""}
    assert in_cluster(facts)["pods"] == "none to see: the Service alone can be asked"
    server.stop()


@pytest.mark.parametrize(
    ("things", "asked", "said"),
    [
        (
            [],
            {},
            r"no Service in kube-system has the label k8s-app=kube-dns, and there is no openshift-dns/dns-default:",
        ),
        ([service("coredns", labels={"a": "b"})], {}, "kube-system has coredns on port 53: say --service NAMESPACE"),
        ([service()], {"service": ("kube-system", "dns")}, "there is no Service dns in kube-system: say another"),
        ([service("kube-dns", "None")], {}, "Service kube-dns has no cluster IP"),
    ],
)
def test_a_service_that_cannot_be_found(
    things: list[Json], asked: Json, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ApiServer(*things)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    with pytest.raises(EnvironmentProblem, match=said):
        in_cluster(names, **asked)
    server.stop()


def test_openshift_and_what_a_person_names_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = service("dns-default", "172.30.0.10", selector=None)
    there["metadata"]["namespace"] = "openshift-dns"
    server = ApiServer(there, service("other", "10.1.1.1", labels={"a": "b"}, selector=None))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    assert in_cluster(names)["service"] == "dns-default (172.30.0.10:53)"
    assert in_cluster(names, service=("kube-system", "other"))["service"] == "other (10.1.1.1:53)"
    server.stop()


async def until(kube: Kube, *kinds: str) -> list[Happened]:
    """What happens, until there is one of each of these kinds."""
    seen: list[Happened] = []
    async with asyncio.timeout(20):
        async for event in kube.happened():
            seen.append(event)
            if set(kinds) <= {one.kind for one in seen}:
                break
    return seen


def test_a_pod_s_end_is_told_as_it_happens(api: ApiServer) -> None:
    async def look(kube: Kube) -> list[str]:
        api.put(pod(deleted=TOLD))
        api.put(endpoint_slice((*FOUR[:3], True), ("coredns-b", "127.244.0.3", True, False)))
        api.delete(pod(deleted=TOLD, ready=False))
        seen = await until(kube, "pod_gone", "endpoints_changed")
        assert [str(target) for target in kube.targets("pods")] == ["coredns-b (127.244.0.3:53)"]
        assert kube.ready_endpoints() == 1
        assert all(event.source == "kubernetes" and event.at for event in seen)
        return sorted(told(iter(seen)))

    assert in_cluster(look) == [
        "endpoints_changed | ready: coredns-b; terminating, serving: a",
        f"pod_deleted down | {DELETED}",
        "pod_gone gone | 127.244.0.2",
        "pod_not_ready | 127.244.0.2",
    ]


def test_a_new_pod_is_a_target_when_it_is_ready(api: ApiServer) -> None:
    async def look(kube: Kube) -> list[str]:
        api.put(pod("coredns-c", "", ready=False))
        api.put(pod("coredns-c", "127.244.0.9"))
        seen = await until(kube, "pod_ready")
        assert seen[-1].up in kube.targets("pods")
        return [event.kind for event in seen]

    assert in_cluster(look) == ["pod_created", "pod_ready"]


BOTH = "events in kube-system, events in default"


def gaps(seen: list[Happened]) -> list[Stretch]:
    return [event for event in seen if isinstance(event, Stretch)]


async def the_gap(kube: Kube) -> list[Happened]:
    """What happens until a gap is over."""
    seen: list[Happened] = []
    async with asyncio.timeout(30):
        async for event in kube.happened():
            seen.append(event)
            if isinstance(event, Stretch) and event.at > event.since:
                break
    return seen


def test_an_expired_watch_is_begun_anew_and_the_gap_said(api: ApiServer) -> None:
    async def look(kube: Kube) -> list[Happened]:
        await asyncio.sleep(0.2)
        api.expire()
        return await the_gap(kube)

    begun, *_, over = gaps(in_cluster(look))
    assert begun.since == begun.at
    assert over.since < over.at < over.since + 2 * NS
    assert f"{begun.subject or 'the cluster'}: not seen: " in begun.text
    assert "410: too old" in begun.text


def test_of_one_watch_that_ends_the_gap_is_its_own(api: ApiServer) -> None:
    api.refuse = lambda path: 500 if "/events?" in path and "watch=true" in path else 0

    async def look(kube: Kube) -> list[Happened]:
        seen = await the_gap(kube)
        api.put(deployment(3))
        return seen + await until(kube, "scaled")

    found = gaps(in_cluster(look))
    assert {gap.subject for gap in found} <= {"events in kube-system", "events in default", BOTH}
    assert all("the cluster" not in gap.text for gap in found)


def test_what_happens_while_the_api_is_away_is_seen_when_it_is_back(api: ApiServer) -> None:
    async def look(kube: Kube) -> list[Happened]:
        await asyncio.sleep(0.2)
        api.stop()
        api.delete(pod())
        api.put(pod("coredns-c", "127.244.0.9"))
        await asyncio.sleep(2)
        api.start()
        seen = await the_gap(kube)
        assert [target.name for target in kube.targets("pods")] == ["coredns-b", "coredns-c"]
        api.put(deployment(3))
        return seen + await until(kube, "scaled")

    seen = in_cluster(look)
    begun, over = gaps(seen)
    assert 1.8 * NS < over.at - begun.since < 6 * NS
    assert {"pod_deleted", "pod_gone", "pod_created", "pod_ready"} <= {event.kind for event in seen}


def test_an_api_that_falls_silent_is_a_gap_from_its_last_sign_of_life(api: ApiServer) -> None:
    async def look(kube: Kube) -> list[Happened]:
        await asyncio.sleep(0.2)
        api.hush(True)
        await asyncio.sleep(6)
        api.hush(False)
        return await the_gap(kube)

    begun, over = gaps(in_cluster(look))
    assert "has not answered for 3 s" in begun.text
    assert 5 * NS < over.at - begun.since < 10 * NS


def test_an_api_that_has_just_started_may_not_know_the_roles_yet(api: ApiServer) -> None:
    async def look(kube: Kube) -> list[Happened]:
        await asyncio.sleep(0.2)
        api.refuse = forbidden("nodes", "pods")
        api.expire()
        await asyncio.sleep(1)
        api.refuse = lambda _: 0
        seen = await the_gap(kube)
        api.delete(pod())
        return seen + await until(kube, "pod_gone")

    assert not [event for event in in_cluster(look) if event.kind == "not_seen"]


def test_a_right_that_is_taken_away_ends_that_part_alone(api: ApiServer) -> None:
    async def look(kube: Kube) -> list[Happened]:
        await asyncio.sleep(0.2)
        api.refuse = forbidden("nodes")
        api.expire()
        seen = await the_gap(kube)
        api.put(deployment(3))
        return seen + await until(kube, "scaled")

    seen = in_cluster(look)
    assert ["nodes: no right to list them (403)" in event.text for event in seen if event.kind == "not_seen"] == [True]
    assert len(gaps(seen)) == 2


def test_a_right_to_list_alone_is_said_and_not_asked_for_again_and_again(api: ApiServer) -> None:
    api.refuse = lambda path: 403 if "/nodes?" in path and "watch=true" in path else 0

    async def look(kube: Kube) -> list[Happened]:
        seen = await until(kube, "not_seen")
        lists = len(api.asked)
        api.put(deployment(3))
        await until(kube, "scaled")
        assert len(api.asked) < lists + 30
        return seen

    *blind, last = in_cluster(look)
    assert {(gap.kind, gap.subject) for gap in blind} == {("watch_gap", "nodes")}
    assert last.text.startswith("nodes: no right to watch them (403): add to its ClusterRole")


# -- the way there


@pytest.mark.parametrize(
    ("text", "problem", "said"),
    [
        (None, EnvironmentProblem, "no such file, and this is no pod of a cluster: set KUBECONFIG, or add --lab"),
        ("{", EnvironmentProblem, "not a kubeconfig that can be read"),
        ("{}", EnvironmentProblem, "not a kubeconfig that can be read: KeyError: 'clusters'"),
        ('{"clusters": [], "contexts": []}', EnvironmentProblem, "no current context: say --context NAME, one of none"),
        (
            '{"clusters": [], "contexts": [{"name": "a", "context": {"cluster": "b"}}], "current-context": "a"}',
            EnvironmentProblem,
            "context a names 'b', which the file lacks",
        ),
    ],
)
def test_a_kubeconfig_that_leads_nowhere(
    text: str | None, problem: type[DnsprobeError], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(problem, match=said):
        in_cluster(names)


def test_contexts_may_stand_in_many_files(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.write_text('{"clusters": [], "contexts": []}')
    monkeypatch.setenv("KUBECONFIG", f"{other}:{tmp_path / 'config'}:{tmp_path / 'none'}")
    assert in_cluster(names)["service"] == in_cluster(names, context="test")["service"] == "kube-dns (10.96.0.10:53)"
    with pytest.raises(UsageError, match=r"--context 'prod': .* has test"):
        in_cluster(names, context="prod")
    assert api.asked


CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBbjCCARWgAwIBAgIUILJQNS/pw4w0DhSxbxLSKwvt48EwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBdDAgFw0yNjExMjExMjI0MzhaGA8yMTI2MTAyODEyMjQzOFow
DDEKMAgGA1UEAwwBdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABA3AVaarcbPu
/j8aIiepoqU2egOBkRzPLHhi5uD/QsGMJwd89/j00+eg8M3grrAcgrQ958UfYtzm
TnbVa4ehaI6jUzBRMB0GA1UdDgQWBBSMqABVlVGQgX5vdrlu1AqenrXttjAfBgNV
HSMEGDAWgBSMqABVlVGQgX5vdrlu1AqenrXttjAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0cAMEQCIHVzPnJvM2i35iBOVLZVkTuAxxQ4pfToAS2WcI9SLMVf
AiBWPLBLZjyh6DeU5CJ+dWg9gmGhayPUDQlTlfbeI7fRsg==
-----END CERTIFICATE-----
"""


def test_a_pod_of_the_cluster_has_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"token": "t", "namespace": "default", "ca.crt": CERTIFICATE}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("probe.cluster.kube.api.SERVICE_ACCOUNT", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    api = connect()
    assert (api.server, api.source) == ("https://[fd00::1]:443", "this pod's service account")
    asyncio.run(api.close())
    (tmp_path / "ca.crt").write_text("")
    with pytest.raises(EnvironmentProblem, match="this pod's service account: its certificates or credentials cannot"):
        connect()


def changed(path: Path, **cluster: str) -> None:
    """Put these into the kubeconfig's cluster."""
    config = json.loads(path.read_text())
    config["clusters"][0]["cluster"] |= {name.replace("_", "-"): value for name, value in cluster.items()}
    path.write_text(json.dumps(config))


def test_the_name_in_a_server_s_certificate_may_be_another(api: ApiServer, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = "-subj /CN=x -addext subjectAltName=DNS:kubernetes.example -days 2 -nodes"
    command = f"openssl req -x509 -newkey rsa:2048 {subject} -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    api._server.socket = context.wrap_socket(api._server.socket, server_side=True)
    changed(tmp_path / "config", server=f"https://127.0.0.1:{api.port}", certificate_authority=str(certificate))
    with pytest.raises(EnvironmentProblem, match=r"its certificate is not trusted"):
        in_cluster(names)
    changed(tmp_path / "config", tls_server_name="kubernetes.example")
    assert in_cluster(names)["service"] == "kube-dns (10.96.0.10:53)"


def test_a_proxy_on_the_way_is_used(api: ApiServer, tmp_path: Path) -> None:
    changed(tmp_path / "config", server="http://api.invalid", proxy_url=f"http://127.0.0.1:{api.port}")
    assert in_cluster(names)["service"] == "kube-dns (10.96.0.10:53)"
    changed(tmp_path / "config", proxy_url="nonsense://a")
    with pytest.raises(EnvironmentProblem, match=r"credentials cannot be used: Unknown scheme for proxy URL"):
        in_cluster(names)


def test_an_api_that_is_not_there(api: ApiServer) -> None:
    api.stop()
    with pytest.raises(EnvironmentProblem, match=r"of context test in .*, cannot be reached: All connection at"):
        in_cluster(names)
    api.start()


@pytest.mark.parametrize("text", ["kube-dns", "a/b/c", "/b", "A/b", "a/"])
def test_a_service_is_named_by_namespace_and_name(text: str) -> None:
    assert named_service("openshift-dns/dns-default") == ("openshift-dns", "dns-default")
    with pytest.raises(UsageError, match="say NAMESPACE/NAME"):
        named_service(text)


def ran(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exited_with:
        main(command)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    code = exited_with.value.code
    return (code if isinstance(code, int) else 0), out + err


SHORT = """\
name: short
duration: {duration}
lanes:
  - name: vip
    target: service
    rate: {rate}
    questions: [{{name: a.test, type: A, expect: any}}]
"""


def test_a_run_asks_the_cluster_s_service_and_records_a_gap(
    api: ApiServer, scripted: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = scripted([Rule(REPLIES["answer"])])
    ports = [{"name": "dns", "port": server.port, "protocol": "UDP"}]
    api.put(service("kube-dns", "127.0.0.1", ports=ports))
    file, out = tmp_path / "short.yaml", tmp_path / "short.db"
    file.write_text(SHORT.format(duration="4s", rate=20))

    def expire() -> None:
        while not out.exists():
            time.sleep(0.05)
        time.sleep(1)
        api.expire()

    late = threading.Thread(target=expire, daemon=True)
    late.start()
    code, said = ran(["run", str(file), "-o", str(out)], capsys)
    late.join()
    run = open_run(out)
    assert code in {0, 3}, said
    assert run.head.facts["service"].startswith("kube-system/kube-dns, 127.0.0.1, UDP")
    assert {series.target.address for series in run.series} == {"127.0.0.1"}
    gap = next(interval for interval in run.intervals if interval.kind == "watch_gap")
    assert 0 < gap.from_ns < gap.to_ns < 4 * NS
    assert "the cluster: not seen from " in gap.text


def test_more_than_the_ceiling_is_refused_though_it_is_the_cluster_that_says_whom(
    api: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "short.yaml", tmp_path / "short.db"
    file.write_text(SHORT.format(duration="4s", rate=1001))
    code, said = ran(["run", str(file), "-o", str(out)], capsys)
    assert (code, out.exists()) == (2, False)
    assert "1,001 q/s in all towards other machines; 1,000 q/s is the ceiling" in said
    assert api.asked


def test_kubeconfigs_of_tests_lead_to_loopback(api: ApiServer, tmp_path: Path) -> None:
    config = json.loads((tmp_path / "config").read_text())
    assert config["clusters"][0]["cluster"]["server"] == f"http://127.0.0.1:{api.port}"
