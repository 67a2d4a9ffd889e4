"""kube-proxy, the nodes' kernels and the CNI -> what becomes of UDP flows to a pod that goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from probe.advice.forms import KUBECTL
from probe.audit.check import Check, Evidence, Planned, Said, Severity
from probe.audit.checks.subject import counted, named, said_version, single, some
from probe.audit.kernels import Ipvs, ipvs_of
from probe.audit.proxy import ProxyConfig
from probe.audit.quantity import numbers
from probe.audit.snapshot import SYSTEM, Snapshot, Unread
from probe.audit.things import Thing

ENOUGH = 10.0
"""Seconds of IPVS' UDP timeout that the guides ask for."""
SETTLES = 300
"""Seconds that sessions from before an edit of the timeout last."""
_SHOWN = 5
_VERIFY = "ipvsadm -L --timeout   # on a node: the third number is the UDP timeout in force"
_CILIUM = "kube-proxy-replacement"
_REPLACES = ("true", "strict", "partial")


def replaced_by(snapshot: Snapshot) -> str:
    """What does kube-proxy's work in its place, as far as its objects show; '' if nothing does."""
    config = snapshot.one("ConfigMap", "cilium-config")
    said = str((config and config.at(f"data[{_CILIUM}]")) or "").lower()
    if config and said in _REPLACES:
        return f"{config} data[{_CILIUM}]: {said}"
    daemons = snapshot.all("DaemonSet", SYSTEM)
    found = next((one for one in daemons if one.name in ("cilium", "anetd")), None)
    return f"{found}" if found and not snapshot.proxy.mode and not snapshot.proxy_pods else ""


def _proxy(snapshot: Snapshot) -> ProxyConfig:
    """Unread if nothing says its mode."""
    found = snapshot.proxy
    if found.problem:
        raise Unread("ConfigMap", found.problem)
    if not found.mode:
        raise Unread("ConfigMap", "nothing says kube-proxy's mode: on a node, curl http://127.0.0.1:10249/proxyMode")
    return found


def _not_ipvs(snapshot: Snapshot, planned: Planned) -> Said | None:
    """PASS where there is no IPVS to look at."""
    if replaced := replaced_by(snapshot):
        return Said(Severity.PASS, "no kube-proxy, so no IPVS", (replaced,))
    if planned.platform == "openshift" and not snapshot.proxy.mode:
        return Said(Severity.PASS, "OpenShift's own network does kube-proxy's work, without IPVS", (str(snapshot.dns),))
    proxy = _proxy(snapshot)
    if proxy.mode != "ipvs":
        return Said(Severity.PASS, f"kube-proxy's mode is {proxy.mode}, not ipvs", (proxy.mode_at,))
    return None


@single
def mode(snapshot: Snapshot, planned: Planned) -> Said:
    """C19."""
    if replaced := replaced_by(snapshot):
        return Said(Severity.INFO, "kube-proxy is replaced: C24", (replaced,))
    if snapshot.proxy.problem:
        config = snapshot.proxy.problem
        remedy = f"{KUBECTL} edit configmap {snapshot.proxy.config.name if snapshot.proxy.config else 'kube-proxy'}"
        return Said(Severity.FAIL, "kube-proxy's configuration cannot be read: its next pod will not start", (config,),
                    remedy)  # fmt: skip
    if fine := _not_ipvs(snapshot, planned):
        return fine
    proxy = _proxy(snapshot)
    text = f"kube-proxy's mode is {proxy.mode}: sessions to a pod that is gone may last for minutes: C20, C21"
    return Said(Severity.WARN, text, (proxy.mode_at,), f"# what lessens it: C20, or NodeLocal DNSCache\n{_VERIFY}")


@single
def timeout(snapshot: Snapshot, planned: Planned) -> Said:
    """C20."""
    if fine := _not_ipvs(snapshot, planned):
        return fine
    proxy = _proxy(snapshot)
    said: Evidence = (proxy.mode_at, proxy.timeout_at)
    if proxy.udp_timeout is not None and proxy.udp_timeout <= ENOUGH:
        return Said(Severity.PASS, f"IPVS forgets UDP sessions after {proxy.udp_timeout:g} s", said)
    kernels = Counter(_ipvs(node) for node in snapshot.nodes)
    set_to = "is not set: 300 s" if proxy.udp_timeout is None else f"is {proxy.udp_timeout:g} s"
    text = f"IPVS' UDP timeout {set_to}: for as long, each source port that had asked a pod which is gone loses a query"
    if not kernels[Ipvs.DROPS] and not kernels[Ipvs.UNKNOWN]:
        text = f"IPVS' UDP timeout {set_to}; these kernels forget sessions to a pod that is gone, so little is lost"
        return Said(Severity.WARN, text, said, _shorter(snapshot, planned))
    if not kernels[Ipvs.DROPS]:
        return Said(Severity.WARN, f"{text}, unless the kernels are mended: C21", said, _shorter(snapshot, planned))
    return Said(Severity.FAIL, text, said, _shorter(snapshot, planned))


def _shorter(snapshot: Snapshot, planned: Planned) -> str:
    """Commands that set it, see that it is in force, and wait."""
    proxy = snapshot.proxy
    wait = f"{_VERIFY}\n# wait {SETTLES // 60} minutes: sessions that are there keep their old timeout"
    if snapshot.kubernetes < (1, 18):
        return f"# kube-proxy before 1.18 has no udpTimeout; on every node:\nipvsadm --set 900 120 10\n{wait}"
    before = "# first: which UDP Services does it touch? C44\n"
    if planned.platform in ("k3s", "rke2"):
        lines = 'kube-proxy-arg:\n  - "ipvs-udp-timeout=10s"'
        return (
            f"{before}# in /etc/rancher/{planned.platform}/config.yaml of every node, then restart it:\n{lines}\n{wait}"
        )
    config = proxy.config.name if proxy.config else "kube-proxy"
    daemons = proxy.daemons.name if proxy.daemons else "kube-proxy"
    edit = f"{KUBECTL} edit configmap {config}   # in its configuration:\n    ipvs:\n      udpTimeout: 10s"
    return f"{before}{edit}\n{KUBECTL} rollout restart daemonset {daemons}\n{wait}"


def _ipvs(node: Thing) -> Ipvs:
    info = "status.nodeInfo"
    return ipvs_of(str(node.at(f"{info}.kernelVersion") or ""), str(node.at(f"{info}.osImage") or ""))


@single
def kernel(snapshot: Snapshot, planned: Planned) -> Said:
    """C21."""
    if fine := _not_ipvs(snapshot, planned):
        return fine
    by_kind: dict[Ipvs, list[Thing]] = {kind: [] for kind in Ipvs}
    for node in snapshot.nodes:
        by_kind[_ipvs(node)].append(node)
    remedy = (
        "# a kernel of 5.9 or later (Alibaba Cloud Linux 2: 4.19.91-25.1.al7), or NodeLocal DNSCache, or C20; and:\n"
        "sysctl net.ipv4.vs.expire_nodest_conn   # 1 on every node"
    )
    field = "status.nodeInfo.kernelVersion"
    if drops := by_kind[Ipvs.DROPS]:
        text = f"{counted(len(drops), 'node')} drop what goes to a UDP server that is gone: {named(drops)}"
        return Said(Severity.FAIL, text, some(drops, field), remedy)
    if unknown := by_kind[Ipvs.UNKNOWN]:
        text = f"whether the kernels of {counted(len(unknown), 'node')}, before 5.9, have its patch is not known"
        return Said(Severity.WARN, text, some(unknown, field), remedy)
    return Said(Severity.PASS, "all kernels expire sessions to a pod that is gone", some(snapshot.nodes, field))


@single
def regressions(snapshot: Snapshot, _planned: Planned) -> Said:
    """C22."""
    if replaced := replaced_by(snapshot):
        return Said(Severity.PASS, "no kube-proxy", (replaced,))
    version = numbers(snapshot.proxy.version) or numbers(_least_kubelet(snapshot))
    if not version:
        raise Unread("DaemonSet", "neither kube-proxy's image nor a kubelet says its version")
    daemons = snapshot.proxy.daemons
    path = "spec.template.spec.containers[0].image"
    said: Evidence = (daemons.field(path),) if daemons else (f"kubelet {said_version(version)}",)
    touched = [one for one in snapshot.all("Service") if _outside(one) and _udp(one)]
    upgrade = "# upgrade kube-proxy with the nodes: 1.32.3 or later"
    if (1, 32, 0) <= version < (1, 32, 3) and touched:
        text = (
            f"kube-proxy {said_version(version)} needs gigabytes of memory where UDP Services have external addresses"
            f" ({named(touched)}): it is late with every change of endpoints then (k/k#129982)"
        )
        return Said(Severity.FAIL, text, (*said, *some(touched, "spec.type")), upgrade)
    if (1, 32) <= version < (1, 37):
        text = (
            f"kube-proxy {said_version(version)} deletes stale UDP flows one by one, which delays every change where"
            " DNS is busy (k/k#135323), and not at all while a Service has no endpoint (k/k#139628): never scale to 0"
        )
        # No release below 1.37 is without them: what can be done is to know the delay, and C05 asks for that.
        watch = "# its delay: kubeproxy_network_programming_duration_seconds; dnsprobe recommend measures it"
        return Said(Severity.INFO, text, said, watch)
    return Said(Severity.PASS, f"nothing is known against kube-proxy {said_version(version)}", said)


def _least_kubelet(snapshot: Snapshot) -> str:
    kubelets = [str(node.at("status.nodeInfo.kubeletVersion") or "") for node in snapshot.nodes]
    return min(filter(numbers, kubelets), key=numbers, default="")


def _udp(service: Thing) -> bool:
    return any(one.get("protocol") == "UDP" for one in service.at("spec.ports") or [])


def _outside(service: Thing) -> bool:
    return service.at("spec.type") == "LoadBalancer" or bool(service.at("spec.externalIPs"))


@single
def fallback(snapshot: Snapshot, _planned: Planned) -> Said:
    """C23."""
    version = snapshot.kubernetes
    said = (f"version {said_version(version)}",)
    if version >= (1, 26):
        return Said(Severity.PASS, "where no pod is Ready, those that terminate and still serve are asked", said)
    text = "where no pod is Ready, the Service refuses at once, though pods that terminate still serve"
    remedy = f"# never let the Ready pods be none: C10, C12, C13\n{KUBECTL} get pods -l k8s-app=kube-dns"
    return Said(Severity.WARN, text, said, remedy)


@single
def replacement(snapshot: Snapshot, _planned: Planned) -> Said:
    """C24."""
    if replaced := replaced_by(snapshot):
        text = (
            "the CNI does kube-proxy's work: connected UDP sockets may stay with a pod that is gone, and conntrack -D"
            " does not help them"
        )
        remedy = "# see it with a lane of `ports: fixed`: dnsprobe run\n# Cilium: socketLB.hostNamespaceOnly=true"
        return Said(Severity.WARN, text, (replaced,), remedy)
    if not snapshot.proxy.mode and not snapshot.proxy.problem and not snapshot.proxy_pods:
        text = "neither kube-proxy nor Cilium in its place is to be seen: kube-proxy may be part of the nodes' agent"
        return Said(Severity.INFO, text, ("no daemonset/kube-proxy, no configmap/cilium-config",))
    return Said(Severity.PASS, "kube-proxy does it", (snapshot.proxy.mode_at or named(snapshot.proxy_pods),))


@single
def udp_services(snapshot: Snapshot, planned: Planned) -> Said:
    """C44."""
    if fine := _not_ipvs(snapshot, planned):
        return fine
    ours = {snapshot.service.name if snapshot.service else "", "kube-dns-upstream"}
    touched = [
        one for one in snapshot.all("Service") if _udp(one) and not (one.namespace == SYSTEM and one.name in ours)
    ]
    if not touched:
        return Said(Severity.PASS, "no UDP Service but cluster DNS: a short timeout touches nobody else", ())
    there = f"{counted(len(touched), 'UDP Service')} beside cluster DNS"
    makers = _makers(snapshot, touched)
    evidence = (*some(touched, "spec.selector"), *makers)
    if (snapshot.proxy.udp_timeout or 301) <= ENOUGH:
        text = f"{there} under a timeout of {snapshot.proxy.udp_timeout:g} s: {named(touched)}"
        return Said(Severity.INFO, text, evidence)
    text = (
        f"{there}: with udpTimeout 10s a client of theirs that is silent for 10 s may be led to another pod:"
        f" {named(touched)}"
    )
    remedy = "# ask who runs them, before C20: do sessions (QUIC, SIP, games, syslog) pause for more than 10 s?"
    return Said(Severity.WARN, text, evidence, remedy)


def _makers(snapshot: Snapshot, services: Sequence[Thing]) -> Evidence:
    """The owners of the pods that they lead to, as far as pods can be seen."""
    try:
        pods = snapshot.all("Pod")
    except Unread:
        return ()
    there: dict[str, list[Thing]] = {}
    for pod in pods:
        there.setdefault(pod.namespace, []).append(pod)
    found: dict[str, None] = {}
    for service in services[:_SHOWN]:
        selector = service.at("spec.selector") or {}
        for pod in there.get(service.namespace, []):
            if selector and selector.items() <= pod.labels.items():
                kind, name = (pod.at(f"metadata.ownerReferences[0].{part}") for part in ("kind", "name"))
                found[f"{service} leads to {kind or 'Pod'} {name or pod.name}"] = None
    return tuple(found)[:_SHOWN]


@single
def in_force(snapshot: Snapshot, planned: Planned) -> Said:
    """C45."""
    if fine := _not_ipvs(snapshot, planned):
        return fine
    proxy = _proxy(snapshot)
    if proxy.udp_timeout is None:
        return Said(Severity.INFO, "no timeout is configured: C20", (proxy.timeout_at,), _VERIFY)
    where = proxy.daemons.name if proxy.daemons else "kube-proxy"
    restart = f"{KUBECTL} rollout restart daemonset {where}\n{_VERIFY}"
    edited = _moment(proxy.edited)
    if edited is None:
        text = f"{proxy.udp_timeout:g} s is configured; whether kube-proxy was restarted since is not known"
        return Said(Severity.UNKNOWN, text, (proxy.timeout_at,), _VERIFY)
    late = [pod for pod in snapshot.proxy_pods if (since := _moment(pod.at("status.startTime"))) and since < edited]
    if late:
        text = (
            f"{proxy.udp_timeout:g} s is configured, and {counted(len(late), 'pod')} of kube-proxy of"
            f" {len(snapshot.proxy_pods)} started before that edit of {proxy.edited}: not in force there"
        )
        return Said(Severity.FAIL, text, (proxy.timeout_at, *some(late, "status.startTime")), restart)
    begun = [since for pod in snapshot.proxy_pods if (since := _moment(pod.at("status.startTime")))]
    taken = _moment(snapshot.taken)
    if begun and taken and (taken - max(begun)).total_seconds() < SETTLES:
        text = (
            f"a kube-proxy was restarted less than {SETTLES // 60} minutes ago: sessions from before keep their timeout"
        )
        return Said(Severity.WARN, text, (proxy.timeout_at, f"read at {snapshot.taken}"), "sleep 300   # then go on")
    text = f"every kube-proxy is younger than the edit: {proxy.udp_timeout:g} s should be in force"
    return Said(Severity.PASS, text, (proxy.timeout_at, f"edited at {proxy.edited}"), _VERIFY)


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


PROXY = (
    Check(
        "C19",
        "kube-proxy's mode",
        "IPVS keeps UDP sessions to pods that are gone, for five minutes unless told otherwise",
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS",
        mode,
    ),
    Check(
        "C20",
        "IPVS' UDP timeout",
        "it is for how long after the upgrade queries are lost to pods that are gone",
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS; kubernetes/kubernetes#71514, #84041",
        timeout,
    ),
    Check(
        "C21",
        "kernels under IPVS",
        "before 5.9 the kernel drops what goes to a UDP server that is gone, instead of choosing another",
        "Alibaba Cloud ACK, checks before upgrading CoreDNS; Huawei CCE, FAQ on IPVS",
        kernel,
    ),
    Check(
        "C22",
        "kube-proxy's known faults",
        "a kube-proxy that is late with endpoints makes every rollout of CoreDNS lossy",
        "kubernetes/kubernetes#129982, #135323, #139628",
        regressions,
    ),
    Check(
        "C23",
        "pods that terminate as a last resort",
        "before 1.26 a Service whose pods all terminate refuses, however long their lameduck is",
        "kubernetes/kubernetes pkg/proxy/topology.go (CategorizeEndpoints)",
        fallback,
    ),
    Check(
        "C24",
        "a CNI in kube-proxy's place",
        "a socket that was led to a pod when it connected stays there, whatever conntrack says",
        "cilium/cilium#27300, #35773",
        replacement,
    ),
    Check(
        "C44",
        "other UDP Services under a short timeout",
        "IPVS' UDP timeout is one for all Services",
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS: UDP-based workloads",
        udp_services,
    ),
    Check(
        "C45",
        "the timeout that is in force",
        "kube-proxy reads its configuration when it starts: what is configured is not what is in force",
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS: recreate the pods, verify, wait five minutes",
        in_force,
    ),
)
