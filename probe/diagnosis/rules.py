"""The decision table: its rules in the order of their tie-breaks, each with cause, remedy and source."""

from __future__ import annotations

from probe.diagnosis import ends, flows, names, paths, remedies, whole
from probe.diagnosis.rule import KUBECTL, LABEL, Rule

_COREFILE = f"{KUBECTL} edit configmap coredns   # in the Corefile:"
_POLICIES = "kubectl get networkpolicy -A"
_PROXIES = "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide"
_LOGS = f"{KUBECTL} logs {LABEL} --tail=50"

RULES: dict[str, Rule] = {
    "prober": Rule(
        "11",
        "this prober, or its lab, lost the replies itself: no fault of DNS",
        "replies that our own receive buffer dropped are counted by the kernel (SO_MEMINFO)",
        "# ask less, or give the prober more CPU and a larger receive buffer:\nsysctl -w net.core.rmem_max=8388608",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: client overloaded",
        paths.prober,
    ),
    "stall": Rule(
        "11",
        "this prober was kept from running: its queries were never sent, and nothing is known of DNS then",
        "all lanes miss the same instants, and the lag of the schedule shows it",
        "# raise the prober's CPU limit, or take it off the busy node:\nkubectl top nodes\n"
        "kubectl top pods -A --sort-by=cpu",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: client overloaded",
        whole.stall,
        whole=True,
    ),
    "client_node": Rule(
        "11",
        "this node loses packets, whoever is asked: its links, its CPU or its queues are full",
        "all targets lose alike, from any source port; with conntrack's table full, ports that are in use are spared",
        "kubectl top nodes\n# on this node:\ngrep Udp: /proc/net/snmp; ip -s link; nstat -az | grep -i drop",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: client overloaded",
        paths.client_node,
        "a lane with `ports: fixed`",
    ),
    "conntrack_full": Rule(
        "12",
        "conntrack's table is full: new flows are dropped, those that it knows go on",
        "a fixed source port is spared, new ones and new TCP connections are not; dmesg: `nf_conntrack: table full`",
        "# on this node:\n"
        "dmesg | grep -i conntrack; sysctl -a | grep nf_conntrack_[cm]\n"
        "sysctl -w net.netfilter.nf_conntrack_max=1048576\n# and NodeLocal DNSCache, whose queries are not tracked",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: conntrack table",
        paths.conntrack_full,
        "a lane with `ports: fixed`",
    ),
    "network": Rule(
        "7",
        "the pod network is broken from here: no CoreDNS pod can be heard, by no transport",
        "TCP is as dead as UDP; with port 53 alone blocked, /ready on 8181 would still answer",
        f"{KUBECTL} get pods -o wide\nkubectl get nodes\n# then from a pod on another node: dnsprobe check\n"
        f"{_POLICIES}",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: container network",
        paths.network,
        "`pods` by UDP and TCP",
    ),
    "port_blocked": Rule(
        "6",
        "port 53 is blocked by UDP and TCP: a NetworkPolicy, a security group or a network ACL",
        "the pods' other ports can be reached, as their metrics show",
        f"{_POLICIES}   # must allow 53 by UDP and TCP, both ways\n"
        "# cloud: 53/UDP and 53/TCP between all nodes, security groups and ACLs",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: security groups",
        paths.port_blocked,
        "`pods` by UDP and TCP",
    ),
    "udp_blocked": Rule(
        "6",
        "port 53 is blocked for one transport: a NetworkPolicy, a security group or a network ACL",
        "past the Service it is the same, and the other transport is fine",
        f"{_POLICIES}   # must allow 53 by UDP and TCP, both ways\n"
        "# cloud: 53/UDP and 53/TCP between all nodes, security groups and ACLs",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: UDP port 53",
        paths.udp_blocked,
        "`pods` by UDP and TCP",
    ),
    "not_listening": Rule(
        "M",
        "nobody listens at that address and port, or a firewall rejects what comes: no DNS server was reached",
        "not one query was answered; a server that ends and comes back answers before or after",
        "# is it the right address and port? on that machine:\nss -lnutp\nnft list ruleset | grep -i reject",
        "RFC 792 (port unreachable), RFC 9293 (RST); Linux net/ipv4/icmp.c",
        paths.not_listening,
    ),
    "no_fallback": Rule(
        "U15",
        "all pods are terminating, and kube-proxy before 1.26 leads to none of them though they answer",
        "pods answer past the Service until their lameduck is over; from 1.26 on they are asked until then",
        f"{KUBECTL} scale deployment coredns --replicas=2\n# never let the Ready pods be none: maxUnavailable 0, a PDB",
        "kubernetes/kubernetes pkg/proxy/topology.go (CategorizeEndpoints)",
        ends.no_fallback,
        "`pods`",
    ),
    "no_pods": Rule(
        "U15",
        "no CoreDNS pod is Ready: the Service has nobody to lead to",
        "every pod was told to go and none has come; a Service that is behind would have Ready pods",
        f"{KUBECTL} scale deployment coredns --replicas=2\n{KUBECTL} get pods {LABEL} -o wide",
        "coredns plugin/health (lameduck); four lameduck experiments on EKS",
        ends.no_pods,
    ),
    "all_evicted": Rule(
        "U16",
        "all CoreDNS pods were evicted at once: they stood on one node, and no PodDisruptionBudget held one back",
        "as with a fast rollout, but none was under way",
        f"{KUBECTL} create poddisruptionbudget coredns \\\n  --selector=k8s-app=kube-dns --max-unavailable=1\n"
        "# and topologySpreadConstraints over kubernetes.io/hostname",
        "Kubernetes, Specifying a Disruption Budget for your Application",
        ends.all_evicted,
        "`pods`",
    ),
    "all_replaced": Rule(
        "U4",
        "all pods were replaced before nodes had learnt of the new ones: new pods were Ready, nobody led to them",
        "the loss is total, not 1/N, and new pods answer past the Service",
        remedies.pace,
        "coredns/coredns#5409, kubernetes/kubernetes#129617",
        ends.all_replaced,
        "`pods`",
    ),
    "short_grace": Rule(
        "U3",
        "the grace period is shorter than preStop and lameduck: the pod was killed while it still served",
        "exit code 137, and /health was open until the end",
        remedies.grace,
        "kubelet killContainer; four lameduck experiments on EKS",
        ends.short_grace,
    ),
    "no_lameduck": Rule(
        "U2",
        "pods close the moment they are told to: CoreDNS has no lameduck",
        "/ready, /health and port 53 close together, at SIGTERM",
        remedies.lameduck,
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS; four lameduck experiments on EKS",
        ends.no_lameduck,
    ),
    "short_lameduck": Rule(
        "U1",
        "nodes learn of a pod's end later than its lameduck lasts: they go on sending to a pod that has closed",
        "the loss begins as a pod closes, in order, and its share is that of the pods that went",
        remedies.lameduck,
        "four lameduck experiments on EKS; coredns/helm#204",
        ends.short_lameduck,
    ),
    "killed": Rule(
        "U1",
        "a pod was deleted by force: it had no lameduck, and nodes led to it until they had learnt of it",
        "it was deleted with a grace period of nothing; SIGTERM and closing are one instant",
        f"# delete pods in order, without --force and --grace-period=0:\n{KUBECTL} delete pod POD",
        "coredns plugin/health (lameduck)",
        ends.killed,
    ),
    "crashed": Rule(
        "U8",
        "a CoreDNS pod ended by itself: it crashed, or was killed for want of memory",
        "nobody had told it to go; exit code 137 with OOMKilled is memory, often two configurations at a reload",
        f"{KUBECTL} logs POD --previous --tail=50\n{KUBECTL} describe pods {LABEL} | grep -A5 Last\n"
        f"# if it was OOMKilled:\n{KUBECTL} set resources deployment coredns --limits=memory=2Gi",
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS (2 GiB)",
        paths.crashed,
    ),
    "reload_lameduck": Rule(
        "U9",
        "a reload closes /ready for a whole lameduck: CoreDNS before 1.9.4",
        "pods answer past the Service, nobody deleted them, and the Corefile was changed",
        f"# upgrade to 1.9.4 or later first:\n{KUBECTL} get deployment coredns -o jsonpath='{{..image}}'\n"
        f"{_COREFILE}\n    health {{\n        lameduck 5s\n    }}",
        "coredns/coredns#5472",
        whole.reload_lameduck,
        whole=True,
    ),
    "affinity": Rule(
        "9",
        "sessionAffinity holds this client on one pod, and that pod is slow or gone",
        "NSID shows one pod for all queries though others are Ready, and these are fine",
        f'{KUBECTL} patch service kube-dns \\\n  -p \'{{"spec":{{"sessionAffinity":"None"}}}}\'',
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS (uneven load)",
        paths.affinity,
        "`nsid: true`",
    ),
    "node_lost": Rule(
        "7",
        "a node is lost, or the way to it: its pod cannot be heard by any transport, and nobody told it to go",
        "TCP is not even connected; of a pod that hangs connects are accepted and not answered",
        f"kubectl get nodes\n{KUBECTL} get pods {LABEL} -o wide\n"
        "# its pod counts until node-monitor-grace-period (40 s) is over",
        "Kubernetes, Nodes: node heartbeats, node-monitor-grace-period",
        paths.node_lost,
        "`pods` by TCP",
    ),
    "pod_stuck": Rule(
        "9",
        "one CoreDNS pod is overloaded or hangs: it can be reached and answers late or not at all",
        "connects are accepted, answers are late; other pods are fine",
        f"kubectl -n kube-system top pods {LABEL}\n{KUBECTL} get deployment coredns -o jsonpath='{{..resources}}'\n"
        f"# no CPU limit of 100m, pods spread over nodes; then, it is replaced:\n{KUBECTL} delete pod POD",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: overloaded",
        paths.pod_stuck,
        "`pods` by TCP",
    ),
    "race": Rule(
        "14",
        "A and AAAA from one port race through conntrack, and one of them is dropped: the lookup waits for its timeout",
        "asked from ports of their own, by TCP or past the Service (no NAT) both are fine; insert_failed grows",
        "# in the application's pod, or glibc from 2.33 on:\n"
        "#   dnsConfig: {options: [{name: single-request-reopen}]}   or use-vc\n"
        "# for good: NodeLocal DNSCache (not tracked), and a kernel from 5.1 on\n"
        "conntrack -S   # on the node: insert_failed",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: A and AAAA; kubernetes/kubernetes#56903",
        flows.race,
        "`pair: true` beside a lane without",
    ),
    "stale_flow": Rule(
        "U10",
        "source ports in use lead to a pod that is gone: conntrack keeps their flows, new ports are fine",
        "fixed ports are dead while new ones answer; conntrack -L shows flows to an address that is no endpoint",
        "# on the node, which mends it at once:\nconntrack -D -p udp --orig-dst SERVICE-IP --reply-src POD-IP\n"
        "# for good: a lameduck longer than readiness takes to fail and nodes to\n"
        "# learn of it (dnsprobe recommend), and clients that change their port:\n"
        "# c-ares udp_max_queries=100, Envoy max_udp_channel_duration",
        "kubernetes/kubernetes#127318, kubernetes/kubernetes#139628",
        flows.stale_flow,
        "a lane with `ports: fresh` beside the fixed one",
    ),
    "ipvs_session": Rule(
        "15",
        "IPVS keeps sessions of source ports to a pod that is gone, and drops what they send",
        "it begins as the endpoint is removed, though the pod still serves, is silent, and ends with the UDP timeout",
        "# on each node, which mends it at once:\nsysctl -w net.ipv4.vs.expire_nodest_conn=1\n"
        "# for good: ipvs.udpTimeout: 10s, then wait 5 minutes; a kernel from 5.9 on\n"
        "kubectl -n kube-system edit configmap kube-proxy",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: IPVS errors",
        flows.ipvs_session,
        "a lane with `ports: fresh` beside the fixed one",
    ),
    "socket_lb": Rule(
        "U11",
        "Cilium's socket load balancer keeps connected UDP sockets on a pod that is gone",
        "as with conntrack, but the node's conntrack is clean, and unconnected sockets are fine",
        "# Cilium: socketLB.hostNamespaceOnly=true, or upgrade it;\n# restart the applications that are stuck\n"
        "cilium status --verbose | grep -i socket",
        "cilium/cilium#27300, cilium/cilium#35773",
        flows.socket_lb,
        "a lane with `ports: fresh` beside the fixed one",
    ),
    "reused_tcp": Rule(
        "U13",
        "a TCP connection in use ended with its pod: the client has to connect again",
        "one FIN or RST for each connection as the pod closes, then all is well",
        "# nothing to mend in the cluster: clients must connect again at once",
        "RFC 7766, 6.2.4",
        flows.reused_tcp,
    ),
    "nodelocal": Rule(
        "U12",
        "NodeLocal DNSCache does not answer on this node: it was restarted, or has ended",
        "the Service is fine meanwhile",
        "kubectl -n kube-system get pods -l k8s-app=node-local-dns -o wide\n"
        "kubectl -n kube-system patch daemonset node-local-dns \\\n"
        '  -p \'{"spec":{"updateStrategy":{"type":"OnDelete"}}}\'\n'
        "# or two DaemonSets (-skipteardown), or a second nameserver",
        "kubernetes/dns#324",
        paths.nodelocal,
        "`service` beside `nodelocal`",
    ),
    "api_server": Rule(
        "F1",
        "the API server takes no connections: CoreDNS goes on with the records that it has, and learns nothing new",
        "DNS and nodes' kubelets can be reached meanwhile",
        "kubectl get --raw '/readyz?verbose'\nkubectl -n default get endpointslices",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: the API server",
        paths.api_server,
        "`api` and `nodes` by connect",
    ),
    "unready": Rule(
        "10b",
        "a pod answers DNS, and its /ready says no: it has lost the API server, or reloads (before 1.9.4)",
        "by UDP and TCP it answers meanwhile, and /health does",
        f"{_LOGS} | grep ready\n{KUBECTL} get pods {LABEL}",
        "coredns plugin/ready (until-ready), plugin/kubernetes; coredns/coredns#5472",
        paths.unready,
        "`pods` by http",
    ),
    "kube_proxy": Rule(
        "F3",
        "every pod answers and the Service does not: this node's kube-proxy is not running or behind",
        "no pod has ended; where an old pod is still led to, it is a share that is lost",
        f"{_PROXIES}\n{KUBECTL} get endpointslices\nkubectl -n kube-system rollout restart daemonset kube-proxy",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures",
        paths.kube_proxy,
        "`pods`",
    ),
    "unsynced": Rule(
        "U5",
        "a new pod was Ready before it knew the cluster's records: it answers SERVFAIL",
        "only new pods do so, right after their Ready; old ones are fine",
        f"{_COREFILE}\n    ready\n# and readinessProbe: httpGet /ready, port 8181, in the Deployment",
        "coredns plugin/kubernetes (startup_timeout)",
        names.unsynced,
        "`pods`",
    ),
    "too_big": Rule(
        "3",
        "the answer does not fit into a datagram: it is truncated, and clients without TCP get part of it",
        "the TC bit is set; by TCP the same name is answered in full",
        "# in the application's pod: dnsConfig: {options: [{name: use-vc}]} or edns0;\n# Go: Dial by tcp\n"
        f"{_COREFILE}\n    bufsize 1232",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: headless",
        names.too_big,
    ),
    "max_concurrent": Rule(
        "1d",
        "CoreDNS refuses what is over forward's max_concurrent: its upstream is too slow for the load",
        "coredns_forward_max_concurrent_rejects_total grows; the upstream itself does not refuse",
        f"{_COREFILE}\n    forward . /etc/resolv.conf {{\n        max_concurrent 2000\n    }}\n"
        "# 2 kB for each query; and mend the slow upstream",
        "coredns/coredns#4326",
        names.max_concurrent,
        "`upstream`",
    ),
    "upstream_refuses": Rule(
        "1c",
        "the upstream refuses: it does not serve CoreDNS's nodes, or this name",
        "asked directly, it says REFUSED too, at once and whatever the load",
        f"{_COREFILE}\n    forward . ANOTHER-UPSTREAM\n# and the nodes' /etc/resolv.conf",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: REFUSED",
        names.upstream_refuses,
        "`upstream`",
    ),
    "upstream_denies": Rule(
        "1a",
        "the upstream says that the name does not exist",
        "asked directly, it says so too; with a search suffix that is as it should be",
        "# mend the record, the zone or the search domain;\n# write external names with a dot at the end",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: NXDOMAIN",
        names.upstream_denies,
        "`upstream`",
    ),
    "upstream_without_tcp": Rule(
        "17",
        "the upstream does not answer by TCP, and CoreDNS asks it as it was asked: NodeLocal DNSCache asks by TCP",
        "only what comes by TCP fails; asked directly, the upstream is fine by UDP and not by TCP",
        f"{_COREFILE}\n    forward . /etc/resolv.conf {{\n        prefer_udp\n    }}",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: PrivateZone",
        names.upstream_without_tcp,
        "`upstream` by TCP",
    ),
    "way_upstream": Rule(
        "F2",
        "CoreDNS does not reach its upstream, which answers from here: the way from its nodes, or the Corefile",
        "the upstream is fine, asked directly in the same seconds",
        f"{_LOGS} | grep errors\n{KUBECTL} get configmap coredns -o yaml   # forward . ...\n"
        f"{KUBECTL} get pods {LABEL} -o wide",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures",
        names.way_upstream,
        "`upstream`",
    ),
    "upstream_fails": Rule(
        "1b",
        "the upstream fails: it answers SERVFAIL itself",
        "asked directly, it says SERVFAIL too, at once",
        f"{_COREFILE}\n    forward . UPSTREAM ANOTHER-UPSTREAM {{\n        failover SERVFAIL\n    }}\n"
        f"    cache 30 {{\n        serve_stale\n    }}",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: SERVFAIL",
        names.upstream_fails,
        "`upstream`",
    ),
    "upstream_silent": Rule(
        "1b",
        "the upstream is silent or closed: CoreDNS says SERVFAIL after 2 to 6 s, less patient clients time out",
        "asked directly, it is silent too; cached names and the cluster's own are fine",
        f"{_LOGS} | grep errors\n{_COREFILE}\n    forward . UPSTREAM ANOTHER-UPSTREAM\n    cache 30 {{\n"
        "        serve_stale\n    }",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: SERVFAIL",
        names.upstream_silent,
        "`upstream`",
    ),
    "autopath": Rule(
        "13",
        "autopath answers names with a search suffix for their clients, and does so wrongly while pods come and go",
        "names as they stand, with a dot at the end, are fine; without autopath a suffixed name is NXDOMAIN",
        f"{_COREFILE}\n    # delete `autopath @kubernetes`, and `pods verified` with it",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: autopath",
        names.autopath,
        "a name with a search suffix",
    ),
    "stale_records": Rule(
        "2",
        "CoreDNS answers with old addresses: it has lost its watch of the API server, or crashed (before 1.7.0)",
        "the EndpointSlices have others, ClusterIPs are right; if the Service was changed meanwhile, run it again",
        f"{_LOGS} | grep 'Failed to'\n{KUBECTL} rollout restart deployment coredns\n# CoreDNS before 1.7.0: upgrade it",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: headless",
        names.stale_records,
        "a headless Service with `expect: endpoints`",
    ),
    "other_answers": Rule(
        "2",
        "one pod answers otherwise than the others: it has lost the API server, or has another Corefile",
        "the others answer as expected, asked directly",
        f"{KUBECTL} logs POD --tail=20\n{KUBECTL} delete pod POD   # it is replaced\n"
        "# CoreDNS before 1.7.0: upgrade it",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: headless",
        names.other_answers,
        "`pods`",
    ),
    "no_api": Rule(
        "10b",
        "CoreDNS does not know the cluster's records: it cannot reach the API server, or may not read it",
        "names of the cluster are SERVFAIL on every pod",
        f"{_LOGS} | grep -i failed\n"
        "kubectl auth can-i list endpointslices -A \\\n"
        "  --as=system:serviceaccount:kube-system:coredns",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures",
        names.no_api,
        "`pods`",
    ),
    "no_record": Rule(
        "5",
        "the name is not there: a wrong namespace or serviceName, a Service without Ready pods, another domain",
        "it is the same on every pod, all the time",
        "kubectl get service,endpointslices -n NAMESPACE\n"
        "kubectl get statefulset -n NAMESPACE -o jsonpath='{..serviceName}'\n"
        "# pods that are not Ready are left out, unless the Service has\n# spec.publishNotReadyAddresses: true",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures",
        names.no_record,
        "`pods`",
    ),
    "stuck_rollout": Rule(
        "10a",
        "new pods end as soon as they start: the Corefile has what this CoreDNS does not know, or cannot be read",
        "they never open port 53, and their exits repeat; old pods go on",
        f"{_LOGS} | grep 'Error'\n{_COREFILE}\n    # take out the unknown directive\n"
        f"{KUBECTL} rollout undo deployment coredns",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: Unknown directive",
        whole.stuck_rollout,
        whole=True,
    ),
    "never_ready": Rule(
        "U6",
        "new pods run and never become Ready: the probe asks /ready, and the Corefile has no `ready`",
        "they do not end, as with an unknown directive; the rollout stands still, old pods go on",
        f"{_COREFILE}\n    ready",
        "Alibaba Cloud ACK, checks before upgrading CoreDNS",
        whole.never_ready,
        whole=True,
    ),
    "overwritten": Rule(
        "U7",
        "the upgrade put its own Corefile or replicas in place of yours: what you had set is gone",
        "it came with a new image within minutes, and no step of this run asked for it",
        remedies.restore,
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS; kubeadm (deployedDNSReplicas), Cluster API",
        whole.overwritten,
        whole=True,
    ),
    "nodelocal_unused": Rule(
        "16",
        "NodeLocal DNSCache answers, and resolvers do not ask it: their resolv.conf has the Service alone",
        "CoreDNS counts what the Service is asked; where NodeLocal has the Service's address too it would not",
        "# in the application's pod, or injected: dnsPolicy: None,\n"
        "#   dnsConfig: {nameservers: [169.254.20.10, SERVICE-IP], searches: ...}\n"
        "# Alpine (musl) asks both at once: use another image\n"
        "kubectl get pod POD -o jsonpath='{.spec.dnsConfig}'",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: NodeLocal DNSCache",
        whole.nodelocal_unused,
        whole=True,
    ),
    "one_slow": Rule(
        "9",
        "one CoreDNS pod is overloaded: its answers are late, those of the others are not",
        "with all of them slow it would be the load; with this prober slow its own lag would show it",
        f"kubectl -n kube-system top pods {LABEL}\nkubectl top nodes\n"
        f"{KUBECTL} get service kube-dns -o yaml | grep Affinity",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: uneven load",
        whole.one_slow,
        whole=True,
        unless=("pod_stuck", "affinity"),
    ),
    "all_slow": Rule(
        "8",
        "CoreDNS is overloaded: answers of every pod are late",
        "asked directly, pods are as slow as the Service, and this prober's own lag is small",
        f"kubectl -n kube-system top pods {LABEL}\n{KUBECTL} scale deployment coredns --replicas=4\n"
        f"# a CPU limit of 100m throttles it:\n{KUBECTL} get deployment coredns -o jsonpath='{{..limits}}'",
        "Alibaba Cloud ACK, troubleshooting DNS resolution failures: overloaded",
        whole.all_slow,
        whole=True,
    ),
    "one_for_all": Rule(
        "9",
        "one pod answers this client alone: sessionAffinity",
        "NSID names one pod for all queries from new source ports, though others are Ready",
        f'{KUBECTL} patch service kube-dns \\\n  -p \'{{"spec":{{"sessionAffinity":"None"}}}}\'',
        "Alibaba Cloud ACK, precautions for upgrading CoreDNS",
        whole.one_for_all,
        whole=True,
        unless=("affinity",),
    ),
}
"""In the order of their tie-breaks; a new one: a function that says whether it fits, a line here."""
