"""What was lost lately, second by second -> a file that is there once the baseline was clean, until the run ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from probe.errors import UsageError
from probe.model import NS
from probe.scenario.recent import BASELINE, Recent

_SAY_AGAIN_NS = 60 * NS


class ReadyFile:
    """For a readiness probe, `cat PATH`, so that `kubectl wait` can hold an upgrade back.

    One of an earlier run is removed at once. UsageError if it cannot be written there.
    """

    def __init__(self, path: Path, seconds: float = BASELINE) -> None:
        self._path, self._seconds = path, seconds
        self._written = False
        self._say_at_ns = round(seconds * NS) + 5 * NS
        try:
            path.unlink(missing_ok=True)
            path.touch()
            path.unlink()
        except OSError as problem:
            raise UsageError(f"--ready-file {path}: cannot be written: {problem.strerror}; name another file") from None

    def look(self, recent: Recent, now_ns: int, say: Callable[[str], None]) -> None:
        """Once a second. Written once, it stays: what the upgrade does to the lanes makes nobody unready."""
        if self._written:
            return
        why = recent.unclean(self._seconds)
        if not why:
            try:
                self._path.write_text("ready\n")
            except OSError as problem:
                if now_ns >= self._say_at_ns:
                    self._say_at_ns = now_ns + _SAY_AGAIN_NS
                    say(f"--ready-file {self._path}: cannot be written: {problem.strerror}")
                return
            self._written = True
            say(f"baseline clean for {self._seconds:g} s: ready for the upgrade")
        elif now_ns >= self._say_at_ns:
            self._say_at_ns = now_ns + _SAY_AGAIN_NS
            say(f"not ready for the upgrade: {why}")

    def close(self) -> None:
        """The run is over."""
        self._path.unlink(missing_ok=True)
