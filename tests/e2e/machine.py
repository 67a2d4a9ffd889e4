"""The parts -> a machine in namespaces of its own, without uplink, in which processes are started by name."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Self

from probe.cluster.keeper import BADGE, NAMESPACES
from tests.e2e.keeper import CGROUPS, cgroups

PREFIX = "dnsprobe-e2e-"
NETWORK = "10.53.0"
"""Machine n has address n of it. The first one's eth0 is a bridge; to it lead the others', and nothing else."""


def remains(name: str) -> list[str]:
    """What there is of a machine: its folder, its namespace, its cgroups, its processes."""
    badge = f"{BADGE}={Path(tempfile.gettempdir()) / name}".encode()
    found = [path for path in (Path(tempfile.gettempdir()) / name, NAMESPACES / f"{name}-node") if path.exists()]
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if badge in (entry / "environ").read_bytes():
                found.append(entry)
    return [str(path) for path in (*found, *cgroups(name))]


def _network(namespace: str, number: int, first: str | None) -> None:
    """Its namespace and eth0. The default route, without which a Service has no route, leads to nobody's address."""
    link = f"eth0 type veth peer name node{number} netns {first}" if first else "eth0 type bridge"
    for words in (
        f"netns add {namespace}",
        f"-n {namespace} link set lo up",
        f"-n {namespace} link add {link}",
        f"-n {namespace} address add {NETWORK}.{number}/24 dev eth0",
        f"-n {namespace} link set eth0 up",
        f"-n {namespace} route add default via {NETWORK}.254 dev eth0",
        *([f"-n {first} link set node{number} master eth0 up"] if first else []),
    ):
        subprocess.run(["ip", *words.split()], check=True)


class Machine:
    """One node to be. Close it; if this process dies first, its keeper does."""

    def __init__(
        self, number: int, folder: Path, port: int, init: subprocess.Popen[str], keeper: subprocess.Popen[bytes]
    ) -> None:
        self.folder = folder
        self.name = folder.name
        self.host = f"node{number}"
        self.address = f"{NETWORK}.{number}"
        self.namespace = f"{folder.name}-node"
        self.port = port
        self._init = init
        self._keeper = keeper

    @classmethod
    def start(cls, parts: Path, number: int = 1, first: Self | None = None) -> Self:
        """Make it. What listens at 127.0.0.1:`port` in it is reached at the same port of this machine's loopback."""
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        (folder / "logs").mkdir()
        mine = folder / "parts"
        path = ":".join(str(mine / each) for each in (".", "debian/usr/bin", "debian/usr/sbin"))
        xtables = next(parts.glob("debian/usr/lib/*/xtables")).relative_to(parts)
        environment = {
            **os.environ,
            BADGE: str(folder),
            "PATH": f"{path}:{os.environ['PATH']}",
            "XTABLES_LIBDIR": str(mine / xtables),
        }
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.keeper", str(folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        namespace = f"{folder.name}-node"
        _network(namespace, number, first.namespace if first else None)
        is_v2 = (CGROUPS / "cgroup.procs").exists()
        for hierarchy in [CGROUPS] if is_v2 else CGROUPS.glob("*/"):
            (hierarchy / folder.name).mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as door:
            init = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{namespace}"),
                    *("unshare", "--mount", "--propagation=private", "--uts", "--pid", "--fork", "--kill-child"),
                    *("--mount-proc", sys.executable, "-m", "tests.e2e.init"),
                    *(str(folder), str(parts), f"node{number}", str(door.fileno())),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[door.fileno()],
                text=True,
                env=environment,
            )
            port = door.getsockname()[1]
        return cls(number, folder, port, init, keeper)

    def _ask(self, *words: str) -> object:
        assert self._init.stdin
        assert self._init.stdout
        self._init.stdin.write(json.dumps(words) + "\n")
        self._init.stdin.flush()
        answer = self._init.stdout.readline()
        assert answer, "process 1 of the node is gone"
        return json.loads(answer)

    def start_process(self, name: str, command: Sequence[str]) -> None:
        """Start it in the machine; what it writes goes to FOLDER/logs/NAME.log."""
        self._ask("start", name, *command)

    def stop_process(self, name: str, number: Signals = SIGTERM) -> object:
        """End it, by a signal and after 10 s by SIGKILL; its exit code."""
        return self._ask("stop", name, str(int(number)))

    def ended(self) -> dict[str, int]:
        """The exit code of each process that ended unasked."""
        answer = self._ask("state")
        assert isinstance(answer, dict)
        return answer

    def inside(self, *command: str) -> list[str]:
        """The command, as this machine says it to have it run in the node's network."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *command]

    def log(self, name: str, last: int = 2000) -> str:
        """The end of what a process wrote."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")[-last:]

    def close(self) -> None:
        """End all that runs in it and wait until nothing of it stays."""
        self._init.communicate()
        self._keeper.communicate()
