"""The name of a directive -> which releases of CoreDNS have such a plugin, and how often a server block may hold it.

Source: plugin.cfg of each release from 1.4.0 to 1.15.0; ErrOnce in plugin/*/setup.go of 1.15.0.
"""

from __future__ import annotations

from dataclasses import dataclass

NEWEST = "1.15.0"
"""The newest release that is known here."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """since: the first release that has it, '' for 1.4.0 and before; until: the first one without it, '' if none is.

    once: CoreDNS refuses a server block that has it twice.
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


_ONCE = frozenset(
    "cache dnssec dynupdate errors grpc hosts kubernetes loop nsid pprof prometheus ready shed tsig view".split()
)
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
PLUGINS: dict[str, Plugin] = {
    **{name: Plugin(once=name in _ONCE) for name in _OLD.split()},
    **{name: Plugin(since, once=name in _ONCE) for since, names in _SINCE.items() for name in names.split()},
    "proxy": Plugin(until="1.5.0"),
    "federation": Plugin(until="1.7.0"),
}
