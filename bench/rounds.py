"""Tools and a load in, their figures of every round out; tools take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bench.load import Figures, Load, Missing, Turns
from bench.processes import Overdue
from bench.servers import Servers
from bench.tools import Setting, Tool, best_setting, dnsperf


@dataclass
class Bench:
    """One run of the bench. seconds: of a run where start-up counts; minutes: of the run for memory.

    The same tool is asked for the same load once: measures share what was measured.
    """

    rounds: int
    seconds: float
    minutes: float
    folder: Path
    servers: Servers
    say: Callable[[str], None]
    _done: dict[tuple[str, Load], list[Figures] | str] = field(default_factory=dict)
    _settings: dict[tuple[str, int], Setting] = field(default_factory=dict)

    @property
    def short(self) -> float:
        """Seconds of a run where start-up is not part of the figure."""
        return max(1.0, 0.4 * self.seconds)

    def knot(self, rate: int = 0, seconds: float = 0) -> Load:
        """A load of knot."""
        return Load(self.servers.port("knot"), seconds or self.seconds, rate)

    def setting(self, threads: int, transport: str = "udp") -> Setting:
        """dnsperf's best for knot, tried once."""
        if (transport, threads) not in self._settings:
            load = replace(self.knot(), transport=transport)
            self.say(f"dnsperf -T {threads}, {transport}: which sockets and window are best")
            self._settings[transport, threads] = best_setting(load, self.folder, threads, 1.0)
        return self._settings[transport, threads]

    def dnsperf(self, threads: int = 1, transport: str = "udp", *, each: bool = False) -> dict[str, Tool]:
        """dnsperf at its best, under a name that says how; one that is missing if it is not installed."""
        try:
            setting = self.setting(threads, transport)
        except Missing as lacking:
            return {f"dnsperf -T {threads}": partial(_absent, str(lacking))}
        return {f"dnsperf {setting}{' -v' if each else ''}": partial(dnsperf, setting=setting, each=each)}

    def turns(self, tools: Mapping[str, Tool], load: Load, rounds: int = 0) -> Turns:
        """Every tool `rounds` times (default: as often as all), one after the other."""
        waiting = {name: tool for name, tool in tools.items() if (name, load) not in self._done}
        figures: dict[str, list[Figures]] = {name: [] for name in waiting}
        for turn in range(rounds or self.rounds):
            for name, tool in waiting.items():
                if (name, load) not in self._done:
                    self.say(f"round {turn + 1}: {name}, {load.transport}, {load.rate or 'max'} q/s")
                    self._turn(name, tool, load, figures[name])
        for name in waiting:
            self._done.setdefault((name, load), figures[name])
        done = {name: self._done[name, load] for name in tools}
        return Turns(
            {name: found for name, found in done.items() if isinstance(found, list)},
            {name: found for name, found in done.items() if isinstance(found, str)},
        )

    def _turn(self, name: str, tool: Tool, load: Load, figures: list[Figures]) -> None:
        cpu, drops = self.servers.spent(load)
        try:
            found = tool(load, self.folder)
        except (Missing, Overdue) as reason:
            self._done[name, load] = str(reason)
            return
        later = self.servers.spent(load)
        figures.append(replace(found, server_cores=(later[0] - cpu) / found.asking, server_drops=later[1] - drops))


def _absent(reason: str, _load: Load, _folder: Path) -> Figures:
    raise Missing(reason)
