"""The Service's proxy in front of pods of a few lines, on real sockets: ids, stickiness, silence, refusal, resets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from probe.cluster.endpoints import Endpoint, era_of
from probe.cluster.sessions import Conntrack
from probe.cluster.vip import Vip

BLOCK = f"127.55.{os.getpid() % 256}"
VIP = f"{BLOCK}.10"


class EchoPod:
    """Answers each datagram, and each connection's bytes, with its letter put behind what came."""

    def __init__(self, letter: str, port: int) -> None:
        self.letter, self.address, self.port = letter, f"{BLOCK}.{ord(letter)}", port
        self.tcp: asyncio.Server | None = None
        self.udp: asyncio.DatagramTransport | None = None

    def endpoint(self, serving: bool = True, terminating: bool = False) -> Endpoint:
        return Endpoint(self.letter, self.address, serving, terminating)

    async def start(self) -> None:
        pod = self

        class Echo(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                assert pod.udp
                pod.udp.sendto(data + pod.letter.encode(), addr)

        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1000):
                writer.write(data + self.letter.encode())
            writer.close()

        loop = asyncio.get_running_loop()
        self.udp, _ = await loop.create_datagram_endpoint(Echo, (self.address, self.port))
        self.tcp = await asyncio.start_server(connection, self.address, self.port)

    def end(self) -> None:
        """The process is gone; its network stays."""
        if self.udp and self.tcp:
            self.udp.close()
            self.tcp.close()


class Client:
    """One source port."""

    def __init__(self, port: int) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect((VIP, port))

    async def ask(self, ident: bytes, wait: float = 0.15) -> str:
        """The pod's letter, x for silence, r for a refusal; a reply with another id fails."""
        try:
            self.sock.send(ident + b"?")
            async with asyncio.timeout(wait):
                reply = await asyncio.get_running_loop().sock_recv(self.sock, 100)
        except TimeoutError:
            return "x"
        except ConnectionRefusedError:
            return "r"
        assert reply[:-1] == ident + b"?"
        return reply[-1:].decode()


class Scene:
    """A Service with pods a, b, c behind it, all serving."""

    def __init__(self) -> None:
        with socket.socket() as trial:
            trial.bind((VIP, 0))
            self.port: int = trial.getsockname()[1]
        self.vip = Vip(VIP, self.port, Conntrack(era_of("1.33")))
        self.pods = {letter: EchoPod(letter, self.port) for letter in "abc"}
        self.clients: list[Client] = []

    def client(self) -> Client:
        self.clients.append(Client(self.port))
        return self.clients[-1]

    async def start(self) -> None:
        for letter, pod in self.pods.items():
            await pod.start()
            self.vip.attach(letter, pod.address)
        self.program("abc")

    def program(self, letters: str) -> None:
        self.vip.program(tuple(self.pods[letter].endpoint() for letter in letters))

    async def stop(self) -> None:
        for client in self.clients:
            client.sock.close()
        if self.vip._relays:
            await asyncio.wait(self.vip._relays)
        self.vip.close()
        for letter, pod in self.pods.items():
            pod.end()
            if letter in self.vip._pods:
                self.vip.detach(letter)
        await asyncio.sleep(0.02)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(VIP, self.port)


def play(story: Callable[[Scene], Awaitable[None]]) -> None:
    """Run a story on a fresh scene."""

    async def run() -> None:
        scene = Scene()
        await scene.start()
        try:
            async with asyncio.timeout(10):
                await story(scene)
        finally:
            await scene.stop()

    asyncio.run(run())


def test_many_clients_share_the_proxys_sockets_and_get_their_own_ids_back() -> None:
    async def story(scene: Scene) -> None:
        clients = [scene.client() for _ in range(60)]
        same_id = b"\x12\x34"
        seen = await asyncio.gather(*(client.ask(same_id) for client in clients))
        assert set(seen) == set("abc")
        again = await asyncio.gather(*(client.ask(bytes([i, 7])) for i, client in enumerate(clients)))
        assert again == seen  # sticky per source port

    play(story)


def test_a_dead_pod_is_silent_for_udp_until_its_flows_are_deleted() -> None:
    async def story(scene: Scene) -> None:
        scene.program("a")
        fixed = scene.client()
        drawn = await fixed.ask(b"01")
        scene.program("abc")
        scene.pods["a"].end()
        await asyncio.sleep(0.01)
        drawn += await fixed.ask(b"02") + await fixed.ask(b"03")
        scene.vip.detach("a")
        drawn += await fixed.ask(b"04")
        scene.program("b")
        drawn += await fixed.ask(b"05") + await fixed.ask(b"06")
        assert drawn == "axxxbb"

    play(story)


def test_a_query_right_after_a_refusal_is_not_lost_in_the_proxy() -> None:
    async def story(scene: Scene) -> None:
        """The pod refuses, then is back at the same address: the error of the old datagram costs no new one."""
        scene.program("a")
        fixed, pod = scene.client(), scene.pods["a"]
        pod.end()
        await asyncio.sleep(0.01)
        drawn = "".join([await fixed.ask(b"0%d" % i, 0.05) for i in range(4)])
        await pod.start()
        drawn += "".join([await fixed.ask(b"1%d" % i) for i in range(8)])
        assert drawn == "xxxx" + "a" * 8

    play(story)


def test_without_endpoints_udp_and_tcp_are_refused_and_come_back() -> None:
    async def story(scene: Scene) -> None:
        client = scene.client()
        assert await client.ask(b"01") in "abc"
        scene.program("")
        assert await client.ask(b"02") == "r"
        with pytest.raises(ConnectionRefusedError):
            await scene.connect()
        scene.program("c")
        assert await client.ask(b"03") == "c"
        _, writer = await scene.connect()
        writer.close()

    play(story)


def test_a_tcp_connection_stays_with_its_pod_and_ends_with_it() -> None:
    async def story(scene: Scene) -> None:
        scene.program("a")
        reader, writer = await scene.connect()
        drawn = b""
        for letters in ("a", "b", ""):
            scene.program(letters)
            writer.write(b"?")
            drawn += await reader.readexactly(2)
        writer.write_eof()
        assert drawn + await reader.read() == b"?a?a?a"
        writer.close()

    play(story)


def test_a_tcp_connection_to_a_dead_pod_is_reset_and_to_a_vanished_one_left_unanswered() -> None:
    async def story(scene: Scene) -> None:
        scene.program("a")
        scene.pods["a"].end()
        await asyncio.sleep(0.01)
        reader, writer = await scene.connect()
        with pytest.raises(ConnectionResetError):
            writer.write(b"?" + await reader.read(1))
        writer.close()
        scene.vip.detach("a")
        reader, writer = await scene.connect()
        writer.write(b"?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
        writer.close()
        await asyncio.sleep(0.01)
        assert not scene.vip._relays  # the client gave up, and so has the proxy

    play(story)


def test_datagrams_the_proxy_was_too_slow_for_are_counted() -> None:
    async def story(scene: Scene) -> None:
        client, sent = scene.client(), 20_000
        assert scene.vip.drops() == 0
        for i in range(sent):  # without a moment for the proxy
            client.sock.send(i.to_bytes(2) + b"?")
        dropped = scene.vip.drops()
        assert 0 < dropped < sent
        assert dropped == scene.vip.drops()

    play(story)
