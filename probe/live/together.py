"""Views of a run -> one View: each of them is told everything."""

from __future__ import annotations

from probe.model import Lookup, Mark, Series
from probe.recorder import Flush
from probe.scenario.plan import Plan
from probe.scenario.view import View


class Together:
    """In their order."""

    def __init__(self, *views: View) -> None:
        self._views = views

    def begin(self, plan: Plan) -> None:
        for view in self._views:
            view.begin(plan)

    def added(self, series: list[Series]) -> None:
        for view in self._views:
            view.added(series)

    def flushed(self, flush: Flush, now_ns: int) -> None:
        for view in self._views:
            view.flushed(flush, now_ns)

    def ended(self, pod: str) -> None:
        for view in self._views:
            view.ended(pod)

    def gone(self, pod: str) -> None:
        for view in self._views:
            view.gone(pod)

    def marked(self, mark: Mark) -> None:
        for view in self._views:
            view.marked(mark)

    def looked_up(self, lookup: Lookup) -> None:
        for view in self._views:
            view.looked_up(lookup)

    def waits(self, text: str) -> None:
        for view in self._views:
            view.waits(text)

    def noted(self, text: str) -> None:
        for view in self._views:
            view.noted(text)

    def drains(self) -> None:
        for view in self._views:
            view.drains()

    def end(self) -> None:
        for view in self._views:
            view.end()
