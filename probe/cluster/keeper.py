"""A lab's folder and its end of a pipe -> when the lab is gone, however it went, no pod, network or folder stays.

A process of its own, in a session of its own: it outlives a lab that is killed. Pods, and whatever they start, carry
DNSPROBE_LAB=<folder> in their environment; that is how they are found.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

BADGE = "DNSPROBE_LAB"
NAMESPACES = Path("/run/netns")


def _kill_all(folder: str) -> int:
    """SIGKILL to every process with the lab's badge; how many there were."""
    badge = f"{BADGE}={folder}".encode()
    found = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The descriptor first: the number may be another process's by the time it is signalled.
            process = os.pidfd_open(int(entry.name))
            try:
                if badge in (entry / "environ").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    found += 1
            finally:
                os.close(process)
    return found


def remove_namespaces(lab: str) -> None:
    """Delete the network namespaces that are named after a lab, and with them the links in them."""
    for path in NAMESPACES.glob(f"{lab}-*"):
        subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, check=False)


def sweep(folder: str) -> None:
    """End the lab's processes, take away its network namespaces, and remove its folder."""
    # A pod that was being started when the lab died shows its badge a moment later: two empty looks in a row.
    empty = 0
    while empty < 2:
        empty = 0 if _kill_all(folder) else empty + 1
        time.sleep(0.05)
    remove_namespaces(Path(folder).name)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """`python -m probe.cluster.keeper FOLDER`, with a pipe from the lab as standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(sys.argv[1])


if __name__ == "__main__":
    main()
