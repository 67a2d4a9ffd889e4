"""A CoreDNS pod where no CoreDNS is installed: address, port, lameduck -> DNS, /ready, /health, /metrics, and its end.

What SIGTERM does is CoreDNS's sequence (1.5.0 to 1.15.0: plugin/ready, plugin/health, core/dnsserver):
at once /ready is refused; for the lameduck DNS by UDP and TCP and /health go on; then /health and /metrics close,
then DNS, then exit 0.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable

from probe.cluster.zone import DOMAIN, HEALTH_PORT, METRICS_PORT, READY_PORT, RECORDS, SOA_NUMBERS, TTL, wire_name

_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV"}
_NUMBERS = {"A": 1, "AAAA": 28}
_RCODES = {0: "NOERROR", 1: "FORMERR", 3: "NXDOMAIN", 4: "NOTIMP"}
_OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
_EXISTING = {name.split(".", i)[-1] for name in RECORDS for i in range(name.count("."))}
"""Every name with something at or below it: asked for a type it lacks, it is NODATA, not NXDOMAIN (RFC 8020)."""
_TCP_IDLE = 10.0
_BURST = 512


def _soa(owner: str) -> bytes:
    rdata = wire_name(f"ns.dns.{DOMAIN}") + wire_name(f"hostmaster.{DOMAIN}") + struct.pack("!5I", *SOA_NUMBERS)
    return wire_name(owner) + struct.pack("!HHIH", 6, 1, TTL, len(rdata)) + rdata


def _read_question(query: bytes) -> tuple[str, int, int] | None:
    """Name in lower case, type, and the question's end; None if the message is cut short or compressed."""
    labels, at = [], 12
    while at < len(query) and (length := query[at]):
        if length > 63:
            return None
        labels.append(query[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    if len(query) < at + 5:
        return None
    return ".".join(labels), int.from_bytes(query[at + 1 : at + 3]), at + 5


def _body(name: str, qtype: int) -> tuple[int, int, bytes, int]:
    """RCODE, number of answers, answer and authority sections, number of authority records."""
    if types := RECORDS.get(name):
        addresses = types.get(_TYPES.get(qtype, ""), ())
        answers = [ipaddress.ip_address(a).packed for a in addresses]
        if answers:
            head = struct.pack("!HHHI", 0xC00C, qtype, 1, TTL)
            return 0, len(answers), b"".join(head + struct.pack("!H", len(a)) + a for a in answers), 0
    inside = name == DOMAIN or name.endswith("." + DOMAIN)
    return 0 if name in _EXISTING else 3, 0, _soa(DOMAIN if inside else ""), 1


class Answers:
    """Queries -> replies in wire format (RFC 1035, 4.1; RFC 6891 for OPT), counted as CoreDNS counts them."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._requests: Counter[tuple[str, str]] = Counter()
        self._responses: Counter[str] = Counter()
        self._known: dict[bytes, tuple[bytes, str, str]] = {}

    def reply(self, query: bytes, proto: str) -> bytes | None:
        """The reply to one message; None for what deserves none: too short for a header, or itself a reply."""
        if len(query) < 12 or query[2] & 0x80:
            return None
        key = query[2:]
        if (known := self._known.get(key)) is None:
            if len(self._known) >= 4096:
                self._known.clear()
            known = self._known[key] = self._build(query)
        rest, qtype, rcode = known
        self._requests[proto, qtype] += 1
        self._responses[rcode] += 1
        return query[:2] + rest

    def _build(self, query: bytes) -> tuple[bytes, str, str]:
        """The reply after its id, and the labels it is counted by."""
        flags = 0x8000 | int.from_bytes(query[2:4]) & 0x7900
        question = _read_question(query) if query[4:6] == b"\0\1" else None
        if question is None:
            return struct.pack("!5H", flags | 1, 0, 0, 0, 0), "other", _RCODES[1]
        name, qtype, end = question
        type_label = _TYPES.get(qtype, "other")
        if flags & 0x7800:
            return struct.pack("!5H", flags | 4, 1, 0, 0, 0) + query[12:end], type_label, _RCODES[4]
        rcode, answers, body, authority = _body(name, qtype)
        opt = _OPT if query[10:12] != b"\0\0" and query[end : end + 3] == b"\0\0\x29" else b""
        head = struct.pack("!5H", flags | 0x0400 | rcode, 1, answers, authority, 1 if opt else 0)
        return head + query[12:end] + body + opt, type_label, _RCODES[rcode]

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


def _serve_udp(address: str, port: int, answers: Answers) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((address, port))

    def readable() -> None:
        for _ in range(_BURST):
            try:
                query, client = sock.recvfrom(4096)
            except BlockingIOError:
                return
            if reply := answers.reply(query, "udp"):
                sock.sendto(reply, client)

    asyncio.get_running_loop().add_reader(sock, readable)
    return sock


async def _serve_tcp(address: str, port: int, answers: Answers) -> asyncio.Server:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), _TCP_IDLE))
                if reply := answers.reply(await reader.readexactly(length), "tcp"):
                    writer.write(len(reply).to_bytes(2) + reply)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(connection, address, port)


async def serve(address: str, port: int, lameduck: float) -> None:
    """Serve until SIGTERM, then end as CoreDNS does. Lameduck in seconds."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    answers = Answers(f"{address}:{port}")
    udp = _serve_udp(address, port, answers)
    tcp = await _serve_tcp(address, port, answers)
    metrics = await _serve_http(address, METRICS_PORT, {"/metrics": answers.metrics})
    health = await _serve_http(address, HEALTH_PORT, {"/health": lambda: "OK"})
    ready = await _serve_http(address, READY_PORT, {"/ready": lambda: "OK"})
    await told.wait()
    ready.close()
    await asyncio.sleep(lameduck)
    health.close()
    metrics.close()
    asyncio.get_running_loop().remove_reader(udp)
    udp.close()
    tcp.close()


def main() -> None:
    """`python -m probe.cluster.standin ADDRESS PORT LAMEDUCK`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("lameduck", type=float)
    given = parser.parse_args()
    try:
        asyncio.run(serve(given.address, given.port, given.lameduck))
    except OSError as problem:
        raise SystemExit(f"listen {given.address}: {problem.strerror}") from None


if __name__ == "__main__":
    main()
