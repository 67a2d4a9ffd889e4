"""Situations of cluster DNS -> real runs that go through them side by side, scraped by a real Prometheus."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from grafana.asking import Span, client
from tests.prometheus import Prometheus, Scrape
from tests.servers import CoreDNS, free_port

ROOT = Path(__file__).parents[1]
EVERY = 2.0
"""Seconds between scrapes."""
STOPPED_S = 3.0
RUNNING = 'dnsprobe_run_state{state="running"} == 1'

TRUNCATION = """\
name: truncation
duration: 40s
lab: {replicas: 2}
lanes:
  - name: vip-udp-plain
    target: service
    rate: 20
    types: [A]
    questions: [kubernetes.default.svc.cluster.local, headless100.default.svc.cluster.local]
  - name: vip-tcp-fresh
    target: service
    transport: tcp
    ports: fresh
    rate: 10
    types: [A]
    questions: [headless100.default.svc.cluster.local]
  - name: pods
    target: pods
    ports: fresh
    rate: 5
    questions: [kubernetes.default.svc.cluster.local]
"""


class Forwarding(CoreDNS):
    """A CoreDNS that knows nothing itself: it asks another one, and keeps answers."""


@dataclass(frozen=True)
class Lived:
    """What Prometheus has of the runs. spans: the time in which each ran; the label `node` is its situation's name."""

    client: httpx2.Client
    spans: Mapping[str, Span]


def arguments(folder: Path, port: int) -> dict[str, list[str]]:
    """What `dnsprobe run` is told in each situation; port: of a server on 127.0.0.1."""
    (folder / "truncation.yaml").write_text(TRUNCATION)
    rollout = [
        "lab.rollout_after=10s",
        "lab.lameduck=4s",
        "lab.start_delay=2s",
        "steps[0].wait_for='rollout quiet 10s'",
    ]
    outage = [
        "duration=40s",
        "steps[0].wait=12s",
        "clients.profiles=[glibc,go]",
        "clients.names=[kubernetes.default.svc.cluster.local]",
    ]
    return {
        "outage": ["scale-to-zero", "--lab", *(word for each in outage for word in ("--set", each))],
        "rollout": ["watch-upgrade", "--lab", *(word for each in rollout for word in ("--set", each))],
        "truncation": [str(folder / "truncation.yaml"), "--lab"],
        "stall": ["baseline", "--lab", "--set", "duration=40s"],
        "load": ["-s", "127.0.0.1", "-p", str(port), "-n", "a.example.test", "-Q", "500", "-l", "40"],
    }


@contextmanager
def lived(folder: Path) -> Iterator[Lived]:
    """All situations, lived through: 60 to 80 s."""
    (folder / "upstream").mkdir()
    (folder / "forwarding").mkdir()
    upstream = CoreDNS.start(folder / "upstream")
    Forwarding.plugins = f"cache 30\n  forward . 127.0.0.1:{upstream.port}"
    server = Forwarding.start(folder / "forwarding")
    told = arguments(folder, server.port)
    ports = {name: free_port() for name in told}
    scrapes = [Scrape(f"127.0.0.1:{port}", {"node": name, "cluster": "lab"}, EVERY) for name, port in ports.items()]
    scrapes[-1] = Scrape(f"127.0.0.1:{ports['load']}", {}, EVERY)  # where nobody has given it a cluster or a node
    own = (server.folder / "metrics").read_text()
    scrapes.append(Scrape(f"127.0.0.1:{own}", {"job": "coredns"}, EVERY))
    runs: dict[str, subprocess.Popen[bytes]] = {}
    with Prometheus(folder, scrapes) as prometheus:
        try:
            for name, words in told.items():
                runs[name] = _started(folder, name, [*words, "--metrics", f"127.0.0.1:{ports[name]}"])
            prometheus.wait_for(f'{RUNNING} and on (node) dnsprobe_run_state{{node="stall"}}', 60)
            time.sleep(15)
            _stall(runs["stall"].pid)
            for run in runs.values():
                run.wait(90)
            spans = {name: _span(prometheus, port) for name, port in ports.items()}
            with client(f"http://127.0.0.1:{prometheus.port}") as asking:
                yield Lived(asking, spans)
        finally:
            for run in runs.values():
                if run.poll() is None:
                    os.killpg(run.pid, signal.SIGKILL)
                    run.wait()
            server.close()
            upstream.close()


def _started(folder: Path, name: str, words: list[str]) -> subprocess.Popen[bytes]:
    """A run, before all others where that is allowed: it is to be stalled by nobody but us."""
    first = ["nice", "-n", "-10"] if os.geteuid() == 0 else []
    command = [*first, sys.executable, "-m", "probe.cli", "run", *words, "--out", str(folder / f"{name}.db")]
    with (folder / f"{name}.output").open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stall(pid: int) -> None:
    """The run and its worker stand still."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (worker,) = [int(each) for each in children if b"probe.engine.worker" in Path(f"/proc/{each}/cmdline").read_bytes()]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(pid, number)
        os.kill(worker, number)
        time.sleep(STOPPED_S if number == signal.SIGSTOP else 0)


def _span(prometheus: Prometheus, port: int) -> Span:
    """From the first scrape that found it running to the last."""
    now = time.time()
    asked = f'{RUNNING} and on (instance) dnsprobe_run_state{{instance="127.0.0.1:{port}"}}'
    (running,) = prometheus.query_range(asked, now - 300, now, EVERY)
    return Span(running.at[0], running.at[-1], EVERY)
