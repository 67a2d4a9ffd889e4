"""Rules that end a run: what can be read, when one is broken, what a run that ends itself leaves behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from probe.errors import UsageError
from probe.model import NS
from probe.runfile import open_run
from probe.scenario.abort import read_rule, recent_for
from probe.scenario.file import read_scenario_text
from tests.conftest import Start
from tests.servers import REPLIES, Rule
from tests.test_cli import ran
from tests.test_live import flush
from tests.test_plan import ONE
from tests.test_recent import POD, series

FOR_EXAMPLE = "; for example: loss(vip-*) > 50% for 30s"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loss(vip-*) > 50% for 30s", ""),
        ("  loss(vip-udp,  pods)>50%   for 5s ", ""),
        ("loss >= 100% for 1m30s", ""),
        ("p99(vip-*) > 500ms for 10s", ""),
        ("loss(vip-*) > 50%", "rule 'loss(vip-*) > 50%': say for how long"),
        ("loss(vip-*) > 50% for", "rule 'loss(vip-*) > 50% for': character 19, at 'for': nothing more is understood"),
        ("loss(vip-*) > 50% for 30 s", "character 19, at 'for 30 s': nothing more is understood"),
        ("loss(vip-*) > 50% for ever", "for 'ever': a duration is like 500ms, 30s"),
        ("loss(vip-*) > 50% for 2h", "for '2h': a duration from 1s to 10m is allowed here"),
        ("luck(vip-*) > 50% for 30s", "unknown measure 'luck': one of loss, longest_disruption, p50"),
        ("longest_disruption > 5s for 30s", "longest_disruption is known at the end only: say loss or p50, p90"),
        ("loss(vip-*) <= 1% for 30s", "says what is good: did you mean 'loss(vip-*) > 1%'?"),
        ("loss(vip-*) > 100% for 30s", "no loss is that high, so it would never end a run"),
        ("loss > 1% within 60s of steps for 30s", "`within` is for objectives"),
        ("loss > 5 for 30s", "loss needs a unit: %"),
        ("loss(vpi-*) > 50% for 30s", "rule 'loss(vpi-*) > 50%': matches no lane; nearest: vip-udp; lanes are"),
        ("", "rule '': character 1, at 'the end': begin with a measure"),
    ],
)  # fmt: skip
def test_a_rule_is_read_or_refused_with_an_example(text: str, said: str) -> None:
    if not said:
        assert str(read_rule(text, ["vip-udp", "pods"])) == " ".join(text.split())
        return
    with pytest.raises(UsageError) as refused:
        read_rule(text, ["vip-udp", "pods"])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "nearest" in said or str(refused.value).endswith(FOR_EXAMPLE)


@pytest.mark.parametrize(
    ("rule", "drawn", "why"),
    [
        # a text for each second: of lane vip, then of lane pods
        ("loss(vip) > 50% for 3s", [(".....", "")] * 3, ""),
        ("loss(vip) > 50% for 3s", [("xxxxx", "")] * 2, ""),
        ("loss(vip) > 50% for 3s", [("xxxxx", "")] * 3, "100.0 % on vip -> one"),
        ("loss(vip) > 50% for 3s", [("xxxxx", ".....")] * 3, "100.0 % on vip -> one"),
        ("loss(vip) > 50% for 3s", [(".....", "xxxxx")] * 3, ""),
        ("loss(*) > 50% for 3s", [(".....", "xxxxx")] * 3, "100.0 % on pods -> coredns-a"),
        ("loss(vip) > 50% for 3s", [(".....", ""), ("xxxxx", ""), ("xxxx.", "")], "60.0 % on vip -> one"),
        ("loss(vip) > 50% for 2s", [("x....", "")] * 4, ""),
        ("loss(vip) > 50% for 3s", [("uuuuu", "")] * 4, ""),
        ("loss(vip) > 50% for 3s", [("uuuux", "")] * 4, "100.0 % on vip -> one"),
        ("loss(vip) > 50% for 3s", [("xxxxx", ""), ("xxxxx", ""), ("     ", "")], ""),
        ("loss(vip) > 50% for 3s", [("xxxxx", "")] * 3 + [("     ", "")], "100.0 % on vip -> one"),
        ("p99(vip) > 500us for 3s", [(".....", "")] * 3, "0.00"),
        ("p99(vip) > 5s for 3s", [(".....", "")] * 3, ""),
        ("p99(vip) > 5s for 3s", [("....x", "")] * 3, "20.0 % lost on vip -> one"),
        ("p50(vip) > 5s for 3s", [("....x", "")] * 3, ""),
    ],
)
def test_a_rule_is_broken_by_its_last_seconds_taken_together(rule: str, drawn: list[tuple[str, str]], why: str) -> None:
    lanes = series(("vip", ONE), ("pods", POD))
    read = read_rule(rule, ["vip", "pods"])
    recent = recent_for([read])
    for n, drawing in enumerate(drawn):
        recent.add(flush((n, " " not in drawing[0], list(drawing))), lanes, (n + 1) * NS)
    said = read.broken(recent)
    assert bool(said) == bool(why)
    assert said.startswith(f"{rule}: {why}" if why else "")


def test_a_pod_that_came_or_went_meanwhile_ends_no_run() -> None:
    lanes = series(("vip", ONE), ("pods", POD))
    read = read_rule("loss(pods) > 50% for 3s", ["vip", "pods"])
    recent = recent_for([read])
    for n in range(5):
        recent.add(flush((n, True, [".....", "xxxxx"])), lanes, (n + 1) * NS)
    assert read.broken(recent)
    recent.life("coredns-a", 3 * NS)
    assert not read.broken(recent), "Ready for 2 s"
    recent.life("coredns-a", 3 * NS, 4 * NS)
    recent.life("coredns-a", 0, 4 * NS)
    assert not read.broken(recent), "deleted since 1 s"


SCENARIO = """
name: aborts
duration: 60s
servers: [{name: one, address: 127.0.0.1, port: PORT}]
abort_on: [loss(vip-*) > 40% for 2s]
lanes:
  - {name: vip-udp, target: one, rate: 50, types: [A], timeout: 500ms, questions: [a.example]}
objectives: [OBJECTIVE]
"""


@pytest.mark.parametrize(
    ("objective", "code", "verdict"), [("loss <= 1%", 1, "FAIL"), ("p50 <= 1s", 3, "INCONCLUSIVE")]
)
def test_a_run_that_ends_itself_says_why_and_never_passes(
    objective: str, code: int, verdict: str, scripted: Start, tmp_path: Path
) -> None:
    server = scripted([Rule(REPLIES["answer"], until=3.0), Rule(REPLIES["silent"], since=3.0)])
    (tmp_path / "it.yaml").write_text(SCENARIO.replace("PORT", str(server.port)).replace("OBJECTIVE", objective))
    exit_code, out, err = ran("run it.yaml -o run.db", tmp_path)
    run = open_run(tmp_path / "run.db")
    assert (exit_code, out.partition(":")[0]) == (code, verdict), out
    why = r"loss\(vip-\*\) > 40% for 2s: \d\d\.\d % on vip-udp -> one"
    assert re.fullmatch(rf"ended after [345]\.\d s by its own rule {why}", run.cut)
    assert f"{run.cut}; waiting for the last answers" in err
    assert f"CUT SHORT: {run.cut[:40]}" in out
    assert [re.fullmatch(why, mark.text) is not None for mark in run.marks if mark.kind == "aborted"] == [True]
    assert not run.in_flight.n.any()


def test_a_scenarios_rule_is_checked_with_file_and_line() -> None:
    said = r"it\.yaml:5: abort_on\[0\]: rule .loss\(vpi\) > 40%.: matches no lane; nearest: vip-udp"
    text = SCENARIO.replace("PORT", "53").replace("OBJECTIVE", "loss <= 1%").replace("loss(vip-*)", "loss(vpi)")
    with pytest.raises(UsageError, match=said):
        read_scenario_text("it.yaml", text, [])
