"""Snapshot -> what several checks ask of it, each in one place; and remedies in the form the platform keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps

from probe.advice import PLATFORMS
from probe.advice.forms import Maker, Settings
from probe.audit.check import Evidence, Look, Planned, Said, Severity
from probe.audit.quantity import numbers
from probe.audit.snapshot import Snapshot, Unread
from probe.audit.things import Field, Json, Thing
from probe.corefile import Corefile, Directive

_MOST = 5
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
ROOT = (".", "dns://.")


def of_coredns(look: Look) -> Look:
    """A check of what kube-dns has not: there it says so, and nothing else."""

    @wraps(look)
    def looked(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
        if is_kube_dns(snapshot):
            yield Said(Severity.INFO, "kube-dns answers here, not CoreDNS: this does not concern it",
                       (snapshot.workload.field(f"{snapshot.at_container}.image"),))  # fmt: skip
            return
        yield from look(snapshot, planned)

    return looked


def is_kube_dns(snapshot: Snapshot) -> bool:
    """Whether dnsmasq and kube-dns answer, as GKE has it by default."""
    return snapshot.dns is not None and "k8s-dns" in str(snapshot.workload.at(f"{snapshot.at_container}.image"))


def container_field(snapshot: Snapshot, path: str) -> Field:
    """Of the container that answers."""
    return snapshot.workload.field(f"{snapshot.at_container}.{path}")


def at(snapshot: Snapshot, directive: Directive) -> str:
    """`configmap/coredns Corefile:4: health`, as evidence."""
    words = " ".join((directive.name, *directive.arguments))
    return f"{snapshot.config} {directive.file or 'Corefile'}:{directive.line}: {words}"


def whole(snapshot: Snapshot) -> str:
    """The same for what the Corefile has not."""
    return f"{snapshot.config} Corefile"


def lameducks(found: Corefile) -> list[Directive]:
    """What counts: the last of each server block. They add up, one after the other (tried with 1.9.3 and 1.15.0)."""
    per_block = ([duck for health in block.all("health") for duck in health.all("lameduck")] for block in found.blocks)
    return [ducks[-1] for ducks in per_block if ducks]


def root_forwards(found: Corefile) -> list[Directive]:
    """Those to whom names outside the cluster go."""
    return [one for one in found.all("forward") if one.arguments[:1] and one.arguments[0].removesuffix(":53") in ROOT]


def ready(pod: Thing) -> bool:
    """Ready, and not told to go."""
    return condition(pod, "Ready") == "True" and not pod.at("metadata.deletionTimestamp")


def alive(pod: Thing) -> bool:
    """Not one that was evicted, or has ended, and is still listed."""
    return pod.at("status.phase") not in ("Failed", "Succeeded")


def condition(thing: Thing, kind: str) -> str:
    """The status of one of its conditions; '' if it has none."""
    return next((str(one.get("status")) for one in thing.at("status.conditions") or [] if one.get("type") == kind), "")


def selects(selector: Json, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels, matchExpressions) is met; an empty one always is, None never."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(one, labels) for one in selector.get("matchExpressions") or [])


def _meets(expression: Mapping[str, Json], labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or []
    operator = expression.get("operator")
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return (key in labels) == (operator == "Exists")


def some(things: Iterable[Thing], path: str = "") -> Evidence:
    """The first few as evidence, and how many more there are."""
    found = list(things)
    shown: list[Field | str] = [one.field(path) if path else str(one) for one in found[:_MOST]]
    return (*shown, *([f"and {len(found) - _MOST} more"] if len(found) > _MOST else []))


def named(things: Sequence[Thing]) -> str:
    """`a, b and 3 more`, for a sentence."""
    names = ", ".join(one.name for one in things[:_MOST])
    return f"{names} and {len(things) - _MOST} more" if len(things) > _MOST else names


def counted(n: int, what: str) -> str:
    """`1 pod`, `3 pods`."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def version_now(snapshot: Snapshot) -> tuple[int, ...]:
    """CoreDNS's; Unread if its image's tag says none."""
    if found := numbers(snapshot.coredns_version):
        return found
    image = container_field(snapshot, "image")
    raise Unread("version", f"the tag of {image} is no version of CoreDNS: kubectl logs of a pod says it at its start")


def said_version(version: Iterable[int]) -> str:
    """`1.12.1`."""
    return ".".join(map(str, version))


# -- remedies


def maker(snapshot: Snapshot) -> Maker:
    """What makes the pods, as a remedy names it."""
    dns = snapshot.workload
    return Maker(dns.kind, dns.name, dns.namespace or "kube-system", snapshot.container)


def kubectl(snapshot: Snapshot) -> str:
    """In the namespace of cluster DNS."""
    return f"kubectl -n {snapshot.namespace}"


def by_label(snapshot: Snapshot) -> str:
    """`-l k8s-app=kube-dns`, as the Service chooses its pods."""
    return "-l " + ",".join(f"{key}={value}" for key, value in snapshot.selector.items())


def can_have(snapshot: Snapshot, planned: Planned, settings: Settings) -> bool:
    """Whether the platform has a form for these settings."""
    return bool(PLATFORMS[planned.platform].pods(settings, maker(snapshot)))


def pods_to_have(snapshot: Snapshot, planned: Planned, settings: Settings) -> str:
    """Commands that give the pods' maker these settings; else what the platform says instead."""
    platform = PLATFORMS[planned.platform]
    said = platform.pods(settings, maker(snapshot))
    return said or f"# cannot be changed here: {platform.keeps}"


def corefile_to_have(planned: Planned, lines: str, *, new: bool) -> str:
    """Commands that bring these lines into the Corefile; new: it has no such plugin yet."""
    platform = PLATFORMS[planned.platform]
    return platform.edit(lines, new) or f"# cannot be changed here: {platform.keeps}"


def with_more(directive: Directive, line: str) -> str:
    """A directive as it stands, with one property more, or another value of it."""
    name = line.split(maxsplit=1)[0]
    kept = [one for one in directive.block if one.name != name]
    inside = [" ".join((one.name, *one.arguments)) + (" {...}" if one.block else "") for one in kept]
    head = " ".join((directive.name, *directive.arguments))
    return "\n".join([f"{head} {{", *(f"    {one}" for one in (*inside, line)), "}"])


def single(says: Callable[[Snapshot, Planned], Said]) -> Look:
    """A look that says one thing."""

    @wraps(says)
    def looked(snapshot: Snapshot, planned: Planned) -> Iterator[Said]:
        yield says(snapshot, planned)

    return looked
