"""What a lab cluster is made of: pods, the Service in front of them, and the names they serve."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LabSettings:
    """Durations in seconds. Defaults are kubeadm's, except a propagation that is known and short.

    `backend`: `loopback`, or `netns` (root): network namespaces, with the kernel's own NAT and conntrack.
    `coredns`: `auto` (the real one if found), `real`, or `stand-in`.
    `kubernetes`: the kube-proxy era, as "1.33"; >= 1.26 falls back to serving-terminating endpoints.
    `kernel`: for IPVS; before 5.9 a packet to a stale session is dropped even with expire_nodest_conn=1.
    `readiness`: what the readiness probe asks: `ready`, `health`, or `none`.
    `udp_timeout`: of Service sessions; None is the mode's own: 300 s for ipvs, 120 s for iptables.
    `max_unavailable`, `max_surge`, `min_ready_seconds`: the Deployment's strategy of a rolling update; kubeadm's is
    1 and 25 %, rounded up.
    `teardown`: from the process's exit to the end of the pod's network (refused before, silent after).
    """

    backend: str = "loopback"
    replicas: int = 3
    lameduck: float = 5.0
    grace_period: float = 30.0
    pre_stop: float = 0.0
    readiness: str = "ready"
    readiness_period: float = 10.0
    readiness_failures: int = 3
    propagation: float = 1.0
    proxy_mode: str = "iptables"
    udp_timeout: float | None = None
    expire_nodest_conn: bool = True
    kubernetes: str = "1.33"
    kernel: str = "6.1"
    coredns: str = "auto"
    max_unavailable: int = 1
    max_surge: int = 1
    min_ready_seconds: float = 0.0
    start_delay: float = 0.0
    teardown: float = 0.5
    port: int = 10053
