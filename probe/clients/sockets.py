"""A resolver's steps, its servers -> the steps taken with real sockets (asyncio), and their end."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from probe.clients.steps import Event, Hears, Query, Send, Socket, Steps, Wait
from probe.linux import ask_for_errors, error_queue
from probe.model import NS, Question
from probe.outcome import Outcome
from probe.wire import encode, judge

T = TypeVar("T")
Server = tuple[str, int]
"""Address and port."""
_TRUNCATED = 0x02
_LONGEST_NS = 3600 * NS


async def walk(steps: Steps[T], servers: Sequence[Server]) -> T:
    """Take all the steps; CancelledError leaves no socket behind."""
    sockets = _Sockets(servers)
    try:
        wait = next(steps)
        while True:
            await sockets.send(wait)
            wait = steps.send(await sockets.event(wait.until_ns))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()
        await sockets.close()


@dataclass(slots=True)
class _Sockets:
    servers: Sequence[Server]
    _came: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    _open: dict[Socket, socket.socket] = field(default_factory=dict)
    _frames: dict[Socket, bytearray] = field(default_factory=dict)
    _writers: dict[Socket, asyncio.StreamWriter] = field(default_factory=dict)
    _streams: dict[Socket, asyncio.Task[None]] = field(default_factory=dict)
    _sent: dict[Socket, dict[bytes, Query]] = field(default_factory=dict)
    _octets: dict[Query, bytes] = field(default_factory=dict)

    async def send(self, wait: Wait) -> None:
        for send in wait.sends:
            octets = self._encoded(send.query)
            self._sent.setdefault(send.socket, {})[_key(octets)] = send.query
            if send.socket.transport == "udp":
                self._datagram(send, octets)
            else:
                self._frames.setdefault(send.socket, bytearray()).extend(len(octets).to_bytes(2) + octets)
        for each in dict.fromkeys(send.socket for send in wait.sends if send.socket.transport == "tcp"):
            server = next(send.server for send in wait.sends if send.socket is each)
            if each in self._writers:
                self._writers[each].write(self._frames.pop(each))
            elif each not in self._streams:
                self._streams[each] = asyncio.create_task(self._stream(each, server))

    async def event(self, until_ns: int) -> Event:
        """The first that comes until then, or that it is then."""
        left = min(until_ns - time.monotonic_ns(), _LONGEST_NS) / NS
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0, left)):
                return await self._came.get()
        return Event(time.monotonic_ns(), Outcome.TIMEOUT)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._open.values():
            loop.remove_reader(sock)
            sock.close()
        for stream in self._streams.values():
            stream.cancel()
        await asyncio.gather(*self._streams.values(), return_exceptions=True)

    def _encoded(self, query: Query) -> bytes:
        if query not in self._octets:
            taken = {octets[:2] for octets in self._octets.values()}
            ids = iter(lambda: secrets.token_bytes(2), None)
            self._octets[query] = next(each for each in ids if each not in taken) + _template(query.question)[2:]
        return self._octets[query]

    def _datagram(self, send: Send, octets: bytes) -> None:
        """An error of send() is of what was sent before; as sendmmsg() does, who insists sends this all the same."""
        try:
            sock = self._open.get(send.socket) or self._bound(send.socket, send.server)
        except OSError as problem:
            self._failed(send.socket, send.server, problem)
            return
        if send.socket.hears is Hears.NOTHING:
            with suppress(OSError):  # musl does not look
                sock.sendto(octets, self.servers[send.server])
            return
        try:
            sock.send(octets)
        except OSError as problem:
            with suppress(OSError):
                if send.socket.insists:
                    sock.send(octets)
            self._failed(send.socket, send.server, problem)

    def _bound(self, of: Socket, server: int) -> socket.socket:
        family = _family(self.servers[server])
        sock = self._open[of] = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        if of.hears is Hears.NOTHING:
            sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))  # noqa: S104
        else:
            if of.hears is Hears.ALL:
                ask_for_errors(sock)
            sock.connect(self.servers[server])
        of.local = _text(sock.getsockname())
        asyncio.get_running_loop().add_reader(sock, self._datagrams, of, server)
        return sock

    def _datagrams(self, of: Socket, server: int) -> None:
        try:
            while True:
                octets, peer = self._open[of].recvfrom(65535)
                came_from = next((k for k, each in enumerate(self.servers) if each == peer[:2]), None)
                if came_from is not None:
                    self._read(of, came_from, octets)
        except BlockingIOError:
            for code, _ in error_queue(self._open[of]):
                self._failed(of, server, OSError(code, ""))
        except OSError as problem:
            asyncio.get_running_loop().remove_reader(self._open[of])
            self._failed(of, server, problem)

    async def _stream(self, of: Socket, server: int) -> None:
        address, port = self.servers[server]
        try:
            reader, writer = await asyncio.open_connection(address, port)
        except OSError as problem:
            self._failed(of, server, problem)
            return
        try:
            of.local = _text(writer.get_extra_info("sockname"))
            self._writers[of] = writer
            writer.write(self._frames.pop(of))
            while True:
                length = int.from_bytes(await reader.readexactly(2))
                self._read(of, server, await reader.readexactly(length))
        except asyncio.IncompleteReadError:
            self._came.put_nowait(Event(time.monotonic_ns(), Outcome.CONNECTION_LOST, of, server))
        except OSError as problem:
            self._failed(of, server, problem)
        finally:
            writer.close()

    def _read(self, of: Socket, server: int, octets: bytes) -> None:
        """Of a reply whose id or question fits nothing that was asked there, nobody hears."""
        now = time.monotonic_ns()
        query = self._sent[of].get(_key(octets))
        if query is None or not octets[2] & 0x80:
            return
        said = judge(query.question, octets)
        outcome = Outcome.TRUNCATED if octets[2] & _TRUNCATED else said.outcome
        self._came.put_nowait(Event(now, outcome, of, server, query, tuple(sorted(said.answers))))

    def _failed(self, of: Socket, server: int, problem: OSError) -> None:
        outcomes = {
            errno.ECONNREFUSED: Outcome.CONNECTION_REFUSED,
            errno.ECONNRESET: Outcome.CONNECTION_LOST,
            errno.ETIMEDOUT: Outcome.TIMEOUT,
        }
        code = problem.errno or 0
        outcome = outcomes.get(code, Outcome.NETWORK_ERROR)
        self._came.put_nowait(Event(time.monotonic_ns(), outcome, of, server, errno=code))


@lru_cache(1024)
def _template(question: Question) -> bytes:
    return encode(question)


def _key(octets: bytes) -> bytes:
    """Id and question, in lower case; of a message too short for a question, what there is."""
    end = 12
    while end < len(octets) and octets[end]:
        end += 1 + octets[end]
    return octets[:2] + octets[12 : end + 5].lower()


def _family(server: Server) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server[0] else socket.AF_INET


def _text(name: tuple[str, int]) -> str:
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
