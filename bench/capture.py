"""A port in; what tcpdump saw of it on loopback, as round trips in seconds, out."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Missing
from bench.processes import end
from bench.tools import program

START_SECONDS = 5.0
_NANO_MAGIC = 0xA1B23C4D


@contextmanager
def captured(port: int, file: Path) -> Iterator[None]:
    """UDP of one port on loopback, written to a file while the block runs. Missing if nobody may capture here."""
    command = [program("tcpdump", "make servers"), "-i", "lo", "-n", "-U", "-w", str(file), "-s", "128", "-B", "8192"]
    command += ["--time-stamp-precision=nano", "-Z", "root", f"udp port {port}"]
    told = file.with_suffix(".log")
    with told.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while "listening on" not in told.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"no capture (it needs root): {told.read_text().strip()[-80:]}")
            time.sleep(0.02)
        yield
        time.sleep(0.5)  # what was seen last is written
    finally:
        end(process)


def round_trips(capture: bytes, port: int) -> list[float]:
    """From a query to the first reply with its id and client port, in seconds, in order of the queries."""
    asked: dict[tuple[int, int], int] = {}
    found: list[float] = []
    for at, source, target, message in datagrams(capture):
        if target == port:
            asked[source, message] = at
        elif source == port and (target, message) in asked:
            found.append((at - asked.pop((target, message))) / 1e9)
    return found


def datagrams(capture: bytes) -> Iterator[tuple[int, int, int, int]]:
    """A pcap file of Ethernet frames (loopback's, too) with nanoseconds -> (ns, source port, target port, DNS id)."""
    magic, _, _, _, _, _, link = struct.unpack_from("=IHHiIII", capture)
    if (magic, link) != (_NANO_MAGIC, 1):
        raise ValueError(f"not a pcap of Ethernet frames in ns: {magic:#x}, {link}")
    at = 24
    while at + 16 <= len(capture):
        seconds, nanoseconds, kept, _ = struct.unpack_from("=IIII", capture, at)
        frame = capture[at + 16 : at + 16 + kept]
        at += 16 + kept
        if len(frame) >= 44 and frame[12:14] == b"\x08\x00" and frame[23] == 17:
            udp = 14 + 4 * (frame[14] & 0x0F)
            source, target = struct.unpack_from("!HH", frame, udp)
            yield seconds * 1_000_000_000 + nanoseconds, source, target, struct.unpack_from("!H", frame, udp + 8)[0]
