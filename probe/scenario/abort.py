"""`loss(vip-*) > 50% for 30s` -> a rule; a rule and what was lost lately -> why the run is to end, or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probe.errors import UsageError
from probe.model import NS
from probe.scenario.plan import checked_objective
from probe.scenario.quantity import duration_ns
from probe.scenario.recent import BASELINE, Recent
from probe.verdict import QUANTILES, Objective
from probe.verdict.objective import EXAMPLES

EXAMPLE = "loss(vip-*) > 50% for 30s"
LEAST_NS, MOST_NS = NS, 600 * NS


@dataclass(frozen=True, slots=True)
class Rule:
    """When a run ends itself: once the condition held for its last `seconds`, taken together, on any lane and target.

    Only those count that were asked, and lived, all of that time. No row counts before its outcome is known.
    """

    condition: Objective
    seconds: float
    text: str

    def broken(self, recent: Recent) -> str:
        """Why the run is to end: the value, the lane, the target; '' if all is well, or nothing is known yet."""
        for channel, counts in recent.whole(self.seconds, self.condition.lanes).items():
            if not counts.asked:
                continue
            loss = counts.lost / counts.asked
            if self.condition.measure == "loss":
                value, said = loss, f"{loss * 100:.1f} %"
            else:
                value = recent.quantile_ns(channel, QUANTILES[self.condition.measure], self.seconds) / NS
                said = f"{value:.3f} s" if value < math.inf else f"{loss * 100:.1f} % lost"
            if self.condition.met_by(value):
                return f"{self.text}: {said} on {channel[0]} -> {channel[1]}"
        return ""

    def __str__(self) -> str:
        return self.text


def read_rule(text: str, lanes: Sequence[str]) -> Rule:
    """UsageError, one sentence with an example, for no rule, one that can never hold, or one about none of `lanes`."""
    text = " ".join(text.split())
    parts = re.fullmatch(r"(.*?)(?: for (\S+))?", text)
    wanted, lasts = (parts[1], parts[2]) if parts else (text, None)
    try:
        condition = checked_objective(wanted, lanes)
    except UsageError as problem:
        raise UsageError(str(problem).replace("objective", "rule", 1).replace(EXAMPLES, EXAMPLE)) from None
    if condition.measure not in ("loss", *QUANTILES):
        what = f"{condition.measure} is known at the end only: say loss or {', '.join(QUANTILES)}"
    elif condition.upper:
        what = f"says what is good: did you mean {wanted.replace('<=', '>').replace('<', '>')!r}?"
    elif condition.within_ns is not None:
        what = "`within` is for objectives: a rule looks at its last seconds whenever they are"
    elif not lasts:
        what = "say for how long"
    elif condition.measure == "loss" and not condition.met_by(1.0):
        what = "no loss is that high, so it would never end a run"
    else:
        try:
            return Rule(condition, duration_ns(lasts, LEAST_NS, MOST_NS) / NS, text)
        except UsageError as problem:
            what = f"for {problem}"
    raise UsageError(f"rule {text!r}: {what}; for example: {EXAMPLE}")


def recent_for(rules: Iterable[Rule]) -> Recent:
    """What these rules, and a baseline, look back on."""
    globs = {glob for rule in rules if rule.condition.measure != "loss" for glob in rule.condition.lanes}
    return Recent(max((BASELINE, *(rule.seconds for rule in rules))), sorted(globs))
