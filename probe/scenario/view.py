"""Who watches a run, and what they are told while it goes."""

from __future__ import annotations

from typing import Protocol

from probe.model import Lookup, Mark, Series
from probe.recorder import Flush
from probe.scenario.plan import Plan


class View(Protocol):
    """Who watches a run. Every call returns at once."""

    def begin(self, plan: Plan) -> None:
        """The first query is due now."""

    def added(self, series: list[Series]) -> None:
        """Series that began: at the start, and when a pod comes up."""

    def flushed(self, flush: Flush, now_ns: int) -> None:
        """A second's counts; now_ns since t0."""

    def ended(self, pod: str) -> None:
        """A pod was told to go: what it does from now on does not count."""

    def gone(self, pod: str) -> None:
        """Nothing answers there any more: it is asked no more."""

    def marked(self, mark: Mark) -> None:
        """Something happened."""

    def looked_up(self, lookup: Lookup) -> None:
        """A client profile's lookup came to its end."""

    def waits(self, text: str) -> None:
        """What its steps wait for now."""

    def noted(self, text: str) -> None:
        """A sentence for the person: what is being started, what went wrong, what is waited for."""

    def drains(self) -> None:
        """Before its time was up it was told to end: nothing more is asked, the last answers are waited for."""

    def end(self) -> None:
        """The last frame; called once, whatever happened."""


class Unseen:
    """A View that nobody looks at; who looks at some of it begins with this one."""

    def begin(self, plan: Plan) -> None: ...

    def added(self, series: list[Series]) -> None: ...

    def flushed(self, flush: Flush, now_ns: int) -> None: ...

    def ended(self, pod: str) -> None: ...

    def gone(self, pod: str) -> None: ...

    def marked(self, mark: Mark) -> None: ...

    def looked_up(self, lookup: Lookup) -> None: ...

    def waits(self, text: str) -> None: ...

    def noted(self, text: str) -> None: ...

    def drains(self) -> None: ...

    def end(self) -> None: ...
