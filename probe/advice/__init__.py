"""How late nodes learn of a pod's end, and how pods end -> the lameduck that loses nothing, and what others lose."""

from probe.advice.platforms import PLATFORMS, Platform, platform_of
from probe.advice.propagation import Departure, by_counter, by_nsid
from probe.advice.recommendation import Need, Recommendation, recommend
from probe.advice.rule import Clients, keeps_flows, serves_for

__all__ = [
    "PLATFORMS",
    "Clients",
    "Departure",
    "Need",
    "Platform",
    "Recommendation",
    "by_counter",
    "by_nsid",
    "keeps_flows",
    "platform_of",
    "recommend",
    "serves_for",
]
