"""A run file -> served over HTTP once the run is over, until somebody has taken it, or the time is up.

    GET  /            what there is, as JSON: state (running or over), run, shard, node, pod; and once it is over file,
                      octets, sha256, verdict, exit_code, seconds_left
    GET  /run.db      the file; /run.db.gz compressed; HEAD tells their headers; 503 while the run goes
    GET  /taken?sha256=...  says that it was read whole: who has its digest has read it; nobody need wait any longer

That is a GET, too, so that the right to get pods/proxy is all that a collector needs.
"""

from __future__ import annotations

import hashlib
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from urllib.parse import parse_qs, urlsplit

from probe.errors import UsageError
from probe.pages import Headers, Pages, Request, head, say
from probe.scenario.quantity import duration_ns

PORT = 9553
GRACE = "DNSPROBE_GRACE_PERIOD"
"""The pod's terminationGracePeriodSeconds, which its manifest tells: no pod is told its own."""
USUAL_GRACE_S = 30.0
LEFT_S = 5.0
"""Of the grace period, what is left for Python to end."""
PIECE = 1 << 18
NUMBERS = (signal.SIGINT, signal.SIGTERM)


def grace_of(environment: Mapping[str, str]) -> float:
    """Seconds from SIGTERM to SIGKILL; UsageError for what is none."""
    if not (text := environment.get(GRACE, "").strip()):
        return USUAL_GRACE_S
    try:
        return duration_ns(text) / 1e9
    except UsageError as problem:
        raise UsageError(f"{GRACE}={problem}") from None


class Lingering:
    """Answers from its making on, among other pages.

    enough: whether somebody else has had what they wait for, said as a sentence; '' for nobody yet.
    """

    def __init__(self, pages: Pages, about: Mapping[str, object], enough: Callable[[], str] = lambda: "") -> None:
        self._about, self._enough = about, enough
        self._file: Path | None = None
        self._said: dict[str, object] = {}
        self._digest = ""
        self._ends_at = 0.0
        self._stirs: SimpleQueue[None] = SimpleQueue()
        """Not an Event: a signal's handler that sets one can meet its own thread inside it, and waits forever."""
        self.taken = False
        pages.add("/", self._index)
        pages.add("/run.db", lambda request: self._send(request, compressed=False))
        pages.add("/run.db.gz", lambda request: self._send(request, compressed=True))
        pages.add("/taken", self._take)

    def wait(
        self, file: Path, about: Mapping[str, object], at_most: float, grace: float, signalled_ns: int | None
    ) -> str:
        """Serve the file, which changes no more; why that is over, as a sentence.

        at_most: seconds; after a signal no longer than is left of `grace` seconds from then on, and a second one ends
        it. signalled_ns: when the first one came (CLOCK_MONOTONIC), if it did. Only in the main thread.
        """
        with file.open("rb") as octets:
            self._digest = hashlib.file_digest(octets, "sha256").hexdigest()
        self._said = {"file": file.name, "octets": file.stat().st_size, "sha256": self._digest, **about}
        self._ends_at = time.monotonic() + at_most
        heard = 0
        why = "nobody has taken the run file in time"

        def hear(number: int, _: FrameType | None) -> None:
            nonlocal heard, why
            heard += 1
            if heard > 1:
                why, self._ends_at = f"ended by a second {signal.Signals(number).name}", 0
            else:
                self._ends_at = min(self._ends_at, time.monotonic() + grace - LEFT_S)
            self._stirs.put(None)

        if signalled_ns is not None:
            heard = 1
            self._ends_at = min(self._ends_at, signalled_ns / 1e9 + grace - LEFT_S)
        before = {number: signal.signal(number, hear) for number in NUMBERS}
        try:
            self._file = file
            while not (self.taken or self._enough()) and (left := self._ends_at - time.monotonic()) > 0:
                with suppress(Empty):
                    self._stirs.get(timeout=min(left, 1.0))
        finally:
            for number, was in before.items():
                signal.signal(number, was)
        return "the run file was taken" if self.taken else self._enough() or why

    def _index(self, request: Request) -> None:
        if self._file:
            left = round(max(0.0, self._ends_at - time.monotonic()), 1)
            say(request, {"state": "over", **self._about, **self._said, "seconds_left": left})
        else:
            say(request, {"state": "running", **self._about})

    def _take(self, request: Request) -> None:
        if not self._file:
            _not_yet(request)
        elif parse_qs(urlsplit(request.path).query).get("sha256") != [self._digest]:
            say(request, {"error": "that is not the digest of this file"}, HTTPStatus.CONFLICT)
        else:
            say(request, {"taken": self._digest})
            if request.command == "GET":
                self.taken = True
                self._stirs.put(None)

    def _send(self, request: Request, *, compressed: bool) -> None:
        if not (file := self._file):
            _not_yet(request)
            return
        kind = "application/gzip" if compressed else "application/vnd.sqlite3"
        how: Headers = {"Transfer-Encoding": "chunked"} if compressed else {"Content-Length": file.stat().st_size}
        head(request, HTTPStatus.OK, {"Content-Type": kind, "ETag": f'"{self._digest}"', **how})
        if request.command == "HEAD":
            return
        for piece in _gzip(file) if compressed else _pieces(file):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if compressed else piece)
        if compressed:
            request.wfile.write(b"0\r\n\r\n")


def _not_yet(request: Request) -> None:
    told = {"error": "the run is still going: its file is served when it is over"}
    say(request, told, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": 1})


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as octets:
        while piece := octets.read(PIECE):
            yield piece


def _gzip(file: Path) -> Iterator[bytes]:
    packing = zlib.compressobj(wbits=31)
    for piece in _pieces(file):
        if packed := packing.compress(piece):
            yield packed
    yield packing.flush()
