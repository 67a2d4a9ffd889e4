"""`-T`, `--shard`, `--start-at`: what is read, what is refused; a run that waits for its time."""

from __future__ import annotations

import json
import re
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from probe.errors import UsageError
from probe.model import NS, Slice
from probe.scenario.start import shard_of, start_of
from tests.conftest import Start
from tests.servers import REPLIES, Rule
from tests.test_cli import start, told

NOW = 1_763_700_000 * NS
"""2025-11-21T04:40:00Z."""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("+30s", 30),
        ("+0", 0),
        ("+1m30s", 90),
        ("1763700001", 1),
        ("1763700001.25", 1.25),
        ("1763699999.5", -0.5),
        ("2025-11-21T04:40:10Z", 10),
        ("2025-11-21T05:40:10.5+01:00", 10.5),
    ],
)
def test_a_start_is_read(text: str, seconds: float) -> None:
    assert start_of(text, NOW) == NOW + int(seconds * NS)


@pytest.mark.parametrize(
    "text", ["", "noon", "12:00", "2025-11-21T04:50:00", "2025-11-21", "17637000010000", "+", "+x"]
)
def test_a_start_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"a start is like 2\d{3}-.*RFC 3339.*, \+30s from now, or unix|a duration is"):
        start_of(text, NOW)


def test_a_start_in_the_past_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'1763699998': is past by 2\.0 s: say a time to come"):
        start_of("1763699998", NOW)


def test_a_shard_is_what_is_said_or_what_the_job_says() -> None:
    job = {"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "4"}
    assert shard_of("", {}) == (Slice(), "")
    assert shard_of("", {"JOB_COMPLETION_INDEX": "3"}) == (Slice(), "")
    assert shard_of("", job) == (Slice(3, 4), "3/4 (by JOB_COMPLETION_INDEX/JOB_COMPLETIONS)")
    assert shard_of("0/2", job) == (Slice(0, 2), "0/2 (by --shard)")
    assert shard_of("0/1", {}) == (Slice(), "0/1 (by --shard)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4/4", "--shard '4/4': of 4 shards the last is 3/4: they count from 0"),
        ("5/4", "--shard '5/4': say I/N, which of how many, counted from 0: 0/4, 1/4, 2/4, 3/4"),
        ("0/0", "--shard '0/0': say I/N"),
        ("1", "--shard '1': say I/N"),
        ("-1/4", "--shard '-1/4': say I/N"),
    ],
)
def test_a_shard_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        shard_of(text, {})


def test_what_a_job_says_wrong_is_named() -> None:
    with pytest.raises(UsageError, match=r"^JOB_COMPLETION_INDEX/JOB_COMPLETIONS '4/x': say I/N"):
        shard_of("", {"JOB_COMPLETION_INDEX": "4", "JOB_COMPLETIONS": "x"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-T 0", "-T '0': the number of workers is a whole number from 1 to 64"),
        ("-T two", "-T 'two': the number of workers"),
        ("--shard 2/2", "--shard '2/2': of 2 shards the last is 1/2: they count from 0"),
        ("--start-at 2001-01-01T00:00:00Z", "--start-at '2001-01-01T00:00:00Z': is past by"),
    ],
)
def test_wrong_words_are_answered(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(f"run -s 127.0.0.1 {words}", capsys)
    assert code == 2
    assert said in err


def test_a_dry_run_counts_what_the_shard_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setenv("JOB_COMPLETIONS", "4")
    code, out, _ = told("run -s 127.0.0.1 -Q 50 -l 1 --dry-run", capsys)
    assert code == 0
    assert "adhoc, shard 1/4: 13 queries in 1 s" in out


def test_a_run_begins_when_it_is_to(scripted: Start, tmp_path: Path) -> None:
    """The first query is due at that very instant; the wait is shown."""
    server = scripted([Rule(REPLIES["answer"])])
    at = int(time.time()) + 8
    text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    words = f"run -s 127.0.0.1 -p {server.port} -n a.test -Q 100 -l 1 --start-at {text} --json run.json -o run.db"
    process = start(words, tmp_path)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (0, 3), err
    assert f"ready; the first query is due at {text}, in " in err
    offset_ns = time.time_ns() - time.monotonic_ns()
    first = int(server.received().at_ns[0]) + offset_ns - at * NS
    assert 0 <= first < 30_000_000
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["environment"]["started"].startswith(text.removesuffix("Z"))
    assert report["totals"]["planned"] == 100


def test_ctrl_c_ends_the_wait_and_leaves_nothing(tmp_path: Path) -> None:
    process = start("run -s 127.0.0.1 -Q 10 -l 1 --start-at +60s -o run.db", tmp_path)
    assert process.stderr is not None
    assert "ready; the first query is due at" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
