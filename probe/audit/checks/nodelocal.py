"""NodeLocal DNSCache and the pods' resolv.conf -> who asks whom, and what a rollout does to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from probe.audit.check import Check, Planned, Said, Severity
from probe.audit.checks.proxy import replaced_by
from probe.audit.checks.subject import counted, named, single, some
from probe.audit.proxy import flag, words_of
from probe.audit.quantity import numbers
from probe.audit.snapshot import SYSTEM, Snapshot, images_of, is_cache
from probe.audit.things import Thing
from probe.resolv import MOST_NAMESERVERS, is_node_local

_INSTALL = "https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/"
_OURS = (SYSTEM, "kube-public", "kube-node-lease", "openshift-dns", "gatekeeper-system")
_NDOTS = 5
_RACE_MENDED = (5, 1)


def local_addresses(cache: Thing) -> list[str]:
    """What it listens on: its flag -localip."""
    return [ip.strip() for ip in (flag(words_of(cache), "localip") or "").split(",") if ip.strip()]


def caught(snapshot: Snapshot, cache: Thing) -> bool:
    """Whether queries to the Service's address are answered by it, with no change of any pod: not under IPVS."""
    service = (snapshot.service and snapshot.service.at("spec.clusterIP")) or "none"
    return service in local_addresses(cache) and snapshot.proxy.mode != "ipvs" and not replaced_by(snapshot)


def applications(snapshot: Snapshot) -> list[Thing]:
    """Pods that run, or are to, and are no part of the system."""
    return [
        pod
        for pod in snapshot.all("Pod")
        if pod.namespace not in _OURS and pod.at("status.phase") in (None, "", "Running", "Pending")
    ]


@single
def coverage(snapshot: Snapshot, _planned: Planned) -> Said:
    """C25."""
    cache = snapshot.cache
    if cache is None:
        text = "no NodeLocal DNSCache: every pod's UDP queries go through kube-proxy to CoreDNS, and feel its rollouts"
        return Said(Severity.INFO, text, ("no daemonset/node-local-dns",), f"# {_INSTALL}")
    wanted, there = cache.field("status.desiredNumberScheduled"), cache.field("status.numberReady")
    nodes = [one for one in snapshot.nodes if one.labels.get("kubernetes.io/os", "linux") == "linux"]
    n = int(there.value or 0)
    if n < len(nodes):
        text = (
            f"NodeLocal DNSCache is Ready on {n} of {counted(len(nodes), 'node')}: pods there that ask it have no DNS"
        )
        remedy = f"kubectl -n {cache.namespace} get pods -l k8s-app={cache.labels.get('k8s-app', cache.name)} -o wide"
        return Said(Severity.WARN, text, (wanted, there), remedy)
    return Said(Severity.PASS, f"NodeLocal DNSCache is Ready on all {counted(n, 'node')}", (wanted, there))


def rollout(snapshot: Snapshot, _planned: Planned) -> Iterator[Said]:
    """C26."""
    cache = snapshot.cache
    if cache is None:
        yield Said(Severity.PASS, "no NodeLocal DNSCache that could end", ("no daemonset/node-local-dns",))
        return
    path = "spec.template.spec.containers[0]"
    limit, kind = cache.field(f"{path}.resources.limits.memory"), cache.field("spec.updateStrategy.type")
    mine = [one for one in snapshot.all("Pod", cache.namespace) if is_cache(one)]
    dead = [
        pod.field(f"status.containerStatuses[0].{state}.terminated.reason")
        for pod in mine
        for state in ("lastState", "state")
    ]
    killed = [one for one in dead if one.value == "OOMKilled"]
    if killed:
        text = f"{counted(len(killed), 'pod')} of it ran out of memory: its node has no DNS until it is back"
        spec = '{"spec":{"template":{"spec":{"containers":[{"name":"%s","resources":{"limits":{"memory":"512Mi"}}}]}}}}'
        name = cache.at(f"{path}.name") or "node-cache"
        remedy = f"kubectl -n {cache.namespace} patch daemonset {cache.name} --patch '{spec % name}'"
        yield Said(Severity.FAIL, text, (limit, *killed[:5]), remedy)
    caches = [one for one in snapshot.all("DaemonSet", cache.namespace) if is_cache(one)]
    two = len(caches) > 1 or "-skipteardown" in " ".join(words_of(cache))
    if kind.value == "OnDelete" or two:
        yield Said(Severity.PASS, "a node's cache is replaced when somebody says so, or a second one answers", (kind,))
    elif not killed:
        text = "RollingUpdate: node after node, pods that ask their cache alone have no DNS for 5 to 20 s"
        if caught(snapshot, cache):
            text += "; those that ask the Service's address are led to CoreDNS meanwhile"
        remedy = (
            f"kubectl -n {cache.namespace} patch daemonset {cache.name}"
            ' --patch \'{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}\''
        )
        yield Said(Severity.WARN, text, (kind, limit), remedy)


def not_on_it(snapshot: Snapshot, _planned: Planned) -> Iterator[Said]:
    """C46."""
    cache = snapshot.cache
    if cache is None:
        yield Said(Severity.PASS, "no NodeLocal DNSCache that pods could ask", ("no daemonset/node-local-dns",))
        return
    place = f"{cache} -localip: {','.join(local_addresses(cache))}"
    if caught(snapshot, cache):
        text = "it has the Service's address too: all pods of a node ask it, as they are"
        yield Said(Severity.PASS, text, (place, snapshot.proxy.mode_at))
        return
    asks = [(pod, _are_local(pod)) for pod in applications(snapshot) if _asks_cluster(pod)]
    without = [pod for pod, local in asks if not any(local)]
    both = [pod for pod, local in asks if any(local) and not all(local) and _is_musl(pod)]
    if both:
        text = f"musl (Alpine) asks all nameservers at once, so CoreDNS gets each of their queries too: {owners(both)}"
        yield Said(
            Severity.INFO, text, some(both, "spec.dnsConfig.nameservers"), "# an image without musl, or one nameserver"
        )
    if not without:
        yield Said(Severity.PASS, f"{counted(len(asks), 'pod')} of applications ask it", (place,))
        return
    text = (
        f"{len(without)} of {counted(len(asks), 'pod')} of applications have no dnsConfig that leads to it: they ask"
        f" CoreDNS, unless their kubelets' clusterDNS is its address: {owners(without)}"
    )
    remedy = (
        "# what such a pod asks: kubectl exec POD -- cat /etc/resolv.conf\n# ACK: kubectl label namespace NAMESPACE"
        " node-local-dns-injection=enabled, then restart its workloads; others: dnsConfig, or the kubelets' clusterDNS"
    )
    yield Said(Severity.WARN, text, (place, *some(without, "spec.dnsConfig")), remedy)


def _asks_cluster(pod: Thing) -> bool:
    return pod.at("spec.dnsPolicy") != "Default" and not pod.at("spec.hostNetwork")


def _are_local(pod: Thing) -> list[bool]:
    """Of each nameserver of its dnsConfig."""
    return [is_node_local(str(ip)) for ip in pod.at("spec.dnsConfig.nameservers") or []]


def _is_musl(pod: Thing) -> bool:
    return any("alpine" in image for image in images_of(pod))


def owners(pods: Iterable[Thing]) -> str:
    """The workloads that made them, each once."""
    made = dict.fromkeys(f"{pod.namespace}/{_owner(pod)}" for pod in pods)
    return named([Thing("", "", name, {}) for name in made])


def _owner(pod: Thing) -> str:
    made_by = (pod.body.get("metadata") or {}).get("ownerReferences") or [{}]
    return str(made_by[0].get("name") or pod.name)


def resolving(snapshot: Snapshot, _planned: Planned) -> Iterator[Said]:
    """C47."""
    pods = applications(snapshot)
    found = []
    cluster = list(map(str, (snapshot.service and snapshot.service.at("spec.clusterIPs")) or []))
    adds = [pod for pod in pods if pod.at("spec.dnsPolicy") in (None, "ClusterFirst", "ClusterFirstWithHostNet")]
    many = [pod for pod in adds if len(pod.at("spec.dnsConfig.nameservers") or []) + 1 > MOST_NAMESERVERS]
    if many:
        text = f"{counted(len(many), 'pod')} would have more than {MOST_NAMESERVERS} nameservers: the last are left out"
        remedy = "# kubelet's limit; its Event is DNSConfigForming: take some out of spec.dnsConfig.nameservers"
        found.append(Said(Severity.WARN, text, some(many, "spec.dnsConfig.nameservers"), remedy))
    host = [pod for pod in pods if pod.at("spec.hostNetwork") and pod.at("spec.dnsPolicy") in (None, "ClusterFirst")]
    if host:
        text = (
            f"{counted(len(host), 'pod')} in the node's network with dnsPolicy ClusterFirst: they ask the node's"
            f" resolver and know no name of the cluster: {owners(host)}"
        )
        remedy = "# if they need such names: dnsPolicy ClusterFirstWithHostNet"
        found.append(Said(Severity.INFO, text, some(host, "spec.dnsPolicy"), remedy))
    own = [pod for pod in pods if pod.at("spec.dnsPolicy") == "None"]
    past = [pod for pod in own if not _reaches(pod, cluster)]
    if past:
        text = (
            f"{counted(len(past), 'pod')} with dnsPolicy None ask neither cluster DNS nor a cache of it: {owners(past)}"
        )
        found.append(Said(Severity.INFO, text, some(past, "spec.dnsConfig.nameservers")))
    dots = [pod for pod in pods if (_ndots(pod) or 0) > _NDOTS]
    if dots:
        text = f"{counted(len(dots), 'pod')} with ndots over {_NDOTS}: names outside are asked with all suffixes first"
        remedy = '# spec.dnsConfig.options: [{"name": "ndots", "value": "2"}], or names with a last dot'
        found.append(Said(Severity.WARN, text, some(dots, "spec.dnsConfig.options"), remedy))
    usual = [pod for pod in pods if _ndots(pod) is None and pod.at("spec.dnsPolicy") in (None, "ClusterFirst")]
    text = (
        f"{len(usual)} of {counted(len(pods), 'pod')} of applications have ndots 5, dnsPolicy ClusterFirst, as is usual"
    )
    yield from found or [Said(Severity.PASS, text, ())]


@single
def race(snapshot: Snapshot, _planned: Planned) -> Said:
    """C51."""
    cache = snapshot.cache
    if cache is not None and caught(snapshot, cache):
        return Said(Severity.PASS, "NodeLocal DNSCache's queries are not tracked: there is no race", (str(cache),))
    info = "status.nodeInfo"
    old = [node for node in snapshot.nodes if () < numbers(str(node.at(f"{info}.kernelVersion"))) < _RACE_MENDED]
    arm = [node for node in snapshot.nodes if node.at(f"{info}.architecture") == "arm64"]
    options = '# NodeLocal DNSCache, or for pods with glibc spec.dnsConfig.options: [{"name": "single-request-reopen"}]'
    if old:
        text = (
            f"{counted(len(old), 'node')} with a kernel before 5.1 may lose one of two queries (A and AAAA) that leave"
            " one socket at once: a wait of 5 s now and then, rollout or not"
        )
        return Said(Severity.WARN, text, some(old, f"{info}.kernelVersion"), options)
    if arm:
        text = "on ARM, glibc before 2.33 sends A and AAAA so that one may be lost (glibc bug 26600)"
        return Said(Severity.INFO, text, some(arm, f"{info}.architecture"), options)
    seen = some(snapshot.nodes, f"{info}.kernelVersion")
    return Said(Severity.PASS, "all kernels have the fixes for A and AAAA from one socket", seen)


def _reaches(pod: Thing, cluster: list[str]) -> bool:
    return any(ip in cluster or is_node_local(str(ip)) for ip in pod.at("spec.dnsConfig.nameservers") or [])


def _ndots(pod: Thing) -> int | None:
    said = pod.at("spec.dnsConfig.options[ndots].value")
    return int(said) if said is not None and str(said).isdecimal() else None


NODELOCAL = (
    Check(
        "C25",
        "NodeLocal DNSCache",
        "pods that ask a cache on their node by no conntrack do not feel CoreDNS's rollouts as others do",
        "Alibaba Cloud ACK, checks before upgrading CoreDNS; Kubernetes, Using NodeLocal DNSCache",
        coverage,
    ),
    Check(
        "C26",
        "rollout and memory of NodeLocal DNSCache",
        "a cache that ends takes its node's DNS with it; one that is killed leaves its rules behind",
        "kubernetes/dns#310, #324; kubernetes/kops#14812",
        rollout,
    ),
    Check(
        "C46",
        "workloads that do not ask NodeLocal DNSCache",
        "only who asks it is spared the rollout",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: NodeLocal DNSCache does not work",
        not_on_it,
    ),
    Check(
        "C47",
        "resolv.conf of applications",
        "whom a pod asks, for which names and how often, is decided there",
        "resolv.conf(5); kubelet pkg/kubelet/network/dns/dns.go",
        resolving,
    ),
    Check(
        "C51",
        "A and AAAA from one socket",
        "two packets of one flow that conntrack sees at once: one is dropped, and the client waits for its timeout",
        "kubernetes/kubernetes#56903, #62628; Alibaba Cloud ACK, troubleshooting DNS resolution failures",
        race,
    ),
)
