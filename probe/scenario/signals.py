"""Ctrl-C, SIGTERM and SIGHUP in, what they mean at that point of a run out."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP: what they mean just now, by `meaning`, and whether one came.

    Only the main thread hears them (Python's signal): in another one `meaning` is called by whoever does. hangup: what
    SIGHUP means instead, at any time, of which there may be many.
    """

    def __init__(self, meaning: Callable[[str], object], hangup: Callable[[], object] | None = None) -> None:
        self.meaning = meaning
        self.came = False
        self._numbers: list[signal.Signals] = []
        if threading.current_thread() is not threading.main_thread():
            return
        # Under nohup a run outlives its terminal.
        hup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
        self._numbers = [signal.SIGINT, signal.SIGTERM, *hup]
        for number in self._numbers:
            asyncio.get_running_loop().add_signal_handler(number, self._hear, number.name)
        if hangup:
            self._numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup)

    def _hear(self, name: str) -> None:
        self.came = True
        self.meaning(name)

    def close(self) -> None:
        """Once all is closed. After a first signal a second one must not break the report either."""
        for number in self._numbers:
            asyncio.get_running_loop().remove_signal_handler(number)
            if self.came:
                signal.signal(number, signal.SIG_IGN)


def cancelling() -> Callable[[str], object]:
    """Before the first query there is nothing to keep: the task that runs now ends, and lets go of what it started."""
    task = asyncio.current_task()
    return lambda _: task and not task.cancelling() and task.cancel()
