"""Every inspection, precaution and FAQ of the upgrade guides -> what of dnsprobe covers it; nothing is left uncovered.

What covers a point: a check of the audit (`C16`), a rule of the diagnosis (`rule: affinity`), a cause that
`dnsprobe check` names (`cause: upstream`), a step of the plan (`plan: ` and how its title begins), a scenario
(`scenario: ab-race`), a module (`module: ...`), a command (`cli: check`), or a message that is known (`message: ...`).
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

import pytest

from probe.audit import audit
from probe.audit.check import Planned
from probe.audit.checks import CHECKS
from probe.audit.plan import plan_of
from probe.audit.platform import detect
from probe.diagnosis.checked import CAUSES
from probe.diagnosis.messages import meaning_of
from probe.diagnosis.rules import RULES
from tests.distributions import DISTRIBUTIONS

ROOT = Path(__file__).parents[1]
PRECAUTIONS = "Alibaba Cloud ACK: precautions for upgrading CoreDNS"
BEFORE = "Alibaba Cloud ACK: checks before, and steps of, the automatic CoreDNS upgrade"
TROUBLE = "Alibaba Cloud ACK: troubleshooting DNS resolution failures"
AIRSHIP = "Airship 2: a study of CoreDNS upgrades by kubeadm and Cluster API"

COVERED: list[tuple[str, str, tuple[str, ...]]] = [
    (PRECAUTIONS, "kube-proxy's mode: the rest of the section is for IPVS alone", ("C19",)),
    (PRECAUTIONS, "set the timeout of UDP sessions to 10 s", ("C20", "plan: Set kube-proxy's timeout")),
    (PRECAUTIONS, "check the impact on UDP-based workloads first", ("C44",)),
    (PRECAUTIONS, "add udpTimeout under ipvs of the ConfigMap kube-proxy-worker, the key if it is missing", ("C20",)),
    (PRECAUTIONS, "recreate all pods of kube-proxy-worker", ("C45",)),
    (PRECAUTIONS, "verify: the third value of ipvsadm -L --timeout is 10", ("C45",)),
    (PRECAUTIONS, "wait at least 5 minutes before you proceed", ("C45", "plan: Set kube-proxy's timeout")),
    (PRECAUTIONS, "Kubernetes 1.16 or earlier: ipvsadm --set 900 120 10 on all nodes", ("C20",)),
    (PRECAUTIONS, "compare the timeouts before and after", ("C45",)),
    (PRECAUTIONS, "sessionAffinity of kube-dns is None", ("C16", "plan: Take sessionAffinity off")),
    (PRECAUTIONS, "delete sessionAffinityConfig and its subfields, too", ("C16",)),
    (PRECAUTIONS, "look at the Service again after the change", ("C16",)),
    (PRECAUTIONS, "a new configuration needs memory: raise the limit to 2 GiB", ("C14", "plan: Give memory")),
    (PRECAUTIONS, "the health plug-in is enabled", ("C03",)),
    (PRECAUTIONS, "lameduck is set, to 15 seconds", ("C03", "C05", "plan: Let pods go slowly")),
    (PRECAUTIONS, "the samples' // comments, pasted", ("C50",)),
    (PRECAUTIONS, "the samples' three health blocks, pasted together", ("C07", "C50")),
    (PRECAUTIONS, "the pods run as expected after the change, else their events and logs", ("C38", "rule: crashed")),
    (PRECAUTIONS, "the upgrade migrates the Corefile and recreates the pods", ("C02", "C34", "plan: Upgrade CoreDNS")),
    (PRECAUTIONS, "IPVS does not end UDP flows gracefully (k/k#71514)", ("C20", "rule: ipvs_session")),
    (BEFORE, "the template is overwritten, the Corefile upgraded, the replicas kept",
     ("C34", "plan: See what was over")),
    (BEFORE, "customised tolerations, requests and limits are overwritten: apply them again",
     ("C34", "plan: See what")),
    (BEFORE, "under IPVS lookups fail for up to five minutes, everywhere", ("C19", "C20", "rule: ipvs_session")),
    (BEFORE, "a shorter timeout of IPVS' UDP sessions", ("C20", "C45")),
    (BEFORE, "NodeLocal DNSCache", ("C25",)),
    (BEFORE, "Alibaba Cloud Linux 2: kernel 4.19.91-25.1.al7 or later", ("C21",)),
    (BEFORE, "other systems: the UDP timeout", ("C20", "C21")),
    (BEFORE, "or all workloads on NodeLocal DNSCache before the upgrade", ("C46",)),
    (BEFORE, "it takes about 2 minutes, by the number of replicas", ("plan: Upgrade CoreDNS",)),
    (BEFORE, "new replicas that cannot be scheduled or started",
     ("C37", "C49", "rule: stuck_rollout", "rule: pod_stuck")),
    (BEFORE, "it rolls back by itself within ten minutes", ("plan: Look on", "scenario: watch-upgrade")),
    (BEFORE, "ready is in the Corefile from 1.5.0 on, else no new pod becomes Ready", ("C06", "rule: never_ready")),
    (BEFORE, "ready stands where kubernetes does: indentation and braces", ("C50",)),
    (BEFORE, "the new Corefile was loaded: plugin/reload in the log, within 30 s", ("C08", "plan: Put `ready`")),
    (BEFORE, "assess UDP services before the timeout is changed", ("C44",)),
    (BEFORE, "recreate kube-proxy-worker, verify by ipvsadm, watch for five minutes", ("C45",)),
    (BEFORE, "Kubernetes 1.16 or earlier: ipvsadm on all nodes", ("C20",)),
    (BEFORE, "afterwards: configure CoreDNS reasonably", ("C10", "C11", "C12", "C32")),
    (TROUBLE, "names across namespaces need the namespace", ("rule: no_record", "C47")),
    (TROUBLE, "headless Services: improper configuration, missing records", ("C28", "C29", "rule: no_record")),
    (TROUBLE, "NetworkPolicies without port 53 by UDP and TCP", ("C40", "rule: port_blocked")),
    (TROUBLE, "security groups and host firewalls", ("rule: udp_blocked", "rule: port_blocked")),
    (TROUBLE, "no dig in the image: a debugging pod", ("cli: check",)),
    (TROUBLE, "logs are spread over the pods, and queries are logged by the plugin log alone",
     ("module: probe.diagnosis.querylog",)),
    (TROUBLE, "the resolvers of languages and libcs have faults of their own", ("C51", "module: probe.clients.glibc")),
    (TROUBLE, "an improper /etc/resolv.conf of a pod", ("C47", "cause: nameservers")),
    (TROUBLE, "kube-proxy does not follow CoreDNS's pods", ("C18", "C20", "rule: kube_proxy")),
    (TROUBLE, "upstream servers improperly configured", ("C32", "rule: upstream_fails")),
    (TROUBLE, "message of ping", ("message: ping: xxx.yyy.zzz: Name or service not known",)),
    (TROUBLE, "message of curl", ("message: curl: (6) Could not resolve host: xxx.yyy.zzz",)),
    (TROUBLE, "message of PHP", (
        "message: php_network_getaddresses: getaddrinfo failed: Name or service not known in xxx.php on line 1",)),
    (TROUBLE, "message of Go, no such name",
     ("message: dial tcp: lookup xxx.yyy.zzz on 100.100.2.136:53: no such host",)),
    (TROUBLE, "message of dig, no such name", ("message: ;; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 1",)),
    (TROUBLE, "message of Go, silence", (

           "message: dial tcp: lookup x.y.z on 100.100.2.139:53: read udp 10.0.0.1:4->10.0.0.2:53: i/o timeout",)),
    (TROUBLE, "message of dig, silence", ("message: ;; connection timed out; no servers could be reached",)),
    (TROUBLE, "the frequency of errors: all the time, at peaks, now and then",
     ("cli: explain", "rule: conntrack_full")),
    (TROUBLE, "the DNS configuration of application pods", ("C47",)),
    (TROUBLE, "the status of the CoreDNS pods", ("C38",)),
    (TROUBLE, "the operational logs of CoreDNS", ("C38", "rule: crashed")),
    (TROUBLE, "the query logs of CoreDNS", ("module: probe.diagnosis.querylog",)),
    (TROUBLE, "the CoreDNS pod's way to the API server", ("cause: api_server", "rule: no_api")),
    (TROUBLE, "the CoreDNS pod's way to its upstream", ("rule: way_upstream", "cause: upstream")),
    (TROUBLE, "FAQ: CoreDNS cannot connect to the API server", ("rule: no_api", "C27")),
    (TROUBLE, "FAQ: CoreDNS cannot connect to its upstream", ("rule: way_upstream", "rule: upstream_silent", "C32")),
    (TROUBLE, "the way from applications to the Service", ("rule: kube_proxy",)),
    (TROUBLE, "the way from applications to the CoreDNS pods, by ping and by DNS",
     ("rule: node_lost", "rule: network")),
    (TROUBLE, "FAQ: applications cannot connect to the kube-dns Service",
     ("rule: kube_proxy", "rule: udp_blocked", "C17")),
    (TROUBLE, "FAQ: applications cannot connect to the CoreDNS pods: container network or ICMP", ("rule: network",)),
    (TROUBLE, "FAQ: applications cannot connect to the CoreDNS pods: overload or UDP port 53",
     ("rule: client_node", "rule: udp_blocked")),
    (TROUBLE, "packets captured on both nodes: did the query arrive?",
     ("module: probe.diagnosis.querylog", "rule: network")),
    (TROUBLE, "external names are not resolved", ("rule: upstream_fails", "C32")),
    (TROUBLE, "NXDOMAIN, also of suffixed names", ("rule: upstream_denies", "rule: no_record")),
    (TROUBLE, "SERVFAIL of the upstream", ("rule: upstream_fails", "rule: upstream_silent")),
    (TROUBLE, "REFUSED by the upstream", ("rule: upstream_refuses", "rule: max_concurrent")),
    (TROUBLE, "headless names: CoreDNS before 1.7.0 ends when the API server is away", ("C01", "rule: other_answers")),
    (TROUBLE, "headless names: the flag tc, more addresses than fit",
     ("C30", "C33", "rule: too_big", "scenario: headless-truncation")),
    (TROUBLE, "clients by TCP: use-vc, Go's Dial", ("C30",)),
    (TROUBLE, "after an update to 1.8.4: tolerate-unready-endpoints", ("C28",)),
    (TROUBLE, "names of a StatefulSet's pods: serviceName", ("C29", "rule: no_record")),
    (TROUBLE, "security group rules or network ACLs", ("rule: udp_blocked", "rule: port_blocked")),
    (TROUBLE, "container network connectivity", ("rule: network",)),
    (TROUBLE, "CoreDNS pods are overloaded: CPU and memory near their limits", ("C14", "C15", "rule: all_slow")),
    (TROUBLE, "scale out, or NodeLocal DNSCache", ("C10", "C25")),
    (TROUBLE, "uneven load: fewer than two replicas, or several on a node", ("C10", "C11", "rule: one_slow")),
    (TROUBLE, "uneven load: sessionAffinity", ("C16", "rule: affinity", "rule: one_for_all")),
    (TROUBLE, "pods are not Running, or restart again and again", ("C38", "rule: crashed", "rule: pod_stuck")),
    (TROUBLE, "log: Unknown directive", (
        "C02", "C50", "rule: stuck_rollout",
        "message: /etc/coredns/Corefile:4 - Error during parsing: Unknown directive 'ready'")),
    (TROUBLE, "log: Failed to watch, which is harmless while lookups do not fail", (

           "message: reflector.go:125: Failed to watch *v1.Pod: Get \"https://10.0.0.1/api\": refused",)),
    (TROUBLE, "log: i/o timeout of the upstream", (
        "message: [ERROR] plugin/errors: 2 x.com. A: read udp 172.20.6.53:58814->100.100.2.136:53: i/o timeout",)),
    (TROUBLE, "the client's node is overloaded", ("rule: client_node",)),
    (TROUBLE, "the conntrack table is full", ("C39", "rule: conntrack_full", "message: nf_conntrack: conntrack full")),
    (TROUBLE, "autopath", ("C31", "rule: autopath")),
    (TROUBLE, "A and AAAA at the same time from the same port", ("C51", "rule: race", "scenario: ab-race")),
    (TROUBLE, "libc before 2.33 on ARM", ("C51",)),
    (TROUBLE, "options single-request-reopen; another image than Alpine; IPv4 alone in PHP", ("C51", "C46")),
    (TROUBLE, "IPVS errors, for about 5 minutes after nodes or pods go",
     ("C20", "C21", "rule: ipvs_session", "scenario: ipvs-stale-session")),
    (TROUBLE, "NodeLocal DNSCache is not asked: no DNSConfig injected", ("C46", "rule: nodelocal_unused")),
    (TROUBLE, "NodeLocal DNSCache is not asked alone: Alpine asks all nameservers", ("C46",)),
    (TROUBLE, "PrivateZone has no TCP: prefer_udp", ("C32", "rule: upstream_without_tcp")),
    (AIRSHIP, "the ServiceAccount, its ClusterRole and binding", ("C27",)),
    (AIRSHIP, "the Deployment, ConfigMap and Service", ("C17", "C34", "C50")),
    (AIRSHIP, "two replicas and RollingUpdate: is there no outage?",
     ("C10", "C13", "rule: all_replaced", "scenario: rolling-restart")),
    (AIRSHIP, "an outdated Corefile must be updated by hand", ("C02",)),
    (AIRSHIP, "release notes of each x.y.0 and x.y.1 between: incompatibilities", ("C01", "C02")),
    (AIRSHIP, "plugins whose deprecation must be looked at", ("C02",)),
    (AIRSHIP, "kubeadm may reset the Deployment and its replicas", ("C34", "C35", "plan: See what was over")),
    (AIRSHIP, "kubeadm leaves incompatible directives in place", ("C02", "C35")),
    (AIRSHIP, "--skip-phases=addon/coredns", ("C35",)),
    (AIRSHIP, "the version of Kubernetes in KubeadmControlPlane upgrades CoreDNS", ("C35", "plan: Upgrade CoreDNS")),
    (AIRSHIP, "the annotation skip-coredns, for upgrades alone", ("C35",)),
    (AIRSHIP, "Cluster API's corefile-migration must know the version", ("C35",)),
    (AIRSHIP, "the image in KubeadmControlPlane: editing it reconciles, and may replace machines",
     ("C35", "plan: Or upgrade Kubernetes")),
    (AIRSHIP, "imageRepository and imageTag: the path coredns/coredns, the v, k8s.gcr.io", ("C49",)),
    (AIRSHIP, "a Cluster API that is new enough for the version", ("C35",)),
    (AIRSHIP, "an explicit version is for upgrades, not for installation", ("C35",)),
    (AIRSHIP, "a control plane machine that is never provisioned: the upgrade waits",
     ("plan: Or upgrade Kubernetes", "plan: Look on")),
    (AIRSHIP, "the study's outcome: upgrade Kubernetes, and CoreDNS with it", ("plan: Or upgrade Kubernetes",)),
]  # fmt: skip


@cache
def steps() -> tuple[str, ...]:
    """The titles of the steps that the plans of some clusters have."""
    titles: dict[str, None] = {}
    for name, made in DISTRIBUTIONS.items():
        cluster = made().set(
            "Service/(openshift-dns/)?(kube-dns|coredns|dns-default)", "spec.sessionAffinity", "ClientIP"
        )
        if "ConfigMap/coredns" in cluster.things and name == "kubeadm":
            cluster.edit("    ready\n", "")
        snapshot = cluster.snapshot()
        for platform in (detect(snapshot)[0], "capi"):
            planned = Planned(platform=platform, figures={"resident_bytes": 1e9})
            for step in plan_of(snapshot, planned, audit(snapshot, planned)):
                titles[step.title] = None
    return tuple(titles)


def exists(what: str) -> bool:
    kind, _, name = what.partition(": ")
    match kind:
        case "rule":
            return name in RULES
        case "cause":
            return f"_{name}" in {cause.__name__ for cause in CAUSES}
        case "plan":
            return any(title.startswith(name) for title in steps())
        case "scenario":
            return (ROOT / "scenarios" / f"{name}.yaml").is_file()
        case "module":
            return importlib.import_module(name) is not None
        case "cli":
            return (ROOT / "probe" / "cli" / f"{name}.py").is_file()
        case "message":
            return meaning_of(name) is not None
    return kind in CHECKS


@pytest.mark.parametrize(("guide", "point", "covered"), COVERED)
def test_every_point_of_the_guides_is_covered(guide: str, point: str, covered: tuple[str, ...]) -> None:
    assert covered, f"{guide}: {point}"
    assert [what for what in covered if not exists(what)] == []


def test_what_covers_nothing_is_not_taken_for_something() -> None:
    assert not any(map(exists, ("C99", "rule: nothing", "plan: Nothing", "scenario: none", "message: all is well")))
