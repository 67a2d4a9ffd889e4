"""The real Prometheus of the tests: what it scraped is what the page said, rules fire, wrong queries are told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.prometheus import Prometheus, Scrape

RULES = """\
groups:
- name: tests
  rules:
  - alert: Asked
    expr: asked_total > 3
    labels: {severity: page}
    annotations: {summary: "{{ $labels.node }} asked {{ $value }}."}
"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"# TYPE asked_total counter\nasked_total 7\n")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_a_page_says_is_asked_ranged_and_alerted_on(tmp_path: Path, page: str) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    with Prometheus(tmp_path, [Scrape(page, {"node": "n1"}, 0.2)], rules=[rules], evaluation=0.2) as prometheus:
        (asked,) = prometheus.wait_for("asked_total", 10)
        assert asked.labels == {"__name__": "asked_total", "instance": page, "job": "dnsprobe", "node": "n1"}
        assert asked.last == 7
        prometheus.wait_for('ALERTS{alertstate="firing"}', 10)
        (alert,) = prometheus.alerts()
        assert (alert.state, alert.labels["alertname"], alert.labels["node"]) == ("firing", "Asked", "n1")
        assert alert.annotations == {"summary": "n1 asked 7."}
        (series,) = prometheus.query_range("asked_total * 2", asked.at[0], asked.at[0] + 1, 0.5)
        assert set(series.values) == {14.0}
        assert len(series.at) == 3
        assert prometheus.query("scalar(asked_total)")[0].last == 7
        with pytest.raises(ValueError, match="parse error"):
            prometheus.query("rate(asked_total")


def test_one_that_cannot_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("groups: 3\n")
    with pytest.raises(RuntimeError, match="cannot unmarshal"):
        Prometheus(tmp_path, [], rules=[wrong])
