"""The name of a plugin or property -> which releases of CoreDNS know it, and how often a server block may hold it.

Source: plugin.cfg of each release from 1.4.0 to 1.15.0, and the properties that plugin/*/setup.go of each one reads;
ErrOnce there in 1.15.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

NEWEST = "1.15.0"
"""The newest release that is known here."""


@dataclass(frozen=True, slots=True)
class Known:
    """since: the first release that has it, '' for 1.6.4 and before; until: the first one without it, '' if none is.

    once: CoreDNS refuses a server block that has this plugin twice.
    """

    since: str = ""
    until: str = ""
    once: bool = False

    def within(self, version: str) -> bool:
        """Whether that release has it."""
        here = release_of(version)
        return (not self.since or here >= release_of(self.since)) and (not self.until or here < release_of(self.until))


def release_of(version: str) -> tuple[int, ...]:
    """`v1.9.3-eksbuild.5` -> (1, 9, 3), for comparisons; () for what is no version."""
    numbers = version.lstrip("v").partition("-")[0].split(".")
    return tuple(map(int, numbers)) if all(part.isdecimal() for part in numbers) else ()


_ONCE = "cache dnssec dynupdate errors grpc hosts kubernetes loop nsid pprof prometheus ready shed tsig view"
_OLD = (
    "auto autopath bind cache chaos debug dnssec dnstap erratic errors etcd file forward health hosts k8s_external "
    "kubernetes log loadbalance loop metadata nsid on pprof prometheus reload rewrite root route53 secondary template "
    "tls trace whoami"
)
_SINCE = {
    "1.5.0": "cancel grpc ready",
    "1.5.1": "any",
    "1.6.2": "azure",
    "1.6.3": "clouddns sign",
    "1.6.4": "acl",
    "1.6.5": "transfer",
    "1.6.6": "bufsize",
    "1.7.0": "dns64",
    "1.8.1": "local",
    "1.8.4": "minimal",
    "1.8.5": "geoip header",
    "1.9.4": "tsig",
    "1.10.0": "view",
    "1.10.1": "timeouts",
    "1.12.0": "multisocket",
    "1.12.2": "quic",
    "1.13.0": "nomad",
    "1.14.0": "grpc_server https https3",
    "1.14.3": "proxyproto",
    "1.14.7": "shed",
    "1.15.0": "dynupdate siit",
}


def _known(old: str, since: Mapping[str, str], until: Mapping[str, str] = MappingProxyType({})) -> dict[str, Known]:
    """Names by the release that brought them, and by the first one without them."""
    return {
        **{name: Known() for name in old.split()},
        **{name: Known(release) for release, names in since.items() for name in names.split()},
        **{name: Known(until=release) for release, names in until.items() for name in names.split()},
    }


PLUGINS: dict[str, Known] = {
    name: replace(known, once=name in _ONCE.split())
    for name, known in _known(_OLD, _SINCE, {"1.5.0": "proxy", "1.7.0": "federation"}).items()
}
_FORWARD = {
    "1.6.8": "max_concurrent",
    "1.11.4": "next",
    "1.12.1": "failfast_all_unhealthy_upstreams",
    "1.13.0": "failover",
    "1.13.2": "max_connect_attempts",
    "1.14.1": "max_idle_conns",
    "1.14.3": "max_age",
    "1.14.4": "next_on_nodata resolver",
    "1.14.5": "doh_method read_timeout",
    "1.14.6": "source_address",
}
_KUBERNETES = {
    "1.12.2": "multicluster",
    "1.12.3": "startup_timeout",
    "1.14.0": "apiserver_qps apiserver_burst apiserver_max_inflight",
    "1.14.7": "zonal",
}
_CACHE = {
    "1.6.6": "serve_stale",
    "1.9.4": "servfail disable",
    "1.10.1": "keepttl",
    "1.14.7": "prefer_positive serve_stale_policy",
}
PROPERTIES: dict[str, dict[str, Known]] = {
    "cache": _known("success denial prefetch", _CACHE),
    "errors": _known("consolidate", {"1.9.3": "stacktrace"}),
    "forward": _known(
        "except max_fails health_check force_tcp prefer_udp tls tls_servername expire policy",
        _FORWARD,
    ),
    "health": _known("lameduck", {}),
    "kubernetes": _known(
        "endpoint endpoint_pod_names fallthrough ignore kubeconfig labels namespace_labels namespaces noendpoints pods "
        "tls ttl",
        _KUBERNETES,
        {"1.7.0": "resyncperiod upstream", "1.8.0": "transfer"},
    ),
    "k8s_external": _known("apex ttl", {"1.9.4": "headless", "1.11.0": "fallthrough"}),
    "log": _known("class", {}),
    "prometheus": _known("", {"1.14.3": "runtime_metrics tls"}),
    "ready": _known("", {"1.12.2": "monitor"}),
    "transfer": _known("to", {"1.14.5": "source"}),
}
"""Of plugins whose blocks hold nothing else."""
