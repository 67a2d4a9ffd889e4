"""A run of the command line, while something is done to it -> what is left of it: exit code, sentences, books."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from probe.doubts import doubts_of
from probe.linux import enter_network
from probe.model import NS
from probe.report.json import json_report
from probe.report.text import text_report
from probe.runfile import Run, open_run
from probe.schedule import pacer_of
from tests.servers import ScriptedServer

ROOT = Path(__file__).parents[1]
RATE = 200
PATIENCE_S = 60.0
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Result:
    """What is left of a run.

    exit_code: of `dnsprobe run`, -9 if it was killed; report_code: of `dnsprobe report` afterwards, None where there is
    no file; headline: the report's first line. end_s: seconds since the start up to which the file goes. missing: rows
    that the schedule has until then and the books do not: neither an outcome nor in flight. forgotten: queries that the
    server heard and the file knows nothing of. said: lines of stderr.
    """

    exit_code: int
    said: tuple[str, ...]
    report_code: int | None = None
    headline: str = ""
    cut: str = ""
    doubts: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)
    unsent: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    planned: int = 0
    in_flight: int = 0
    end_s: float = 0.0
    missing: int = 0
    forgotten: int = 0

    @property
    def lost_s(self) -> float:
        """Seconds whose queries were asked, and are forgotten."""
        return self.forgotten / RATE


@dataclass
class Going:
    """A run that goes. heard: how many queries the server, on that port, has had so far."""

    process: subprocess.Popen[str]
    path: Path
    heard: Callable[[], int]
    port: int

    def until(self, seconds: float) -> None:
        """Until so many seconds' queries were asked, or the run is over."""
        deadline = time.monotonic() + PATIENCE_S
        while self.heard() < seconds * RATE and self.process.poll() is None:
            assert time.monotonic() < deadline, "the run does not come so far"
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Its worker processes."""
        return self.children("probe.engine.worker")

    def children(self, module: str) -> list[int]:
        """Its processes that run this module."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(pid) for pid in children if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def result(self, patience_s: float = PATIENCE_S) -> Result:
        """What is left, once it has ended."""
        _, err = self.process.communicate(timeout=patience_s)
        heard, said = self.heard(), tuple(err.splitlines())
        elsewhere = re.search(r"the whole run is in (\S+)", err)
        path = Path(elsewhere[1]) if elsewhere else self.path
        if not path.exists():
            return Result(self.process.returncode, said)
        words = [sys.executable, "-m", "probe.cli", "report", str(path)]
        report = subprocess.run(words, capture_output=True, text=True, env=_environment({}), check=False)
        run = open_run(path)
        told = json.loads(json_report(run))
        totals = told["totals"]
        sent = totals["planned"] - totals["outcomes"]["unsent"]
        return Result(
            exit_code=self.process.returncode,
            said=said + tuple(report.stderr.splitlines()),
            report_code=report.returncode,
            headline=text_report(run).partition("\n")[0],
            cut=run.cut,
            doubts={doubt.id: doubt.text for doubt in doubts_of(run)},
            marks=tuple(mark.text for mark in run.marks),
            outcomes={name: n for name, n in totals["outcomes"].items() if n},
            unsent={name: n for name, n in totals["unsent_by_cause"].items() if n},
            counters={name: n for name, n in totals["counters"].items() if n},
            planned=totals["planned"],
            in_flight=totals["in_flight"],
            end_s=run.end_ns / NS,
            missing=missing(run),
            forgotten=max(0, heard - sent),
        )


def missing(run: Run) -> int:
    """Rows that the schedule has, less those that the file has an account of: of whole seconds.

    Without the last second of a run that was cut.
    """
    until = max(0, run.end_ns - NS * bool(run.cut)) // NS
    due = sum(int(pacer_of(series).count(0, until * NS)) for series in run.series)
    counts, waiting = run.counts, run.in_flight
    booked = counts.n[counts.bucket < 10 * until].sum() + waiting.n[waiting.second < until].sum()
    return due - int(booked)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", **more}


@contextmanager
def started(
    folder: Path,
    words: Sequence[str],
    heard: Callable[[], int],
    port: int,
    *,
    prefix: Sequence[str] = (),
    startup: str = "",
    environment: Mapping[str, str] = NOTHING,
) -> Iterator[Going]:
    """`dnsprobe run` with these words, which writes run.db in the folder; it does not outlive the block.

    prefix: words before the command. startup: what each Python of it does first (site's sitecustomize).
    """
    paths = [str(ROOT)]
    if startup:
        paths.insert(0, str(folder / "startup"))
        (folder / "startup").mkdir()
        (folder / "startup" / "sitecustomize.py").write_text(startup)
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "probe.cli", "run", *words, "-o", str(folder / "run.db")],
        cwd=folder,
        env=_environment({"PYTHONPATH": ":".join(paths), **environment}),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Going(process, folder / "run.db", heard, port)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@contextmanager
def running(
    folder: Path,
    *more: str,
    seconds: float = 5,
    address: str = "127.0.0.1",
    network: str = "",
    prefix: Sequence[str] = (),
    startup: str = "",
    environment: Mapping[str, str] = NOTHING,
) -> Iterator[Going]:
    """200 queries a second to a server that answers as the name says, in the namespace at `network`."""
    inside = ["nsenter", f"--net={network}"] if network else []
    with (
        ThreadPoolExecutor(1, initializer=_enter, initargs=(network,)) as there,
        # A child is in the namespace of the thread that starts it.
        there.submit(ScriptedServer, address=address).result() as server,
    ):
        asks = ["-s", address, "-p", str(server.port), "-n", "a.test", "-Q", str(RATE), "-l", str(seconds), *more]
        told, how = (lambda: len(server.received()), server.port), (*prefix, *inside)
        with started(folder, asks, *told, prefix=how, startup=startup, environment=environment) as going:
            yield going


def _enter(network: str) -> None:
    if network:
        enter_network(network)
