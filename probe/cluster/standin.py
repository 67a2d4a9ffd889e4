"""A CoreDNS pod where no CoreDNS is installed: address, port, lameduck, name -> DNS, /ready, /health, /metrics, an end.

What SIGTERM does is CoreDNS's sequence (1.5.0 to 1.15.0: plugin/ready, plugin/health, core/dnsserver):
at once /ready is refused; for the lameduck DNS by UDP and TCP and /health go on; then /health and /metrics close,
then DNS, then exit 0. Who asks for NSID gets the pod's name, as from plugin/nsid.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
from collections import Counter
from collections.abc import Callable

from probe.cluster.serving import (
    AUTHORITATIVE,
    FORMERR,
    NOTIMP,
    Found,
    Send,
    addresses,
    denied,
    is_query,
    reply_to,
    serve_tcp,
    serve_udp,
)
from probe.cluster.zone import DOMAIN, HEALTH_PORT, METRICS_PORT, READY_PORT, RECORDS

_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV"}
_RCODES = {0: "NOERROR", FORMERR: "FORMERR", 3: "NXDOMAIN", NOTIMP: "NOTIMP"}
_EXISTING = {name.split(".", i)[-1] for name in RECORDS for i in range(name.count("."))}
"""Every name with something at or below it: asked for a type it lacks, it is NODATA, not NXDOMAIN (RFC 8020)."""


def _find(name: str, qtype: int) -> Found:
    if packed := [ipaddress.ip_address(a).packed for a in RECORDS.get(name, {}).get(_TYPES.get(qtype, ""), ())]:
        return addresses(qtype, packed)
    inside = name == DOMAIN or name.endswith("." + DOMAIN)
    return denied(0 if name in _EXISTING else 3, DOMAIN if inside else "")


class Answers:
    """Queries -> replies, counted as CoreDNS counts them. server: `address:port`; pod: its name."""

    def __init__(self, server: str, pod: str) -> None:
        self._server, self._pod = server, pod
        self._requests: Counter[tuple[str, str]] = Counter()
        self._responses: Counter[str] = Counter()
        self._known: dict[tuple[bytes, str], tuple[bytes, str, str]] = {}

    def answer(self, query: bytes, proto: str, send: Send) -> None:
        """Send the reply to one message, at once; nothing for what deserves none."""
        if not is_query(query):
            return
        key = query[2:], proto
        if (known := self._known.get(key)) is None:
            if len(self._known) >= 4096:
                self._known.clear()
            rest, number, code = reply_to(query, proto, _find, AUTHORITATIVE, self._pod)
            known = self._known[key] = rest, _TYPES.get(number or 0, "other"), _RCODES[code]
        rest, qtype, rcode = known
        self._requests[proto, qtype] += 1
        self._responses[rcode] += 1
        send(query[:2] + rest)

    def metrics(self) -> str:
        """Prometheus text with CoreDNS's names and labels (plugin/metrics)."""
        where = f'server="dns://{self._server}"'
        lines = ["# TYPE coredns_dns_requests_total counter"]
        lines += [
            f'coredns_dns_requests_total{{family="1",proto="{proto}",{where},type="{qtype}",view="",zone="."}} {n}'
            for (proto, qtype), n in sorted(self._requests.items())
        ]
        lines += ["# TYPE coredns_dns_responses_total counter"]
        lines += [
            f'coredns_dns_responses_total{{plugin="",rcode="{rcode}",{where},view="",zone="."}} {n}'
            for rcode, n in sorted(self._responses.items())
        ]
        return "\n".join(lines) + "\n"


async def _serve_http(address: str, port: int, pages: dict[str, Callable[[], str]]) -> asyncio.Server:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1").split()
            text = pages[head[1]]() if len(head) > 1 and head[1] in pages else None
            status, body = ("200 OK", text) if text is not None else ("404 Not Found", "")
            fields = f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close"
            writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}".encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(page, address, port)


async def serve(address: str, port: int, lameduck: float, pod: str) -> None:
    """Serve until SIGTERM, then end as CoreDNS does. Lameduck in seconds."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    answers = Answers(f"{address}:{port}", pod)
    close_udp = serve_udp(address, port, answers.answer)
    close_tcp = await serve_tcp(address, port, answers.answer)
    metrics = await _serve_http(address, METRICS_PORT, {"/metrics": answers.metrics})
    health = await _serve_http(address, HEALTH_PORT, {"/health": lambda: "OK"})
    ready = await _serve_http(address, READY_PORT, {"/ready": lambda: "OK"})
    await told.wait()
    ready.close()
    await asyncio.sleep(lameduck)
    health.close()
    metrics.close()
    close_udp()
    close_tcp()


def main() -> None:
    """`python -m probe.cluster.standin ADDRESS PORT LAMEDUCK NAME`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("lameduck", type=float)
    parser.add_argument("name")
    given = parser.parse_args()
    try:
        asyncio.run(serve(given.address, given.port, given.lameduck, given.name))
    except OSError as problem:
        raise SystemExit(f"listen {given.address}: {problem.strerror}") from None


if __name__ == "__main__":
    main()
