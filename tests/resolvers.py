"""A resolver's program and a profile, both at the same faults in one network namespace -> what each put on the wire.

`python -m tests.resolvers ORDER`, under `unshare --net --mount`: ORDER and the answer are JSON. Nothing leads out of
the namespace, and it is gone with the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from probe.clients import CLIENTS
from probe.clients.sockets import Server
from probe.linux import SO_TIMESTAMPNS, ask_for_stamps
from probe.resolv import read_resolv_conf
from tests.replies import QTYPES, REPLIES, Rule, read_question
from tests.servers import ScriptedServer

SERVING = ("127.0.0.1", "127.0.0.2")
"""Nameservers that are there; any other refuses."""
PATIENCE = 7.0
"""Seconds for a lookup: glibc's by TCP knows no end."""
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
    """What one lookup came to."""

    took: float
    error: str
    addresses: list[str]
    packets: list[Packet] = field(default_factory=list)


def still_waiting() -> Seen:
    return Seen(PATIENCE, "still waiting", [])


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


async def _really(program: list[str], name: str) -> Seen:
    process = await asyncio.create_subprocess_exec(*program, name, stdout=subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE):
            text = (await process.communicate())[0].decode()
    except TimeoutError:
        process.kill()
        await process.wait()
        return still_waiting()
    took, error, addresses = text.split("\t")
    return Seen(float(took), error, sorted(addresses.split()))


async def _emulated(profile: str, conf: str, servers: list[Server], name: str) -> Seen:
    looks_up = CLIENTS[profile].looks_up(read_resolv_conf(conf), servers)
    from_ns = time.monotonic_ns()
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await looks_up(name)
    except TimeoutError:
        return still_waiting()
    return Seen((time.monotonic_ns() - from_ns) / 1e9, answer.error, sorted(answer.addresses))


async def _look(profile: str, conf: str, program: list[str], names: list[str]) -> dict[str, tuple[Seen, Seen]]:
    """Each name by the one, then by the other, with their marks in it; all names at once."""
    wire = Wire()
    wire.start()
    servers = [(ip, 53) for ip in read_resolv_conf(conf).nameservers]
    real = await asyncio.gather(*(_really(program, name.replace("*", "real")) for name in names))
    emulated = await asyncio.gather(
        *(_emulated(profile, conf, servers, name.replace("*", "emulated")) for name in names)
    )
    await asyncio.sleep(0.1)
    for mark, all_seen in (("real", real), ("emulated", emulated)):
        for name, seen in zip(names, all_seen, strict=True):
            seen.packets = wire.of(name.replace("*", mark).split(".")[0])
    return {name: (real[k], emulated[k]) for k, name in enumerate(names)}


def main() -> None:
    order = json.loads(sys.argv[1])
    os.nice(-15)  # instants are compared: whoever else is busy here is no part of it
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(order["conf"])
        file.flush()
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
        servers = [ScriptedServer(RULES, address, port=53) for address in SERVING]
        seen = asyncio.run(_look(**order))
        for server in servers:
            server.close()
    said = {name: [asdict(one) for one in both] for name, both in seen.items()}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
