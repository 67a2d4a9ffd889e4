"""A merged Run -> what each node saw of each lane and target, and which nodes and zones lag behind the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median_low

from probe.model import NS
from probe.report.columns import table, wrapped
from probe.report.units import count, plain, seconds, share, since_start
from probe.runfile import Run, Seen, SeenWindow, Vantage

MORE_THAN, ROWS_MORE = 2, 5
LATER_NS = NS
RULE = (
    f"a node lags where it lost more than {MORE_THAN} times the share of the median node and at least {ROWS_MORE} rows"
    f" more, or where its last disruption ended {LATER_NS // NS} s or more after the median's; a zone, where all of its"
    " nodes do and another's do not"
)
COLUMNS = 10
"""Nodes beside each other; more are told in blocks."""

Channel = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Node:
    """A node, or what else is known of where probers were: their pods, else their shards. lags: channel -> why."""

    name: str
    zone: str
    vantages: tuple[Vantage, ...]
    seen: dict[Channel, Seen]
    lags: dict[Channel, str] = field(default_factory=dict)

    @property
    def windows(self) -> list[SeenWindow]:
        """Of all lanes and targets."""
        return [window for seen in self.seen.values() for window in seen.windows]

    @property
    def lost(self) -> int:
        """Rows of all lanes."""
        return sum(seen.lost for seen in self.seen.values())

    @property
    def asked(self) -> int:
        """Rows whose fate is known, of all lanes."""
        return sum(_asked(seen) for seen in self.seen.values())

    @property
    def longest_ns(self) -> int:
        """The longest disruption, 0 for none."""
        return _longest_ns(self.windows)


def nodes_of(run: Run) -> list[Node]:
    """In the order of their shards; none of a run that is no merged one."""
    homes: dict[str, list[Vantage]] = {}
    for vantage in run.vantages:
        homes.setdefault(vantage.node or vantage.pod or f"shard {vantage.shard}", []).append(vantage)
    nodes = [
        Node(name, next((v.zone for v in mine if v.zone), ""), tuple(mine), _together(mine))
        for name, mine in homes.items()
    ]
    for channel in dict.fromkeys(channel for node in nodes for channel in node.seen):
        for node, why in _lagging([node for node in nodes if channel in node.seen], channel):
            node.lags[channel] = why
    return nodes


def lagging_zones(nodes: Sequence[Node]) -> list[str]:
    """By the rule."""
    zones: dict[str, list[Node]] = {}
    for node in nodes:
        zones.setdefault(node.zone, []).append(node)
    lag = [zone for zone, mine in zones.items() if zone and all(node.lags for node in mine)]
    return lag if len(lag) < len(zones) else []


def _together(vantages: Iterable[Vantage]) -> dict[Channel, Seen]:
    found: dict[Channel, Seen] = {}
    for s in (seen for vantage in vantages for seen in vantage.seen):
        old = found.get((s.lane, s.target), Seen(s.lane, s.target, 0, 0, 0, 0, 0))
        found[s.lane, s.target] = Seen(
            *(s.lane, s.target, old.planned + s.planned, old.good + s.good, old.lost + s.lost),
            *(old.unsent + s.unsent, old.in_flight + s.in_flight, (*old.windows, *s.windows)),
        )
    return found


def _lagging(nodes: Sequence[Node], channel: Channel) -> Iterator[tuple[Node, str]]:
    """Those behind the others on one lane and target, and why. The median is the lower one of an even number."""
    seen = [node.seen[channel] for node in nodes]
    if len(nodes) < 2:
        return
    usual = median_low(_share(s) for s in seen)
    ends = [max(w.to_ns for w in s.windows) for s in seen if s.windows]
    usual_end_ns = median_low(ends) if len(ends) > 1 else None
    for node, s in zip(nodes, seen, strict=True):
        if _share(s) > MORE_THAN * usual and s.lost - usual * _asked(s) >= ROWS_MORE:
            yield node, f"lost {count(s.lost)} of {count(_asked(s))} ({share(_share(s))}; the median {share(usual)})"
        elif s.windows and usual_end_ns is not None:
            end_ns = max(w.to_ns for w in s.windows)
            if end_ns - usual_end_ns >= max(LATER_NS, 2 * max(w.resolution_ns for w in s.windows)):
                yield node, f"disturbed until {since_start(end_ns)} (the median {since_start(usual_end_ns)})"


def nodes_text(run: Run) -> list[str]:
    """The section of the text report, at most 100 columns for the tables; nothing of a run that is no merged one."""
    if not (nodes := nodes_of(run)):
        return []
    head = ("", "node", "zone", "lost of asked", "longest", "last ended", "")
    rows = [head] + [(f"#{k}", *_row(node)) for k, node in enumerate(nodes, 1)]
    lines = table(rows, "><<>>><")
    lossy = [c for c in dict.fromkeys(c for node in nodes for c in node.seen) if any(_lost(node, c) for node in nodes)]
    for first in range(0, len(nodes) if lossy else 0, COLUMNS):
        lines += ["", *_block(nodes, range(first, min(first + COLUMNS, len(nodes))), lossy)]
    fine = len({c for node in nodes for c in node.seen}) - len(lossy)
    if fine:
        lines.append(f"  no node lost anything of {fine} of {fine + len(lossy)} lanes and targets")
    said = [f"{plain(node.name)} lags: {_why(node)}" for node in nodes if node.lags]
    said += [f"zone {plain(zone)} lags" for zone in lagging_zones(nodes)]
    lines += [line for text in said for line in wrapped(text, 2, 4)]
    return [*lines, *wrapped(f"{RULE}.", 2)] if lossy else lines


def _row(node: Node) -> tuple[str, ...]:
    last_ns = max((w.to_ns for w in node.windows), default=None)
    return (
        plain(node.name),
        plain(node.zone),
        f"{count(node.lost)} of {count(node.asked)}",
        seconds(node.longest_ns) if node.longest_ns else "-",
        "-" if last_ns is None else since_start(last_ns),
        "from its log" if any(v.source == "log" for v in node.vantages) else "",
    )


def _block(nodes: Sequence[Node], which: range, channels: Sequence[Channel]) -> Iterator[str]:
    """What up to COLUMNS nodes lost of each lane and target, and their longest disruption of it."""
    rows: list[tuple[str, ...]] = [("", *(f"#{k + 1}" for k in which))]
    for channel in channels:
        lost = [_lost(nodes[k], channel) for k in which]
        longest = [_longest_ns(nodes[k].seen[channel].windows) if channel in nodes[k].seen else 0 for k in which]
        rows.append(("lost", *("-" if n is None else count(n) for n in lost)))
        rows.append(("longest", *(f"{ns / NS:.2f}s" if ns else "-" for ns in longest)))
    heading, *lines = table(rows, "<" + ">" * len(which))
    yield f"  {heading}"
    for (lane, target), *both in zip(channels, lines[::2], lines[1::2], strict=True):
        yield f"  {plain(f'{lane} -> {target}')}"
        yield from (f"  {line}" for line in both)


def _why(node: Node) -> str:
    """The worst few of its lanes and targets."""
    said = [f"{plain(f'{lane} -> {target}')} {why}" for (lane, target), why in node.lags.items()]
    more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
    return "; ".join(said[:3]) + more


def _lost(node: Node, channel: Channel) -> int | None:
    return node.seen[channel].lost if channel in node.seen else None


def _asked(seen: Seen) -> int:
    return seen.good + seen.lost


def _share(seen: Seen) -> float:
    return seen.lost / _asked(seen) if _asked(seen) else 0.0


def _longest_ns(windows: Iterable[SeenWindow]) -> int:
    return max((w.to_ns - w.from_ns for w in windows), default=0)
