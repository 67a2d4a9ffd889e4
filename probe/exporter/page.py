"""An Exporter -> its page of metrics, in the format and encoding that is asked for."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from probe.exporter.collector import Collector
from probe.exporter.snapshot import State
from probe.exporter.state import Exporter
from probe.pages import Request, say, whole

PATH = "/metrics"
GZIP_LEVEL = 1


def encoder_for(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Text wherever it is taken: OpenMetrics, which Prometheus prefers, costs twice as much and says no more."""
    return choose_encoder("" if "text/plain" in accept or "*/*" in accept else accept)


class Page:
    """The page. last_scrapes: how often it was had in whole after the run's last sample."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Collector(lambda: exporter.now))
        self.last_scrapes = 0

    def answer(self, request: Request) -> None:
        """A scrape."""
        is_last = self._exporter.now.state is State.LINGER
        encode, kind = encoder_for(request.headers.get("Accept", ""))
        body, headers = encode(self._registry), {"Content-Type": kind, "Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(request.headers.get("Accept-Encoding", "")):
            body, headers = gzip.compress(body, GZIP_LEVEL), {**headers, "Content-Encoding": "gzip"}
        whole(request, body, headers)
        if request.command == "GET":
            self.last_scrapes += is_last

    def ready(self, request: Request) -> None:
        """200 while a run goes, else 503."""
        goes = self._exporter.now.state is State.RUNNING
        say(request, {"state": self._exporter.now.state}, HTTPStatus.OK if goes else HTTPStatus.SERVICE_UNAVAILABLE)
