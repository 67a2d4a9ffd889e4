"""What is stored in run files: numbers and labels of outcomes, causes and counters never change; one exclusive set."""

from __future__ import annotations

from enum import IntEnum

import pytest

from probe.outcome import MEANINGS, REPLIED, Blame, Counter, Outcome, UnsentCause

STORED: dict[type[IntEnum], str] = {
    Outcome: "answer nodata nxdomain servfail refused other_rcode truncated wrong_answer malformed timeout "
    "connection_refused network_error connection_lost unsent",
    UnsentCause: "stall ids sockets ports send_buffer descriptors",
    Counter: "late duplicate unmatched truncated_with_answer own_drops timeout_connect timeout_answer connects "
    "connections_lost sent_octets received_octets ports_reused clock_steps",
}
"""Run files that were written already hold these numbers, counted from 0. A newcomer is appended here too."""


@pytest.mark.parametrize("kind", STORED)
def test_what_run_files_hold_keeps_its_number_and_its_name(kind: type[IntEnum]) -> None:
    assert [(member.value, member.name.lower()) for member in kind] == list(enumerate(STORED[kind].split()))


def test_a_row_was_replied_to_or_failed_on_the_way_or_never_left() -> None:
    blamed = {blame: {o for o, meaning in MEANINGS.items() if meaning.blame is blame} for blame in Blame}
    assert blamed[Blame.PROBER] == {Outcome.UNSENT}
    assert blamed[Blame.NOBODY] | blamed[Blame.SERVER] == REPLIED
    assert set(Outcome) == REPLIED | blamed[Blame.NETWORK] | blamed[Blame.PROBER]
