"""Labs, each with a prober, and a Prometheus with the shipped rules that scrapes them -> which alerts fired, when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.prometheus import Prometheus, Scrape
from tests.servers import free_port

ROOT = Path(__file__).parents[1]
RULES = ROOT / "grafana/prometheus/rules.yaml"
TARGET = "kube-dns"
OF_CLUSTER = "dnsprobe_(ready_endpoints|rollout_.*|cluster_watched|target_terminating|prober_healthy|build_info)"
"""What of a page is the whole cluster's: as the Deployment says it, which watches the cluster."""


def shipped(scenario: str, **edits: Any) -> dict[str, Any]:
    """A shipped scenario, some of it replaced."""
    told: dict[str, Any] = yaml.safe_load((ROOT / f"scenarios/{scenario}.yaml").read_text())
    return told | edits


@dataclass(frozen=True)
class Prober:
    """A process with a lab of its own, its `cluster` by name. nodes: of a lab that has several, else 0.

    command: `run` or `serve`.
    """

    cluster: str
    scenario: Mapping[str, Any]
    command: str = "run"
    nodes: int = 0
    port: int = field(default_factory=free_port)

    def scrapes(self, interval: float) -> list[Scrape]:
        """Its page; that of a lab with nodes as if each node's prober had its own, and the Deployment another."""
        address = f"127.0.0.1:{self.port}"
        if not self.nodes:
            return [Scrape(address, {"cluster": self.cluster, "node": "node-1"}, interval)]
        pages = [
            Scrape(
                address,
                {"cluster": self.cluster, "node": node, "instance": f"{node}:9553"},
                interval,
                [
                    {"source_labels": ["target"], "regex": f"({TARGET}@{node})?|coredns-.*", "action": "keep"},
                    {
                        "source_labels": ["__name__"],
                        "regex": "dnsprobe_(ready|rollout|cluster|target_term).*",
                        "action": "drop",
                    },
                    {
                        "source_labels": ["target"],
                        "regex": f"{TARGET}@.*",
                        "target_label": "target",
                        "replacement": TARGET,
                    },
                ],
            )
            for node in (f"node-{1 + k}" for k in range(self.nodes))
        ]
        watcher = [{"source_labels": ["__name__"], "regex": f"{OF_CLUSTER}|up", "action": "keep"}]
        labels = {"cluster": self.cluster, "node": "node-1", "instance": "watcher:9553"}
        return [*pages, Scrape(address, labels, interval, watcher)]


class Alerting:
    """Probers and Prometheus, from its making on; close() ends each by its id."""

    def __init__(self, folder: Path, probers: Sequence[Prober], interval: float) -> None:
        self.began = time.time()
        self.probers = {prober.cluster: prober for prober in probers}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for prober in probers:
                self._processes[prober.cluster] = _start(folder, prober)
            pages = [page for prober in probers for page in prober.scrapes(interval)]
            self.prometheus = Prometheus(folder, pages, [RULES], evaluation=15)
        except BaseException:
            self._end()
            raise

    def stall(self, cluster: str, seconds: float) -> None:
        """Its prober, with all its workers, stands still; the lab it asks goes on."""
        pids = _engine(self._processes[cluster].pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def fired(self) -> dict[str, dict[str, float]]:
        """Of each cluster which alerts fired, by name, and when they began to (s since 1970)."""
        found: dict[str, dict[str, float]] = {cluster: {} for cluster in self.probers}
        now = time.time()
        for alert in self.prometheus.query_range('ALERTS{alertstate="firing"}', now - int(now - self.began), now, 1):
            seen = found[alert.labels["cluster"]]
            name = alert.labels["alertname"].removeprefix("DNSProbe")
            seen[name] = min(alert.at[0], seen.get(name, alert.at[0]))
        return found

    def close(self) -> None:
        """All of it."""
        self.prometheus.close()
        self._end()

    def _end(self) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start(folder: Path, prober: Prober) -> subprocess.Popen[bytes]:
    file = folder / f"{prober.cluster}.yaml"
    file.write_text(yaml.safe_dump(dict(prober.scenario)))
    with (folder / f"{prober.cluster}.output").open("wb") as output:
        return subprocess.Popen(
            [
                sys.executable, "-m", "probe.cli", prober.command, str(file), "--lab",
                f"--metrics=127.0.0.1:{prober.port}", f"--out={folder / prober.cluster}.db",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip


def _engine(pid: int) -> list[int]:
    """A process and those of its children that are workers of the engine."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(each) for each in children if b"engine.worker" in Path(f"/proc/{each}/cmdline").read_bytes())]
