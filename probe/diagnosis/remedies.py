"""What fitted, and who keeps CoreDNS -> the change that ends it, in the form that the platform keeps."""

from __future__ import annotations

import re

from probe.advice import Recommendation, platform_of, recommend
from probe.cluster import Shutdown
from probe.diagnosis.moment import Moment
from probe.diagnosis.rule import KUBECTL, Fit

_NUMBER = r"([0-9.]+)"


def lameduck(moment: Moment, fit: Fit, platform: str) -> str:
    """A lameduck that outlasts what was measured."""
    where = platform_of(platform)
    advice = recommend(fit.propagation or 10.0, where.seen(shutdown_of(moment)), settable=where.settable)
    return _patched(advice, platform) or f"# {where.keeps}"


def grace(moment: Moment, fit: Fit, platform: str) -> str:
    """A grace period that has room for the lameduck."""
    where, now = platform_of(platform), where_now(moment, platform)
    advice = recommend(min(now.lameduck, fit.propagation or now.lameduck), now, settable=where.settable)
    return _patched(advice, platform) or f"# {where.keeps}: lower the lameduck to what the grace period leaves"


def where_now(moment: Moment, platform: str) -> Shutdown:
    """How pods end, with what the platform decides."""
    return platform_of(platform).seen(shutdown_of(moment))


def _patched(advice: Recommendation, platform: str) -> str:
    said = platform_of(platform).patch(advice)
    return (
        f"# lameduck {advice.lameduck:g} s, grace period {advice.grace} s or more, as {platform} keeps it:\n{said}"
        if said
        else ""
    )


def pace(moment: Moment, fit: Fit, platform: str) -> str:
    """New pods must be known everywhere before old ones go."""
    wait = max(15, round((fit.propagation or 10) * 1.5 + 1))
    spec = f'{{"spec":{{"minReadySeconds":{wait},"strategy":{{"rollingUpdate":{{"maxUnavailable":0,"maxSurge":1}}}}}}}}'
    return f"{KUBECTL} patch deployment coredns --patch '{spec}'\n{lameduck(moment, fit, platform)}"


def restore(_: Moment, __: Fit, platform: str) -> str:
    """What was overwritten is put back, where the platform keeps it."""
    return (
        f"# as {platform} keeps it: {platform_of(platform).keeps}\n"
        f"{KUBECTL} get deployment,configmap coredns -o yaml   # compare with your copy, and apply what is missing\n"
        "# kubeadm: upgrade with --skip-phases=addon/coredns; Cluster API: annotate the KubeadmControlPlane with\n"
        "# controlplane.cluster.x-k8s.io/skip-coredns"
    )


def shutdown_of(moment: Moment) -> Shutdown:
    """How pods end, by the run's facts, else as it was seen; what neither says is as Kubernetes has it by default."""
    facts = moment.timeline.run.head.facts
    said = ", ".join(f"{name} {value}" for name, value in facts.items())
    pods = [p for p in moment.pods.values() if p.deleted]
    seen = [p.lameduck_s for p in pods if p.lameduck_s is not None and p.exit_code != 137]
    lasts = _found(said, rf"lameduck {_NUMBER}", max(seen, default=5.0))
    readiness = re.search(r"readiness (ready|health|none)(?:, ([0-9.]+) s x ([0-9]+))?", said)
    version = re.search(r"kubernetes v?([0-9]+\.[0-9]+)", said)
    asks, period, failures = readiness.groups() if readiness else ("ready", None, None)
    return Shutdown(
        replicas=max(1, len([p for p in moment.pods.values() if p.ready_ns == 0])),
        lameduck=lasts,
        grace_period=next((p.grace for p in pods if p.grace), _found(said, rf"grace(?: |_)period {_NUMBER}", 30.0)),
        pre_stop=_found(said, rf"pre(?:S|_s)top {_NUMBER}", 0.0),
        readiness=asks,
        readiness_period=float(period) if period else _found(said, rf"readiness_period {_NUMBER}", 10.0),
        readiness_failures=int(failures) if failures else int(_found(said, rf"readiness_failures {_NUMBER}", 3)),
        proxy_mode="ipvs"
        if "ipvs" in f"{facts.get('kube-proxy', '')} {facts.get('lab.proxy_mode', '')}"
        else "iptables",
        kubernetes=version[1] if version else "1.33",
    )


def _found(text: str, pattern: str, otherwise: float) -> float:
    match = re.search(pattern, text)
    return float(match[1]) if match else otherwise
