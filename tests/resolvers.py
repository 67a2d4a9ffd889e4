"""A resolver's program, a profile, both at the same faults in one network namespace -> what each put on the wire.

`python -m tests.resolvers ORDER`, under `unshare --net --mount`: ORDER and the answer are JSON. Nothing leads out of
the namespace, and it is gone with the process.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field

from probe.clients import CLIENTS, Answer
from probe.clients.sockets import walk
from probe.linux import SO_TIMESTAMPNS, ask_for_stamps
from probe.model import NS
from probe.resolv import read_resolv_conf
from tests.replies import QTYPES, REPLIES, Rule, read_question
from tests.servers import ScriptedServer

SERVING = ("127.0.0.1", "127.0.0.2")
"""Nameservers that are there; any other refuses."""
RULES = (
    Rule(REPLIES["silent"], name="silent-*"),
    Rule(REPLIES["servfail"], name="servfail-*"),
    Rule(REPLIES["refused"], name="refused-*"),
    Rule(REPLIES["nxdomain"], name="nxdomain-*"),
    Rule(REPLIES["nodata"], name="nodata-*"),
    Rule(REPLIES["truncated"], name="truncated-*", transport="udp"),
    Rule(REPLIES["truncated"], name="reset-*", transport="udp"),
    Rule(REPLIES["reset"], name="reset-*", transport="tcp"),
    Rule(REPLIES["truncated"], name="hang-up-*", transport="udp"),
    Rule(REPLIES["hang_up"], name="hang-up-*", transport="tcp"),
    Rule(REPLIES["silent"], name="a-lost-*", qtype="A"),
    Rule(REPLIES["silent"], name="aaaa-lost-*", qtype="AAAA"),
    Rule(REPLIES["silent"], name="first-lost-*", until=0.5),
    Rule(REPLIES["servfail"], name="a-servfail-*", qtype="A"),
    Rule(REPLIES["servfail"], name="aaaa-servfail-*", qtype="AAAA"),
    Rule(REPLIES["nodata"], name="ipv4-only-*", qtype="AAAA"),
    Rule(REPLIES["nxdomain"], name="*-searched.one.test"),
    Rule(REPLIES["silent"], name="*-stopped.one.test"),
    Rule(REPLIES["servfail"], name="*-failing.one.test"),
    Rule(REPLIES["refused"], name="*-refusing.one.test"),
    Rule(REPLIES["nodata"], name="*-empty.one.test"),
    Rule(REPLIES["nxdomain"], name="*-empty.*"),
    Rule(REPLIES["nxdomain"], name="*-nowhere*"),
)


@dataclass(frozen=True)
class Packet:
    """A query, or the SYN of a connection (qtype SYN). at: seconds since the lookup's first."""

    at: float
    server: str
    transport: str
    port: int
    id: int
    name: str
    qtype: str


@dataclass
class Seen:
    """What one lookup came to, or those of one process that looked up a name several times."""

    took: float
    error: str
    addresses: list[str]
    packets: list[Packet] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """What is looked up. program: the resolver's, none for a library of ours; names: `*` in them stands for who asks.

    times: how often the program runs, for it may not do the same each time; the profile does each time.
    at: when each process looks its name up, in seconds. patience: seconds for a process, glibc's by TCP knows no end.
    at_once: so many processes run side by side.
    """

    profile: str
    conf: str
    program: list[str]
    names: list[str]
    times: int = 1
    at: list[float] = field(default_factory=lambda: [0.0])
    patience: float = 7.0
    at_once: int = 100

    def still_waiting(self) -> Seen:
        return Seen(self.patience, "still waiting", [])


class Wire(threading.Thread):
    """Every packet to port 53 on loopback, as it is sent, with the kernel's stamp."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self._sock.bind(("lo", 0))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        ask_for_stamps(self._sock)
        self.packets: list[Packet] = []

    def run(self) -> None:
        while True:
            octets, control, _, _ = self._sock.recvmsg(65535, 256)
            stamp = next(struct.unpack("=qq", data) for _, kind, data in control if kind == SO_TIMESTAMPNS)
            at, inner = stamp[0] + stamp[1] / 1e9, octets[(octets[0] & 15) * 4 :]
            source, port = struct.unpack_from("!HH", inner)
            flow = at, socket.inet_ntoa(octets[16:20]), "udp" if octets[9] == socket.IPPROTO_UDP else "tcp", source
            if port == 53:
                self.packets += [Packet(*flow, *asked) for asked in self._asked(flow[2], inner)]

    @staticmethod
    def _asked(transport: str, inner: bytes) -> Iterator[tuple[int, str, str]]:
        """Id, name and type of each query in a datagram or segment; of a SYN, that it is one."""
        frames = [inner[8:]] if transport == "udp" else []
        if transport == "tcp" and inner[13] & 2:
            yield 0, "", "SYN"
        stream = inner[(inner[12] >> 4) * 4 :] if transport == "tcp" else b""
        while len(stream) > 14:
            end = 2 + int.from_bytes(stream[:2])
            frames.append(stream[2:end])
            stream = stream[end:]
        for octets in frames:
            name, qtype, _ = read_question(octets)
            yield int.from_bytes(octets[:2]), name, QTYPES[qtype]

    def of(self, label: str) -> list[Packet]:
        """A lookup's packets, by the label that is its own; a SYN is of whose query follows from that port."""
        mine = [p for p in self.packets if p.name.split(".")[0] == label]
        ports = {(p.port, p.transport) for p in mine}
        mine += [p for p in self.packets if p.qtype == "SYN" and (p.port, p.transport) in ports]
        mine.sort(key=lambda p: p.at)
        return [Packet(**{**asdict(p), "at": p.at - mine[0].at}) for p in mine]


async def _really(order: Order, name: str) -> Seen:
    if not order.program:
        conf = read_resolv_conf(order.conf)
        servers = [(ip, 53) for ip in conf.nameservers]
        return await _here(order, name, CLIENTS[order.profile].looks_up(conf, servers))
    words = [*order.program, name, *(map(str, order.at) if len(order.at) > 1 else ())]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    try:
        async with asyncio.timeout(order.patience):
            text = (await process.communicate())[0].decode()
    except TimeoutError:
        process.kill()
        await process.wait()
        return order.still_waiting()
    took, error, addresses = text.split("\t")
    found = sorted(str(ipaddress.ip_address(text)) for text in addresses.split())
    return Seen(float(took), error, found)


async def _here(order: Order, name: str, looks_up: Callable[[str], Awaitable[Answer]]) -> Seen:
    async def after(seconds: float) -> Answer:
        await asyncio.sleep(seconds)
        return await looks_up(name)

    from_ns = time.monotonic_ns()
    try:
        async with asyncio.timeout(order.patience):
            answers = await asyncio.gather(*map(after, order.at))
    except TimeoutError:
        return order.still_waiting()
    took = (time.monotonic_ns() - from_ns) / NS
    return Seen(took, "; ".join(answer.error for answer in answers), sorted(answers[-1].addresses))


async def _emulated(order: Order, name: str) -> Seen:
    conf = read_resolv_conf(order.conf)
    servers = [(ip, 53) for ip in conf.nameservers]
    client = CLIENTS[order.profile].client(conf, 53)
    return await _here(order, name, lambda name: walk(client.lookup(name, time.monotonic_ns()), servers))


async def _look(order: Order) -> dict[str, list[Seen]]:
    """Each name by the profile, then by the resolver, as often as it shall; all names at once."""
    wire = Wire()
    wire.start()
    marks = ["emulated", *(f"real{k}" for k in range(order.times))]
    seen: dict[str, list[Seen]] = {name: [] for name in order.names}
    places = asyncio.Semaphore(order.at_once)

    async def in_turn(how: Callable[[Order, str], Awaitable[Seen]], name: str) -> Seen:
        async with places:
            return await how(order, name)

    for how, some in ((_emulated, marks[:1]), (_really, marks[1:])):
        asked = [(name, name.replace("*", mark)) for mark in some for name in order.names]
        for (name, _), one in zip(asked, await asyncio.gather(*(in_turn(how, own) for _, own in asked)), strict=True):
            seen[name].append(one)
    await asyncio.sleep(0.1)
    for name, all_seen in seen.items():
        for mark, one in zip(marks, all_seen, strict=True):
            one.packets = wire.of(name.replace("*", mark).split(".")[0])
    return seen


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    os.nice(-15)  # instants are compared: whoever else is busy here is no part of it
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(order.conf)
        file.flush()
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
        servers = [ScriptedServer(RULES, address, port=53) for address in SERVING]
        seen = asyncio.run(_look(order))
        for server in servers:
            server.close()
    said = {name: [asdict(one) for one in all_seen] for name, all_seen in seen.items()}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
