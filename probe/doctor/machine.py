"""This process's limits, rights and programs in; what they carry, and which are not there, out."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from probe.cluster.images import find_coredns, version_of
from probe.cluster.netns import PROGRAMS
from probe.doctor.examination import Seen
from probe.engine.plan import SPARE_DESCRIPTORS, EngineOptions
from probe.host import most_tracked
from probe.linux import port_range, receive_buffer
from probe.scenario.limits import HELD_S, MOST_TRACKED

TIMEOUT_S, DEFAULT_QPS = 2, 100
"""Of `dnsprobe run -s ADDRESS` when nothing else is said: new ports at this rate are what a limit must carry."""
_NEED = TIMEOUT_S * DEFAULT_QPS + 16
_NAMESPACES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""Bits of the capabilities that network namespaces, their links and their NAT ask for (linux/capability.h)."""
_EXTRA = {"altair": "Altair", "vl_convert": "vl-convert"}


def descriptors() -> Seen:
    """The hard limit of open files: a worker raises its soft one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return Seen(True, "no limit of open files")
    text = f"{hard:,} open files (hard limit) carry {max(0, hard - SPARE_DESCRIPTORS) // TIMEOUT_S:,} q/s"
    return Seen(hard >= SPARE_DESCRIPTORS + _NEED, f"{text} of new ports with a timeout of {TIMEOUT_S} s")


def ports() -> Seen:
    """Half of the ephemeral range: pods have the other half."""
    low, high = port_range()
    half = (high - low + 1) // 2
    text = f"{low} to {high}, half of them for pods, carry {half // TIMEOUT_S:,} q/s"
    return Seen(half >= _NEED, f"{text} of new ports with a timeout of {TIMEOUT_S} s")


def buffer() -> Seen:
    """What a port that is used again is granted of what it asks for."""
    asked = EngineOptions().receive_buffer
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        granted = receive_buffer(sock, asked)
    return Seen(granted >= asked, f"{granted:,} of the {asked:,} octets that a port asks for")


def tracked() -> Seen:
    """conntrack's table, of which a load may take a part."""
    most = most_tracked()
    if not most:
        return Seen(True, "no conntrack to be seen here")
    part = f"{float(MOST_TRACKED) * 100:.0f} % of {most:,} flows"
    return Seen(True, f"{part} carry {int(most * MOST_TRACKED / HELD_S):,} q/s of new ports towards a cluster")


def folder() -> Seen:
    """Where run files go."""
    here = Path.cwd()
    with tempfile.TemporaryFile(dir=here) as file:
        file.write(b"dnsprobe")
        file.flush()
    room = os.statvfs(here)
    return Seen(True, f"{here}: {room.f_bavail * room.f_frsize / 1e9:,.1f} GB free")


def namespaces() -> Seen:
    """The rights to make network namespaces."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    lacking = [name for name, bit in _NAMESPACES.items() if not held >> bit & 1]
    if os.geteuid() != 0 or lacking:
        return Seen(False, f"user {os.geteuid()} without {', '.join(lacking)}" if lacking else "not root")
    return Seen(True, f"root, with {' and '.join(_NAMESPACES)}")


def programs() -> Seen:
    """What the lab in network namespaces calls."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    found = f"no {', '.join(missing)}" if missing else ", ".join(PROGRAMS)
    return Seen(not missing, found, f"apt-get install {' '.join(PROGRAMS[name] for name in missing)}")


def coredns() -> Seen:
    """The real CoreDNS, and which."""
    found = find_coredns()
    return Seen(bool(found), asyncio.run(version_of(found)) if found else "none: labs run a stand-in")


def pictures() -> Seen:
    """The extra `report`."""
    missing = [name for module, name in _EXTRA.items() if not find_spec(module)]
    found = f"no {' and no '.join(missing)}" if missing else ", ".join(_EXTRA.values())
    return Seen(not missing, found, f"{sys.executable} -m pip install altair vl-convert-python")
