"""kube-proxy's objects -> its mode and its timeout of UDP sessions, where each is said, and who has not heard of it.

Flags that stand beside --config are ignored (kubernetes/kubernetes
cmd/kube-proxy/app/options.go, Complete); `udpTimeout: 0s` leaves the kernel's 300 s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import yaml

from probe.audit.things import Json, Thing
from probe.corefile import duration_of

CONFIGS = ("kube-proxy-worker", "kube-proxy", "kube-proxy-config", "kube-proxy-master")
"""ACK's, kubeadm's, EKS's, ACK's for its control plane."""
_ARGUMENTS = ("k3s.io/node-args", "rke2.io/node-args")
_SYSTEM = "kube-system"


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """What one kind of kube-proxy is told. mode: iptables, ipvs, nftables; '' if nothing is known of it.

    mode_at, timeout_at: the object, field and value that say so; '' if none does. udp_timeout: of IPVS, seconds; None
    if it is not set. edited: when its ConfigMap was written last, ISO 8601, '' if that is not known. problem: why its
    configuration cannot be read, ''. version: of its image, `1.34.1`.
    """

    mode: str = ""
    mode_at: str = ""
    udp_timeout: float | None = None
    timeout_at: str = ""
    daemons: Thing | None = None
    config: Thing | None = None
    edited: str = ""
    problem: str = ""
    version: str = ""


def proxy_config(daemons: Iterable[Thing], configs: Iterable[Thing], pods: Iterable[Thing] = ()) -> ProxyConfig:
    """Of its DaemonSets the first that is no Windows one; else of a ConfigMap, else of pods that no DaemonSet makes."""
    mine = sorted((one for one in daemons if is_proxy(one)), key=lambda one: _rank(one.name))
    there = {one.name: one for one in configs if one.namespace == _SYSTEM}
    makers: list[Thing] = mine or [one for one in pods if is_proxy(one)]
    maker = makers[0] if makers else None
    named = [*(_mounted(maker) if maker else ()), *(CONFIGS if not maker or maker in mine else ())]
    config = next((there[name] for name in named if name in there), None)
    if maker is None and config is None:
        return ProxyConfig()
    return _config(maker, config, maker if maker in mine else None)


def of_agents(nodes: Iterable[Thing]) -> ProxyConfig:
    """Of k3s and RKE2, whose agents are kube-proxy, too: as the nodes' annotations say they were started."""
    for node in nodes:
        for key in _ARGUMENTS:
            if said := node.annotations.get(key):
                mode = re.search(r"proxy-mode=(\w+)", said)
                timeout = re.search(r"ipvs-udp-timeout=([0-9a-z.]+)", said)
                place = f"{node} metadata.annotations[{key}]"
                return ProxyConfig(
                    mode=mode[1] if mode else "iptables",
                    mode_at=f"{place} proxy-mode: {_shown(mode and mode[1])}",
                    udp_timeout=(duration_of(timeout[1]) or None) if timeout else None,
                    timeout_at=f"{place} ipvs-udp-timeout: {_shown(timeout and timeout[1])}",
                    version=version_of(f":{node.at('status.nodeInfo.kubeletVersion')}"),
                )
    return ProxyConfig()


def is_proxy(thing: Thing) -> bool:
    """A DaemonSet or pod of kube-proxy, on Linux."""
    of = {thing.labels.get(key, "") for key in ("k8s-app", "component", "app.kubernetes.io/name")}
    named = thing.name.startswith("kube-proxy") or any(one.startswith("kube-proxy") for one in of)
    return named and thing.namespace == _SYSTEM and "windows" not in thing.name


def template(thing: Thing) -> str:
    """Where its pods' spec stands."""
    return "spec" if thing.kind == "Pod" else "spec.template.spec"


def words_of(thing: Thing) -> list[str]:
    """The command lines of its containers."""
    containers = thing.at(f"{template(thing)}.containers") or []
    return [str(word) for one in containers for word in [*(one.get("command") or []), *(one.get("args") or [])]]


def flag(words: list[str], name: str) -> str | None:
    """`--name=value`, `--name value`; None if it is not among them."""
    for n, word in enumerate(words):
        # GKE's static pods have all of them in one word, of a shell.
        if found := re.search(rf"(?:^|\s)--?{name}(?:=(\S*)|\s+(\S+)|$)", word):
            said = found[1] if found[1] is not None else found[2]
            return said if said is not None else next(iter(words[n + 1 :]), "")
    return None


def version_of(image: str) -> str:
    """`coredns:v1.11.4-eksbuild.2`, `coredns:1.9.3.10-aliyun` -> three numbers; '' if the tag has none."""
    found = re.search(r":v?([0-9]+\.[0-9]+\.[0-9]+)[^/]*$", image.partition("@")[0])
    return found[1] if found else ""


def edited_at(config: Thing) -> str:
    """When its data was written last, as managedFields say; '' if they are not there (kubectl leaves them out)."""
    entries = config.at("metadata.managedFields") or []
    return max((str(one.get("time") or "") for one in entries if "f:data" in (one.get("fieldsV1") or {})), default="")


def _rank(name: str) -> int:
    return CONFIGS.index(name) if name in CONFIGS else len(CONFIGS)


def _mounted(maker: Thing) -> list[str]:
    volumes = maker.at(f"{template(maker)}.volumes") or []
    return [str(one["configMap"].get("name")) for one in volumes if one.get("configMap")]


def _config(maker: Thing | None, config: Thing | None, daemons: Thing | None) -> ProxyConfig:
    """As --config says where there is one, and as flags say otherwise."""
    words = words_of(maker) if maker else []
    key, said, problem = _read(config) if config else ("", {}, "")
    file = flag(words, "config")
    by_file = config is not None and (maker is None or file is not None)
    if file is not None and config is None:
        problem = f"{maker} --config: {file}, which is of no ConfigMap"
    inside = said.get("ipvs")
    ipvs: Mapping[str, Json] = inside if isinstance(inside, Mapping) else {}
    place = f"{config} data[{key}]" if config else ""
    if by_file:
        mode, timeout = said.get("mode"), ipvs.get("udpTimeout")
        mode_at, timeout_at = f"{place} mode: {_shown(mode)}", f"{place} ipvs.udpTimeout: {_shown(timeout)}"
    else:
        mode, timeout = flag(words, "proxy-mode"), flag(words, "ipvs-udp-timeout")
        mode_at, timeout_at = f"{maker} --proxy-mode: {_shown(mode)}", f"{maker} --ipvs-udp-timeout: {_shown(timeout)}"
    image = str(maker.at(f"{template(maker)}.containers[0].image") or "") if maker else ""
    seconds = duration_of(str(timeout)) if timeout else None
    return ProxyConfig(
        mode="" if problem else str(mode or "iptables"),
        mode_at=problem or mode_at,
        udp_timeout=seconds or None,
        timeout_at=problem or timeout_at,
        daemons=daemons,
        config=config if by_file else None,
        edited=edited_at(config) if config and by_file else "",
        problem=problem,
        version=version_of(image),
    )


def _shown(value: Json) -> str:
    return "not set" if value in (None, "") else str(value)


def _read(config: Thing) -> tuple[str, Mapping[str, Json], str]:
    """The key with the configuration, what it says, and why it cannot be read."""
    data = config.at("data") or {}
    key = next((one for one in ("config.conf", "config") if one in data), next(iter(data), ""))
    try:
        said = yaml.safe_load(str(data.get(key, "")))
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        return key, {}, f"{config} data[{key}]{line}: not valid YAML: kube-proxy will not start with it"
    return key, said if isinstance(said, Mapping) else {}, ""
