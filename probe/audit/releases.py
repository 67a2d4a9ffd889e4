"""A release of CoreDNS -> what of a Corefile it removed, passes over, deprecated, or does otherwise by default.

Sources: CoreDNS notes/coredns-*.md; coredns/corefile-migration 1dc6c9e migration/versions.go and plugins.go; where they
say nothing, plugin/*/setup.go of the releases. Each rule of a kind that CoreDNS itself shows was tried on binaries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from probe.corefile import Directive


class Kind(StrEnum):
    """What a release does with words of a Corefile.

    REMOVED: it no longer knows them, and refuses the file; UNKNOWN: no rule says when, or it does not know them yet;
    DEPRECATED: they go later; IGNORED: they do nothing; DEFAULT: it does something else where the Corefile is silent.
    """

    REMOVED = "removed"
    UNKNOWN = "unsupported"
    DEPRECATED = "deprecated"
    IGNORED = "ignored"
    DEFAULT = "new default"


class Mend(StrEnum):
    """How a Corefile is brought to what a release wants."""

    BY_HAND = "by hand"
    DROP = "drop"
    FIRST = "first argument"
    RESPONSE = "say response"
    TRANSFER = "to the plugin transfer"
    BOUND = "max_concurrent"


Applies = Callable[[Directive, Directive], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """release: the first one of which it is true; until: the first of which it no longer is, '' if it still is.

    seen_from: a new default matters to who runs this release or a later one; '' for any.
    name: a property of the plugin, '' for the plugin itself. applies: asked with the plugin and the property, or twice
    with the plugin.
    """

    kind: Kind
    release: str
    plugin: str
    name: str
    why: str
    source: str
    mend: Mend = Mend.BY_HAND
    until: str = ""
    seen_from: str = ""
    applies: Applies = lambda _plugin, _property: True


def _to(_plugin: Directive, one: Directive) -> bool:
    return one.arguments[:1] == ("to",)


def _said(_plugin: Directive, one: Directive) -> bool:
    return bool(one.arguments)


def _silent(name: str, at_least: int = 0) -> Applies:
    return lambda plugin, _: plugin.last(name) is None and len(plugin.arguments) >= at_least


_NOTES_1_7, _NOTES_1_8 = "CoreDNS notes 1.7.0", "CoreDNS notes 1.8.0"
_TABLE = "corefile-migration versions.go"
_EATEN = "every release from 1.6.5 on reads it and does nothing with it"
_NO_TRANSFER = "outgoing zone transfers are the plugin `transfer`'s from 1.8.0 on"
_NO_VALUE = "from 1.6.0 on it takes no value, and 1.7.0 removed it: the API's watch needs no resync"
_UNSUPPORTED_TYPES = "queries of types other than A, AAAA and PTR for a name in `hosts`"

MIGRATIONS: tuple[Rule, ...] = (
    Rule(Kind.IGNORED, "1.6.0", "kubernetes", "resyncperiod", "it does nothing", _TABLE, Mend.DROP, "1.7.0"),
    Rule(
        *(Kind.REMOVED, "1.6.0", "kubernetes", "resyncperiod", _NO_VALUE, f"{_NOTES_1_7}; plugin/kubernetes/setup.go"),
        mend=Mend.DROP,
        applies=_said,
    ),
    Rule(Kind.IGNORED, "1.5.0", "kubernetes", "upstream", "it does nothing", _TABLE, Mend.DROP, "1.7.0"),
    *(
        Rule(Kind.REMOVED, "1.7.0", "kubernetes", name, "1.7.0 removed it", f"{_NOTES_1_7}; {_TABLE}", Mend.DROP)
        for name in ("resyncperiod", "upstream")
    ),
    Rule(Kind.REMOVED, "1.7.0", "federation", "", "1.7.0 removed federation v1", _NOTES_1_7, Mend.DROP),
    Rule(Kind.REMOVED, "1.5.0", "proxy", "", "1.5.0 removed it: write `forward`", "CoreDNS notes 1.5.0"),
    *(
        Rule(Kind.REMOVED, "1.8.0", plugin, "transfer", _NO_TRANSFER, _NOTES_1_8, Mend.TRANSFER, applies=_to)
        for plugin in ("kubernetes", "file", "auto", "secondary")
    ),
    Rule(
        *(Kind.IGNORED, "1.5.0", "kubernetes", "endpoint", "the first endpoint alone is used"),
        source=f"{_TABLE}; plugin/kubernetes/setup.go",
        mend=Mend.FIRST,
        applies=lambda _, one: len(one.arguments) > 1,
    ),
    *(
        Rule(Kind.IGNORED, "1.5.0", plugin, "upstream", _EATEN, f"plugin/{plugin}/setup.go", Mend.DROP)
        for plugin in ("file", "auto", "template", "etcd")
    ),
    Rule(Kind.IGNORED, "1.5.0", "secondary", "upstream", "it does nothing", _NOTES_1_8, Mend.DROP, "1.8.0"),
    Rule(Kind.REMOVED, "1.8.0", "secondary", "upstream", "1.8.0 removed it", "plugin/secondary/setup.go", Mend.DROP),
    *(
        Rule(
            *(kind, release, "header", name, f"a rule says `response` or `query` first {since}"),
            source="CoreDNS notes 1.9.4 (coredns#5556), 1.12.4 (coredns#7436)",
            mend=Mend.RESPONSE,
            until=until,
        )
        for name in ("set", "clear")
        for kind, release, until, since in (
            (Kind.DEPRECATED, "1.9.4", "1.12.4", "since 1.9.4"),
            (Kind.REMOVED, "1.12.4", "", "from 1.12.4 on"),
        )
    ),
    Rule(
        *(Kind.DEFAULT, "1.7.0", "forward", "", "without a bound, queries pile up while an upstream is silent"),
        source=f"{_TABLE}: the default Corefile of kubeadm and Cluster API has it from 1.7.0 on",
        mend=Mend.BOUND,
        applies=_silent("max_concurrent"),
    ),
    Rule(
        *(Kind.DEFAULT, "1.11.0", "bufsize", "", "without a number it is 1232 octets from 1.11.0 on, 512 before"),
        source="CoreDNS notes 1.11.0 (coredns#6183)",
        applies=lambda plugin, _: not plugin.arguments,
    ),
    Rule(
        *(Kind.DEFAULT, "1.9.0", "kubernetes", "", "from 1.9.0 on names with a wildcard, `*` or `any`, do not exist"),
        source="CoreDNS notes 1.9.0",
    ),
    Rule(
        *(Kind.DEFAULT, "1.14.7", "forward", "", "a query is tried at most twice per upstream, without end before"),
        source="plugin/forward/README.md, max_connect_attempts; CoreDNS notes 1.14.7 (coredns#8365)",
        applies=_silent("max_connect_attempts"),
    ),
    Rule(
        *(Kind.DEFAULT, "1.14.5", "hosts", "fallthrough", f"{_UNSUPPORTED_TYPES} go to the next plugin"),
        source="CoreDNS notes 1.14.5 (coredns#8193)",
        until="1.14.7",
    ),
    Rule(
        *(Kind.DEFAULT, "1.14.7", "hosts", "fallthrough", f"{_UNSUPPORTED_TYPES} end there, as before 1.14.5"),
        source="plugin/hosts/README.md, fallthrough_unsupported",
        seen_from="1.14.5",
        applies=lambda plugin, _: plugin.last("fallthrough_unsupported") is None,
    ),
)
