"""Outcomes, states, kinds of targets -> their colours, one table for every picture, also for the colour-blind."""

from __future__ import annotations

from probe.model import TargetKind
from probe.outcome import Outcome

OUTCOMES: dict[Outcome, str] = {
    Outcome.ANSWER: "#6789b2",
    Outcome.NODATA: "#46d8ec",
    Outcome.NXDOMAIN: "#9ad37e",
    Outcome.SERVFAIL: "#de6d0d",
    Outcome.REFUSED: "#8c8949",
    Outcome.OTHER_RCODE: "#7f5c46",
    Outcome.TRUNCATED: "#ebdf70",
    Outcome.WRONG_ANSWER: "#cd86ec",
    Outcome.MALFORMED: "#e6b71b",
    Outcome.TIMEOUT: "#c71013",
    Outcome.CONNECTION_REFUSED: "#f9387e",
    Outcome.NETWORK_ERROR: "#b7408c",
    Outcome.CONNECTION_LOST: "#8e5dda",
    Outcome.UNSENT: "#b7b7b7",
}
"""Calm where nobody is to blame, earth and yellow for servers, red to violet for the network, grey for the prober."""

GOOD, WARNING, BAD, QUIET = "#009e73", "#e69f00", "#d55e00", "#7f8a99"
"""States (Okabe and Ito 2008, https://jfly.uni-koeln.de/color); QUIET: on purpose, or nothing to say."""

KINDS: dict[TargetKind, str] = {
    TargetKind.SERVICE: "#56b4e9",
    TargetKind.POD: "#e69f00",
    TargetKind.NODELOCAL: "#009e73",
    TargetKind.UPSTREAM: "#cc79a7",
    TargetKind.SERVER: "#0072b2",
    TargetKind.NODE: "#999999",
    TargetKind.API: "#f0e442",
}
SEQUENCE = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#f0e442")
"""For a handful of lines that are neither."""
