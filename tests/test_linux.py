"""Real sockets on the loopback device in; batches, stamps, errors, drops and ports out, as the kernel gives them."""

from __future__ import annotations

import errno
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probe import linux
from probe.linux import Connector, Receiver, own_drops, receive_buffer, socket_address
from tests.servers import closed_port, has_ipv6

ADDRESSES = [
    "127.0.0.1",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on the loopback device")),
]
addresses = pytest.mark.parametrize("address", ADDRESSES)
MS = 1_000_000
New = Callable[..., socket.socket]


@pytest.fixture
def new() -> Iterator[New]:
    """Makes UDP sockets that do not block: `new("127.0.0.1")` is bound there, `new(to=that)` connected to that one."""
    made: list[socket.socket] = []

    def make(address: str = "127.0.0.1", to: socket.socket | None = None) -> socket.socket:
        sock = socket.socket(to.family if to else socket_address(address, 0)[0], socket.SOCK_DGRAM)
        made.append(sock)
        sock.setblocking(False)
        if to:
            sock.connect(to.getsockname())
        else:
            sock.bind((address, 0))
        return sock

    yield make
    for sock in made:
        sock.close()


def texts(receiver: Receiver) -> list[bytes]:
    """The datagrams that were received, as far as they were kept."""
    return [receiver.octets(row) for row in range(receiver.filled)]


def refusing(new: New, address: str) -> socket.socket:
    """A socket that was connected to a port where nobody listens, and asks for errors."""
    sock = new(address)
    sock.connect((address, closed_port(address)))
    linux.ask_for_errors(sock)
    return sock


def wait_for_error(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(1000), "no error came"


# -- batches


@addresses
def test_one_batch_is_filled_from_several_sockets(new: New, address: str) -> None:
    ears = [new(address) for _ in range(3)]
    mouths = [new(to=ear) for ear in ears]
    for k, mouth in enumerate(mouths):
        for i in range(k + 1):
            mouth.send(b"%d:%d" % (k, i) + b"." * i)
    receiver = Receiver(rows=16, most=64)
    assert [receiver.receive(ear.fileno(), 100 + k) for k, ear in enumerate(ears)] == [1, 2, 3]
    assert texts(receiver) == [b"0:0", b"1:0", b"1:1.", b"2:0", b"2:1.", b"2:2.."]
    assert receiver.lengths.tolist() == [3, 3, 4, 3, 4, 5]
    assert receiver.sources[: receiver.filled].tolist() == [100, 101, 101, 102, 102, 102]
    assert not receiver.cut.any()
    assert receiver.receive(ears[0].fileno(), 1) == 0, "nothing waits"


def test_a_full_batch_leaves_the_rest_waiting(new: New) -> None:
    ear = new()
    mouth = new(to=ear)
    for i in range(5):
        mouth.send(b"%d" % i)
    receiver = Receiver(rows=4, most=64)
    assert receiver.receive(ear.fileno(), 0) == 4
    assert receiver.receive(ear.fileno(), 0) == 0, "no room"
    receiver.clear()
    assert receiver.filled == len(receiver.lengths) == len(receiver.stamps) == 0
    assert receiver.receive(ear.fileno(), 7) == 1
    assert (texts(receiver), receiver.sources[0]) == ([b"4"], 7)


def test_lengths_and_cuts_of_datagrams_of_every_size(new: New) -> None:
    ear = new()
    mouth = new(to=ear)
    receiver = Receiver(rows=8, most=64)
    sizes = [0, 1, 63, 64, 65, 1400, 60_000, 12]
    for _ in range(2):  # the second time over rows that were used
        for size in sizes:
            mouth.send(b"y" * size)
        assert receiver.receive(ear.fileno(), 0) == 8
        assert receiver.lengths.tolist() == [min(size, 64) for size in sizes]
        assert receiver.cut.tolist() == [size > 64 for size in sizes]
        assert texts(receiver) == [b"y" * min(size, 64) for size in sizes]
        receiver.clear()


@addresses
def test_stamps_are_the_kernels_however_late_one_reads(new: New, address: str) -> None:
    ear = new(address)
    linux.ask_for_stamps(ear)
    # The kernel turns stamping on a moment after the first socket asks; until then it stamps on reading.
    time.sleep(0.05)
    mouth = new(to=ear)
    before = time.time_ns()
    mouth.send(b"a")
    after = time.time_ns()
    time.sleep(0.03)
    receiver = Receiver(rows=4, most=64)
    receiver.receive(ear.fileno(), 0)
    assert before - MS <= receiver.stamps[0] <= after + MS
    assert time.time_ns() - receiver.stamps[0] > 25 * MS


def test_a_row_that_was_stamped_once_is_not_stamped_for_the_next(new: New) -> None:
    stamped, plain = new(), new()
    linux.ask_for_stamps(stamped)
    receiver = Receiver(rows=1, most=64)
    found = []
    for ear in (stamped, plain, stamped):
        new(to=ear).send(b"x")
        receiver.receive(ear.fileno(), 0)
        found.append(int(receiver.stamps[0]) > 0)
        receiver.clear()
    assert found == [True, False, True]


def test_nothing_is_read_from_a_descriptor_that_is_none() -> None:
    receiver = Receiver(rows=1, most=64)
    assert receiver.receive(-1, 0) == receiver.filled == 0


# -- errors


@addresses
def test_a_refusal_comes_with_the_datagram_that_caused_it(new: New, address: str) -> None:
    sock = refusing(new, address)
    for text in (b"first", b"second"):
        sock.send(text)
        wait_for_error(sock)
        assert list(linux.error_queue(sock)) == [(errno.ECONNREFUSED, text)]
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert list(linux.error_queue(sock)) == []


def test_a_pending_error_keeps_no_datagram_from_being_read(new: New) -> None:
    sock = refusing(new, "127.0.0.1")
    sock.send(b"refused")
    wait_for_error(sock)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(sock.getpeername())
        server.sendto(b"welcome", sock.getsockname())
        receiver = Receiver(rows=4, most=64)
        assert receiver.receive(sock.fileno(), 0) + receiver.receive(sock.fileno(), 0) == 1
        assert texts(receiver) == [b"welcome"]
        assert list(linux.error_queue(sock)) == [(errno.ECONNREFUSED, b"refused")]


# -- receive buffers


def test_what_is_granted_is_what_the_kernel_says(new: New) -> None:
    sock = new()
    assert receive_buffer(sock, 256 << 10) == 256 << 10 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


@addresses
def test_datagrams_that_overflow_our_own_buffer_are_counted(new: New, address: str) -> None:
    ear = new(address)
    receive_buffer(ear, 8 << 10)
    mouth = new(to=ear)
    assert own_drops(ear) == 0
    for _ in range(100):
        mouth.send(b"z" * 1000)
    receiver = Receiver(rows=128, most=2000)
    received = receiver.receive(ear.fileno(), 0)
    assert 0 < received < 100
    assert own_drops(ear) == 100 - received
    assert own_drops(mouth) == 0


# -- ports and addresses


@addresses
def test_the_kernel_chooses_ports_within_limits(new: New, address: str) -> None:
    target, used = new(address), set()
    for _ in range(20):
        sock = socket.socket(target.family, socket.SOCK_DGRAM)
        with sock:
            if not linux.limit_ports(sock, 45_000, 45_099):
                pytest.skip("needs Linux 6.3 or later: run a newer kernel")
            sock.connect(target.getsockname())
            used.add(sock.getsockname()[1])
    assert all(45_000 <= port <= 45_099 for port in used)
    assert len(used) > 5


def test_limits_that_make_no_range_are_refused(new: New) -> None:
    assert not linux.limit_ports(new(), 45_099, 45_000)


def test_the_port_range_is_the_kernels() -> None:
    low, high = linux.port_range()
    assert 1 <= low < high <= 65_535


@pytest.mark.parametrize(
    ("address", "port", "family", "wire"),
    [
        ("127.0.0.1", 53, socket.AF_INET, "0035 7f000001 0000000000000000"),
        ("::1", 0x1234, socket.AF_INET6, "1234 00000000 00000000000000000000000000000001 00000000"),
        ("fe80::5%lo", 53, socket.AF_INET6, "0035 00000000 fe800000000000000000000000000005 01000000"),
    ],
)
def test_a_struct_sockaddr(address: str, port: int, family: int, wire: str) -> None:
    assert socket_address(address, port) == (family, int(family).to_bytes(2, sys.byteorder) + bytes.fromhex(wire))


@addresses
def test_a_connector_gives_the_same_socket_a_new_port_each_time(new: New, address: str) -> None:
    target = new(address)
    connector = Connector(socket_address(address, target.getsockname()[1])[1])
    ports = set()
    with socket.socket(target.family, socket.SOCK_DGRAM) as sock:
        for i in range(50):
            assert connector.reconnect(sock.fileno()) == 0
            ports.add(sock.getsockname()[1])
            sock.send(b"%d" % i)
            text, source = target.recvfrom(100)
            assert (text, source[1]) == (b"%d" % i, sock.getsockname()[1])
            assert sock.getpeername()[:2] == target.getsockname()[:2]
    assert len(ports) > 45, "random draws from thousands"


def test_a_reply_to_a_port_that_was_left_reaches_nobody(new: New) -> None:
    target = new()
    connector = Connector(socket_address("127.0.0.1", target.getsockname()[1])[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        connector.reconnect(sock.fileno())
        left = sock.getsockname()
        connector.reconnect(sock.fileno())
        assert sock.getsockname() != left
        target.sendto(b"late", left)
        receiver = Receiver(rows=1, most=64)
        assert receiver.receive(sock.fileno(), 0) == 0


def test_a_connector_returns_the_errno() -> None:
    connector = Connector(socket_address("127.0.0.1", 53)[1])
    assert connector.reconnect(-1) == errno.EBADF
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        assert connector.reconnect(other.fileno()) != 0


# -- processes


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_fine_timers_take_the_slack_out_of_sleeps() -> None:
    program = """
import pathlib, select, time
from probe.linux import fine_timers
fine_timers()
late = []
for _ in range(50):
    began = time.monotonic_ns()
    select.select([], [], [], 0.0005)
    late.append(time.monotonic_ns() - began - 500_000)
print(pathlib.Path("/proc/self/timerslack_ns").read_text(), sorted(late)[25])
"""
    slack, late = run(program).stdout.split()
    assert int(slack) == 1
    assert 0 <= int(late) < 5 * MS


CHILD = """
import os, signal, sys, time
from probe.linux import die_with_parent
die_with_parent(signal.SIGTERM, int(sys.argv[1]) or os.getppid())
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
"""
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), "60"], stdout=subprocess.PIPE)
assert child.stdout.readline() == b"ready\\n"
print(child.pid, flush=True)
os._exit(0)
"""


def test_a_child_dies_with_its_parent() -> None:
    """The parent starts a child that would sleep for a minute, says its id and ends."""
    child = int(run(PARENT, CHILD).stdout)
    deadline = time.monotonic() + 5
    while is_alive(child):
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(("parent", "code", "said"), [(1 << 22, -signal.SIGTERM, ""), (0, 0, "ready\n")])
def test_a_child_whose_parent_is_gone_already_dies_at_once(parent: int, code: int, said: str) -> None:
    """1 << 22 is nobody's id; 0 stands for the true parent's here."""
    ended = run(CHILD, parent, 0)
    assert (ended.returncode, ended.stdout) == (code, said)
