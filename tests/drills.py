"""Faults -> whole runs that go through them, and a table of what each one lost, said and exited with.

`python -m tests.drills` runs them all one after the other; names choose some, `--long` adds the one of 30 minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from probe.errors import (
    EXIT_ENVIRONMENT,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_MISSED,
    EXIT_PASS,
    EXIT_USAGE,
)
from probe.linux import enter_network, port_range
from tests.apiserver import ApiServer
from tests.drilling import RATE, Result, running, started
from tests.kube_objects import service
from tests.replies import REPLIES, encode_name, message
from tests.servers import Knot, ScriptedServer, free_port

LASTS_S = 2.0
"""How long what passes lasts."""
KILLED = -signal.SIGKILL
PASS, INCONCLUSIVE = (EXIT_PASS,), (EXIT_INCONCLUSIVE,)


@dataclass(frozen=True)
class Drill:
    """A fault, and the run that goes through it.

    exits: exit codes that are right; says: what must be told, a regular expression; needs: programs, as root; lost_s:
    how many seconds may be lost. is_short: `make test` has it, too.
    """

    fault: str
    run: Callable[[Path], Result]
    exits: tuple[int, ...]
    says: str
    needs: tuple[str, ...] = ()
    lost_s: float = 0
    is_short: bool = False
    is_long: bool = False

    @property
    def lacks(self) -> str:
        """What it cannot do without here; '' for nothing."""
        if self.needs and os.geteuid() != 0:
            return "root"
        return ", ".join(program for program in self.needs if not shutil.which(program))


# -- processes


def worker_killed(folder: Path) -> Result:
    with running(folder, seconds=30) as going:
        going.until(3)
        os.kill(going.workers()[0], signal.SIGKILL)
        return going.result()


def one_of_two_killed(folder: Path) -> Result:
    with running(folder, "-T", "2") as going:
        going.until(2)
        os.kill(going.workers()[1], signal.SIGKILL)
        return going.result()


def parent_killed(folder: Path) -> Result:
    with running(folder, seconds=30) as going:
        going.until(3)
        workers = going.workers()
        going.process.kill()
        _await_end(workers)
        return going.result()


def both_killed(folder: Path) -> Result:
    with running(folder, seconds=30) as going:
        going.until(3)
        workers = going.workers()
        for pid in (*workers, going.process.pid):
            os.kill(pid, signal.SIGKILL)
        _await_end(workers)
        return going.result()


def _await_end(pids: Sequence[int]) -> None:
    """They are not children of ours: no orphan may be left."""
    deadline = time.monotonic() + 5
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} live on without the run"
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    """A zombie that nobody has waited for is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def worker_stopped(folder: Path) -> Result:
    with running(folder, seconds=7) as going:
        going.until(2)
        with _stopped(going.workers()[0]):
            time.sleep(3)
        return going.result()


def parent_stopped(folder: Path) -> Result:
    with running(folder, seconds=7) as going:
        going.until(2)
        with _stopped(going.process.pid):
            time.sleep(3)
        return going.result()


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# -- the disk


TYPES = ("A", "AAAA", "TXT", "MX", "NS", "PTR", "SOA", "SRV")
LOSSY = ("-n", "nxdomain.test", "--fail", "loss > 99%", *(word for qtype in TYPES for word in ("--type", qtype)))
"""Most rows are bad, and written one by one: a run without loss needs no more room for minutes."""


def disk_full(folder: Path) -> Result:
    with (
        _disk(folder, "tmpfs", "size=2m") as disk,
        running(disk, *LOSSY, seconds=6, environment=_spare(folder)) as going,
    ):
        going.until(3)
        _fill(disk)
        return going.result()


def disk_full_everywhere(folder: Path) -> Result:
    """Nor is there a folder for temporary files."""
    with _disk(folder, "tmpfs", "size=2m") as disk, running(disk, *LOSSY, seconds=6, startup=NOWHERE) as going:
        going.until(3)
        _fill(disk)
        return going.result()


def disk_full_for_a_while(folder: Path) -> Result:
    with (
        _disk(folder, "tmpfs", "size=2m") as disk,
        running(disk, *LOSSY, seconds=7, environment=_spare(folder)) as going,
    ):
        going.until(2)
        filler = _fill(disk)
        time.sleep(LASTS_S)
        filler.unlink()
        return going.result()


def read_only(folder: Path) -> Result:
    with _disk(folder, "tmpfs", "ro") as disk, running(disk) as going:
        return going.result()


def read_only_while_writing(folder: Path) -> Result:
    """A remount is refused while a file is open (EBUSY): the kernel does it itself where ext4 finds itself damaged."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mount = _disk(folder, str(image), "loop,errors=remount-ro")
    with mount as disk, running(disk, seconds=6, environment=_spare(folder)) as going:
        going.until(3)
        device = subprocess.run(["losetup", "-nO", "NAME", "-j", image], capture_output=True, text=True, check=True)
        Path(f"/sys/fs/ext4/{Path(device.stdout.strip()).name}/trigger_fs_error").write_text("a drill")
        return going.result()


def _spare(folder: Path) -> dict[str, str]:
    """Where what has no room goes."""
    (folder / "spare").mkdir()
    return {"TMPDIR": str(folder / "spare")}


NOWHERE = """
import tempfile
tempfile.tempdir = "/nowhere"
"""
SLOW = """
import time
from probe.runfile import RunWriter
quick = RunWriter.flush
def slow(*words):
    time.sleep(1.5)
    quick(*words)
RunWriter.flush = slow
"""


def slow_disk(folder: Path) -> Result:
    with running(folder, startup=SLOW) as going:
        return going.result()


@contextmanager
def _disk(folder: Path, what: str, options: str) -> Iterator[Path]:
    """Where it is mounted."""
    disk, kind = folder / "disk", ["-t", "tmpfs"] if what == "tmpfs" else []
    disk.mkdir()
    subprocess.run(["mount", *kind, "-o", options, what, disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def _fill(folder: Path) -> Path:
    """To the last octet."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler


# -- the clock

CLOCK = """
import mmap, os, struct, time
with open(os.environ["CLOCK"], "r+b") as file:
    step = mmap.mmap(file.fileno(), 16)
real = time.time_ns
def stepped():
    now, (at, by) = real(), struct.unpack("qq", step)
    return now + by if at and now >= at else now
time.time_ns = stepped
from probe.linux import Receiver
kernels = Receiver.stamps.fget
def stamps(self):
    found, (at, by) = kernels(self), struct.unpack("qq", step)
    return found + by * (found >= at) if at else found
Receiver.stamps = property(stamps)
"""
"""All processes of a run see the wall clock, and the kernel's stamps, as if somebody had set it."""


def clock_forward(folder: Path) -> Result:
    return _clock_set(folder, 3600)


def clock_back(folder: Path) -> Result:
    return _clock_set(folder, -3600)


def _clock_set(folder: Path, seconds: int) -> Result:
    clock = folder / "clock"
    clock.write_bytes(bytes(16))
    with running(folder, startup=CLOCK, environment={"CLOCK": str(clock)}) as going:
        going.until(2)
        with clock.open("r+b") as file:
            file.write(struct.pack("qq", time.time_ns(), seconds * 1_000_000_000))
        return going.result()


# -- what a machine has no more of


def descriptors_exhausted(folder: Path) -> Result:
    with running(folder, "-m", "tcp", "--ports", "fresh", seconds=6) as going:
        going.until(2)
        worker = str(going.workers()[0])
        subprocess.run(["prlimit", "--pid", worker, "--nofile=4:"], check=True)
        time.sleep(LASTS_S)
        subprocess.run(["prlimit", "--pid", worker, "--nofile=1024:"], check=True)
        return going.result()


def ports_exhausted(folder: Path) -> Result:
    """Somebody else takes all there are."""
    ports = range(40_000, 40_512)
    with _network() as there, ThreadPoolExecutor(1, initializer=enter_network, initargs=(there,)) as beside:
        _in(there, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={ports[0]} {ports[-1]}")
        asks = ("-m", "tcp", "--ports", "fresh", "-t", "500ms")
        with running(folder, *asks, seconds=6, network=there) as going:
            going.until(2)
            beside.submit(_take_all, ports).result()
            return going.result()


def _take_all(ports: Sequence[int]) -> None:
    over = time.monotonic() + LASTS_S
    with ExitStack() as stack:
        left = list(ports)
        while time.monotonic() < over:
            for port in list(left):
                with suppress(OSError), ExitStack() as taking:
                    taking.enter_context(socket.socket()).bind(("", port))
                    left.remove(port)
                    stack.push(taking.pop_all())
            time.sleep(0.01)


def device_gone(folder: Path) -> Result:
    with _network() as there:
        _in(there, "ip", "link", "add", "drill0", "type", "veth", "peer", "name", "drill1")
        _in(there, "ip", "address", "add", "192.0.2.53/24", "dev", "drill0")
        _in(there, "ip", "link", "set", "drill0", "up")
        _in(there, "ip", "link", "set", "drill1", "up")
        with running(folder, address="192.0.2.53", network=there, seconds=6) as going:
            going.until(3)
            _in(there, "ip", "link", "delete", "drill0")
            return going.result()


@contextmanager
def _network() -> Iterator[str]:
    """A network namespace without a way out; its path."""
    name = f"drill-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        path = f"/run/netns/{name}"
        _in(path, "ip", "link", "set", "lo", "up")
        yield path
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def _in(network: str, *words: str) -> None:
    subprocess.run(["nsenter", f"--net={network}", *words], check=True)


LIMIT = 256 << 20


def memory_limit(folder: Path) -> Result:
    """A folder that is memory fills up to the limit of the run's cgroup: the kernel ends the largest process in it."""
    with _cgroup(LIMIT) as (group, used), _disk(folder, "tmpfs", "size=1g") as disk:
        join = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")]
        with running(folder, seconds=6, prefix=join) as going:
            going.until(2)
            room = (LIMIT - used()) >> 20
            fill = ["dd", "if=/dev/zero", "bs=1M", f"count={room + 16}", f"of={disk / 'filler'}", "status=none"]
            subprocess.run([*join, *fill], check=False)
            workers = going.workers() if going.process.poll() is None else []
            result = going.result()
            _await_end(workers)
            return result


@contextmanager
def _cgroup(limit: int) -> Iterator[tuple[Path, Callable[[], int]]]:
    """A control group of its own, of version 2 or 1: its folder, and how much of its memory cannot be reclaimed."""
    root = Path("/sys/fs/cgroup")
    old = root / "memory"
    group = (old if old.is_dir() else root) / f"drill-{os.getpid()}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(str(limit))
    of = ("total_rss", "total_unevictable") if old.is_dir() else ("anon", "kernel", "shmem")

    def used() -> int:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sum(int(stat.get(name, 0)) for name in of)

    try:
        yield group, used
    finally:
        group.rmdir()


# -- who is asked, and who asks


def metrics_port_taken(folder: Path) -> Result:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(folder, "--metrics", f"127.0.0.1:{port}") as going:
            return going.result()


def api_server_lost(folder: Path) -> Result:
    with ScriptedServer() as server:
        ports = [{"name": "dns", "port": server.port, "protocol": "UDP"}]
        api = ApiServer(service("kube-dns", "127.0.0.1", ports=ports, selector=None))
        try:
            config = str(api.kubeconfig(folder / "config"))
            (folder / "service.yaml").write_text(SERVICE)
            told = (lambda: len(server.received()), server.port)
            with started(folder, ["service.yaml"], *told, environment={"KUBECONFIG": config}) as going:
                going.until(2)
                api.stop()
                return going.result()
        finally:
            api.stop()


SERVICE = f"""\
name: service
duration: 6s
lanes:
  - {{name: vip, target: service, ports: fresh, rate: {RATE}, types: [A], questions: [a.test]}}
"""
TARGETS = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]


def many_targets(folder: Path) -> Result:
    with _answering(TARGETS) as (port, heard):
        each = [word for address in TARGETS for word in ("-s", address)]
        asks = [*each, "-p", str(port), "-n", "a.test", "-Q", "1", "--ports", "fixed", "-l", "8", "--fail", "loss > 1%"]
        with started(folder, asks, heard, port) as going:
            return going.result()


@contextmanager
def _answering(addresses: Sequence[str]) -> Iterator[tuple[int, Callable[[], int]]]:
    """One port on many addresses, each query answered; the port, and how many there were."""
    heard, over, port = [0], threading.Event(), free_port()
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        for address in addresses:
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind((address, port))
            selector.register(sock, selectors.EVENT_READ)

        def serve() -> None:
            while not over.is_set():
                for key, _ in selector.select(0.1):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    query, peer = sock.recvfrom(4096)
                    heard[0] += 1
                    sock.sendto(message(query, REPLIES["answer"]), peer)

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield port, lambda: heard[0]
        finally:
            over.set()
            serving.join()


SPRAYED = 200_000


def off_path(folder: Path) -> Result:
    """Half of the guesses come from elsewhere, the other half from the server's own address and port, forged."""
    with (
        _network() as there,
        ThreadPoolExecutor(1, initializer=enter_network, initargs=(there,)) as beside,
        running(folder, "--expect", "192.0.2.1", seconds=120, network=there) as going,
    ):
        going.until(1)
        beside.submit(_spray, going.port).result()
        going.process.send_signal(signal.SIGINT)
        result = going.result()
        assert result.counters.get("unmatched"), "no guess came as far as a socket of the run"
        return result


def _spray(server_port: int) -> None:
    """Answers to what is asked, 192.0.2.66, to random ports of those that a query may leave from, with random ids."""
    ports = [port for port in range(port_range()[0], port_range()[1] + 1) if port != server_port]
    query = struct.pack("!6H", 0, 0x0100, 1, 0, 0, 0) + encode_name("a.test") + struct.pack("!2H", 1, 1)
    tail = message(query, replace(REPLIES["answer"], addresses=("192.0.2.66",)))[2:]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as forged,
    ):
        other.bind(("127.66.66.66", 0))
        forged.bind(("127.0.0.1", 0))
        for _ in range(SPRAYED // 2):
            reply = random.randbytes(2) + tail
            to = random.choice(ports)
            with suppress(OSError):  # nobody is there: ICMP
                other.sendto(reply, ("127.0.0.1", to))
            # No checksum: allowed by IPv4 (RFC 768).
            forged.sendto(struct.pack("!4H", server_port, to, 8 + len(reply), 0) + reply, ("127.0.0.1", 0))


def half_an_hour(folder: Path) -> Result:
    """As fast as one worker asks knot."""
    knot = Knot.start(folder)
    try:
        asks = ["-s", "127.0.0.1", "-p", str(knot.port), "-n", "a.example.test", "-Q", "50000", "-l", "30m"]
        with started(folder, asks, lambda: 0, knot.port) as going:
            return going.result(patience_s=2000)
    finally:
        knot.close()


ROOT_NET = ("ip", "nsenter", "sysctl")
DRILLS = {
    "worker_killed": Drill(
        "SIGKILL of the worker", worker_killed, INCONCLUSIVE, r"the worker ended after .* signal 9 .* memory", lost_s=1
    ),
    "one_of_two_killed": Drill(
        "SIGKILL of one worker of two",
        one_of_two_killed,
        INCONCLUSIVE,
        r"worker 2 of 2 ended .* is undecided",
        lost_s=1,
    ),
    "parent_killed": Drill(
        "SIGKILL of the parent", parent_killed, (KILLED,), "the file was last written", lost_s=1, is_short=True
    ),
    "both_killed": Drill("SIGKILL of both", both_killed, (KILLED,), "the file was last written", lost_s=1),
    "worker_stopped": Drill("SIGSTOP of the worker for 3 s", worker_stopped, INCONCLUSIVE, r"\d stall \("),
    "parent_stopped": Drill("SIGSTOP of the parent for 3 s", parent_stopped, PASS, "PASS", is_short=True),
    "disk_full": Drill(
        "disk full, to the end", disk_full, PASS, "disk is full.* the whole run is in /", ("mount",), is_short=True
    ),
    "disk_full_everywhere": Drill(
        "disk full, to the end, and no other",
        disk_full_everywhere,
        INCONCLUSIVE,
        "the run file lacks what came last.* the file was last written",
        ("mount",),
        lost_s=4,
    ),
    "disk_full_for_a_while": Drill(
        "disk full for 2 s", disk_full_for_a_while, PASS, "disk is full.* written again", ("mount",), is_short=True
    ),
    "read_only": Drill(
        "folder read-only from the start", read_only, (EXIT_USAGE,), "no permission to write", ("mount",), is_short=True
    ),
    "read_only_while_writing": Drill(
        "file system read-only while writing",
        read_only_while_writing,
        PASS,
        "cannot be written now.* the whole run is in /",
        ("mount", "mkfs.ext4", "losetup"),
    ),
    "slow_disk": Drill("slow disk: 1.5 s each flush", slow_disk, PASS, "PASS"),
    "clock_forward": Drill("wall clock set forward by 1 h", clock_forward, PASS, "forward by 3,600"),
    "clock_back": Drill("wall clock set back by 1 h", clock_back, PASS, "back by 3,600", is_short=True),
    "descriptors_exhausted": Drill(
        "no file descriptors for 2 s",
        descriptors_exhausted,
        INCONCLUSIVE,
        r"\d descriptors .* raise ulimit -n",
        ("prlimit",),
        is_short=True,
    ),
    "ports_exhausted": Drill(
        "no source ports for 2 s", ports_exhausted, INCONCLUSIVE, r"\d ports .* ip_local_port_range", ROOT_NET
    ),
    "memory_limit": Drill(
        "memory limit hit (OOM)", memory_limit, (*INCONCLUSIVE, KILLED), "memory|last written", ("mount",), lost_s=1
    ),
    "device_gone": Drill("network device gone", device_gone, (EXIT_MISSED,), "network_error", ROOT_NET, is_short=True),
    "metrics_port_taken": Drill(
        "metrics port taken", metrics_port_taken, (EXIT_ENVIRONMENT,), "already in use; name another port"
    ),
    "api_server_lost": Drill("API server lost", api_server_lost, PASS, "cannot be reached", is_short=True),
    "many_targets": Drill("1,000 targets, 1 q/s each", many_targets, PASS, "PASS"),
    "off_path": Drill(f"{SPRAYED:,} forged answers", off_path, (EXIT_INTERRUPTED,), "ended after .* Ctrl-C", ROOT_NET),
    "half_an_hour": Drill("30 minutes at 50,000 q/s", half_an_hour, PASS, "PASS", ("knotd",), is_long=True),
}
LATE = 2.0
"""Seconds more than a second that may be lost where no core is idle: the file is written at idle priority."""


def told(result: Result) -> list[str]:
    """What a person is told, each once, but for what the run says of itself every 5 s and how late queries left."""
    texts = [result.headline, *(text for id_, text in result.doubts.items() if id_ != "lag"), *result.marks]
    texts += [line for line in result.said if not re.match(r"\d+ s of ", line)]
    return [text for text in dict.fromkeys(texts) if text]


def wrong(drill: Drill, result: Result) -> str:
    """What must not be; '' if all is as it should."""
    says = "\n".join([*result.said, *told(result)])
    faults = {
        f"exit code {result.exit_code}": result.exit_code not in drill.exits,
        "a traceback": "Traceback" in says,
        f"says nothing like {drill.says!r}": not re.search(drill.says, says, re.DOTALL),
        f"{result.missing} rows are in no book": result.missing != 0,
        f"{result.in_flight} rows are undecided": result.in_flight > 0 and not (result.cut or drill.lost_s),
        f"{result.lost_s:.1f} s are lost": result.lost_s > drill.lost_s + LATE * bool(drill.lost_s),
        "an answer was taken that nobody gave": result.outcomes.get("wrong_answer", 0) > 0,
    }
    return "; ".join(fault for fault, is_so in faults.items() if is_so)


def row(drill: Drill, result: Result, folder: Path) -> str:
    """A line of the table."""
    lost = f"{result.lost_s:.1f} s ({result.forgotten} queries)" if result.forgotten else "nothing"
    says = "<br>".join(told(result)).replace("|", "\\|").replace(str(folder), "FOLDER")
    code = "killed" if result.exit_code == KILLED else str(result.exit_code)
    return f"| {drill.fault} | {lost} | {says} | {code} |"


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DRILLS)}")
    parser.add_argument("--long", action="store_true", help="also those that take many minutes")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.names if name not in DRILLS]:
        parser.error(f"no such drill: {', '.join(unknown)}")
    print("| fault | lost | what the report says | exit code |\n|---|---|---|---|")
    faults = []
    for name in asked.names or [name for name, drill in DRILLS.items() if asked.long or not drill.is_long]:
        drill = DRILLS[name]
        if drill.lacks:
            print(f"{name}: needs {drill.lacks}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = drill.run(Path(folder))
            print(row(drill, result, Path(folder)), flush=True)
        if fault := wrong(drill, result):
            faults.append(f"{name}: {fault}")
    sys.exit("\n".join(faults))


if __name__ == "__main__":
    main(sys.argv[1:])
