"""Lines of JSON that ask for a process to be started or stopped -> process 1 of a node, and a line of answer to each.

It runs in namespaces of its own (network, mounts, process ids, host name), so that when it ends, however it ends, the
kernel ends all that it started and unmounts all that they mounted. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

STOP_TIMEOUT = 10.0
"""Seconds from SIGTERM to SIGKILL."""
WANTED = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""What a kubelet sets for the whole machine (setupKernelTunables, pkg/kubelet/cm/container_manager_linux.go)."""


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def furnish(folder: Path, parts: Path) -> None:
    """Give it its own /run, /var/lib and /var/log, the parts at FOLDER/parts, and sysctls that look set already."""
    (folder / "parts").mkdir()
    _mount("--bind", parts, folder / "parts")
    for path in ("/run", "/var/lib", "/var/log"):
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    _mount("--make-rshared", "/")
    for name, value in WANTED.items():
        mine = folder / "sysctl" / name.replace("/", ".")
        mine.parent.mkdir(exist_ok=True)
        mine.write_text(f"{value}\n")
        _mount("--bind", mine, Path("/proc/sys") / name)


class Init:
    """The processes of a node by name, and their exit codes once they are over."""

    def __init__(self, folder: Path) -> None:
        self._logs = folder / "logs"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._exits: dict[int, int] = {}
        self._changed = asyncio.Event()

    def reap(self) -> None:
        """Take the exit codes of all that ended: also of orphans, which are process 1's to bury."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._exits[ended[0]] = os.waitstatus_to_exitcode(ended[1])
        self._changed.set()

    async def answer(self, verb: str, name: str = "", *words: str) -> object:
        """start NAME COMMAND... -> pid; stop NAME SIGNAL -> exit code; state -> the exit code of each that ended."""
        if verb == "start":
            return self._start(name, words)
        if verb == "stop":
            return await self._stop(self._running.pop(name).pid, int(words[0]))
        return {each: self._exits[p.pid] for each, p in self._running.items() if p.pid in self._exits}

    def _start(self, name: str, words: Sequence[str]) -> int:
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self._running[name].pid

    async def _stop(self, pid: int, number: int) -> int:
        for each in (number, signal.SIGKILL):
            if pid not in self._exits:
                os.kill(pid, each)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT):
                    while pid not in self._exits:
                        self._changed.clear()
                        await self._changed.wait()
                    break
        return self._exits[pid]


async def _pass(there: asyncio.StreamReader, here: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while octets := await there.read(1 << 16):
            here.write(octets)
            await here.drain()
    here.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """A connection to the machine's own loopback goes on to the same port of the node's."""
    try:
        there, here = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pass(reader, here), _pass(there, writer))


async def live(folder: Path, door: socket.socket) -> None:
    """Answer until standard input ends."""
    init = Init(folder)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, init.reap)
    port = door.getsockname()[1]
    await asyncio.start_server(lambda r, w: _forward(r, w, port), sock=door)
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        print(json.dumps(await init.answer(*json.loads(line))), flush=True)


def main(words: Iterable[str]) -> None:
    """`python -m tests.e2e.init FOLDER PARTS NAME DESCRIPTOR`: the last is a listening socket of the machine's."""
    folder, parts, name, door = words
    furnish(Path(folder), Path(parts))
    socket.sethostname(name)
    asyncio.run(live(Path(folder), socket.socket(fileno=int(door))))


if __name__ == "__main__":
    main(sys.argv[1:])
