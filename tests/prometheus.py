"""Pages of metrics to scrape -> a real Prometheus on a port of 127.0.0.1, which answers queries and tells alerts."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.servers import end, free_port, need


@dataclass(frozen=True)
class Scrape:
    """A page to scrape: `Scrape("127.0.0.1:9553", {"job": "dnsprobe", "node": "n1"}, interval=30)`.

    labels: what Prometheus adds to each of its series; `job` may be among them. interval: seconds. relabel: its
    metric_relabel_configs.
    """

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    interval: float = 1.0
    relabel: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True)
class Sampled:
    """A series of an answer: its labels, unix times in seconds, the value at each."""

    labels: dict[str, str]
    at: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.values[-1]


@dataclass(frozen=True)
class Alert:
    """An alert that is pending or firing now; its name is its label `alertname`."""

    state: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Prometheus:
    """Debian's `prometheus`, scraping from its making on; it skips the test if there is none.

        with Prometheus(tmp_path, [Scrape(f"127.0.0.1:{port}")], rules=[RULES]) as prometheus:
            assert [series.last for series in prometheus.query("up")] == [1]

    rules: files of rules, evaluated every `evaluation` seconds. RuntimeError with its own words if it does not start.
    """

    def __init__(
        self, folder: Path, scrapes: Sequence[Scrape], rules: Sequence[Path] = (), evaluation: float = 1.0
    ) -> None:
        program = need("prometheus", "make servers")
        config = {
            "global": {"evaluation_interval": _duration(evaluation)},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {
                    "job_name": f"page-{number}",
                    "scrape_interval": _duration(scrape.interval),
                    "scrape_timeout": _duration(scrape.interval),
                    "metric_relabel_configs": [dict(each) for each in scrape.relabel],
                    "static_configs": [{"targets": [scrape.address], "labels": {"job": "dnsprobe", **scrape.labels}}],
                }
                for number, scrape in enumerate(scrapes)
            ],
        }
        file = folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        self.port = free_port()
        self._output = folder / "prometheus.output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={file}",
                    f"--storage.tsdb.path={folder / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--log.level=warn",
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_ready()

    def query(self, expr: str, at: float | None = None) -> list[Sampled]:
        """An instant query at a unix time, or now; ValueError with Prometheus's own words if it is wrong."""
        data = self._get("query", {"query": expr} | ({} if at is None else {"time": str(at)}))
        if data["resultType"] == "scalar":
            return [_sampled({}, [data["result"]])]
        return [_sampled(each["metric"], [each["value"]]) for each in data["result"]]

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Sampled]:
        """A query at each step from start to end, unix times in seconds; ValueError as query() does."""
        data = self._get("query_range", {"query": expr, "start": str(start), "end": str(end), "step": str(step)})
        return [_sampled(each["metric"], each["values"]) for each in data["result"]]

    def alerts(self) -> list[Alert]:
        """What is pending or firing now."""
        return [Alert(each["state"], each["labels"], each["annotations"]) for each in self._get("alerts", {})["alerts"]]

    def wait_for(self, expr: str, seconds: float) -> list[Sampled]:
        """What the query says once it says anything; AssertionError if that is nothing for so long."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expr)):
            assert time.monotonic() < deadline, f"{expr} is empty after {seconds:g} s"
            time.sleep(0.2)
        return found

    def close(self) -> None:
        """Stop the process, by its id."""
        end(self._process, 5)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2):
                return
            time.sleep(0.05)
        self.close()
        raise RuntimeError(f"prometheus does not start:\n{self._output.read_text(errors='replace')}")

    def _get(self, what: str, arguments: Mapping[str, str]) -> Any:
        """`data` of the answer (https://prometheus.io/docs/prometheus/latest/querying/api)."""
        body = urllib.parse.urlencode(arguments)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{what}?{body}", timeout=20) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as problem:
            raise ValueError(f"{arguments.get('query', what)}: {problem.read().decode(errors='replace')}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sampled(labels: dict[str, str], pairs: Sequence[tuple[float, str]]) -> Sampled:
    return Sampled(labels, tuple(at for at, _ in pairs), tuple(float(value) for _, value in pairs))


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
