"""Pages of metrics, as servers serve them -> the samples asked for, or one sentence that says why there are none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_server

import pytest

from probe.cluster.scrape import REQUESTS, requests_of, scrape
from probe.cluster.zone import METRICS_PORT
from probe.model import Target, TargetKind

COREDNS = """\
# HELP coredns_dns_requests_total Counter of DNS requests made per zone, protocol and family.
# TYPE coredns_dns_requests_total counter
coredns_dns_requests_total{family="1",proto="udp",server="dns://:53",type="A",view="",zone="."} 40
coredns_dns_requests_total{family="1",proto="udp",server="dns://:53",type="AAAA",view="",zone="a \\"b\\" c."} 1.2e+03
# TYPE coredns_dns_requests_totally gauge
coredns_dns_requests_totally 7
# TYPE coredns_panics_total counter
coredns_panics_total 0
"""


@contextmanager
def serving(answer: bytes, port: int = 0) -> Iterator[int]:
    """A server that says this to everyone who connects; the port."""
    with create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(4096)
                    peer.sendall(answer)
                    if not answer:
                        peer.recv(1)  # until the other side has had enough

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(2)


def http(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.0 {status}\r\nContent-Type: text/plain\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("names", "values"),
    [({REQUESTS}, [40, 1200]), ({"coredns_panics_total"}, [0]), ({"coredns"}, []), ({REQUESTS, "x"}, [40, 1200])],
)
def test_the_samples_of_the_names_that_are_asked_for(names: set[str], values: list[float]) -> None:
    with serving(http(COREDNS)) as port:
        found = asyncio.run(scrape("127.0.0.1", port, "", names))
    assert [sample.value for sample in found] == values


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http("", "404 Not Found"), "no metrics: HTTP/1.0 404 Not Found"),
        (http(f"{REQUESTS}{{x=y z"), "not metrics: "),
        (b"SSH-2.0-OpenSSH\r\n", "no answer"),
        (b"\r\n\r\n", "no metrics: "),
        (b"", "^$"),  # it says nothing: TimeoutError
    ],
)
def test_what_is_no_page_of_metrics(answer: bytes, said: str) -> None:
    with serving(answer) as port, pytest.raises(OSError, match=said):
        asyncio.run(scrape("127.0.0.1", port, "", {REQUESTS}))


def test_a_pod_s_queries_are_counted_over_all_its_labels() -> None:
    with serving(http(COREDNS), METRICS_PORT):
        assert asyncio.run(requests_of(Target("a", TargetKind.POD, "127.0.0.1"), "")) == 1240
