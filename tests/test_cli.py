"""The command line: what each wrong word is answered with, and whole runs with their exit codes and files."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from probe.cli import COMMANDS, loaded, main
from probe.cli.demo import _saved
from probe.errors import UsageError
from probe.model import NS, Edns
from probe.runfile import open_run
from tests.conftest import Start
from tests.servers import REPLIES, Rule, ScriptedServer, closed_port
from tests.stories import STORIES

ROOT = Path(__file__).parents[1]
ANSWER = [Rule(REPLIES["answer"])]


def words(command: str) -> list[str]:
    return shlex.split(command)


def told(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command that starts nothing."""
    with pytest.raises(SystemExit) as exited:
        main(words(command))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(exited.value.code or 0), out, err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_by_the_first_line_of_its_own_help(name: str) -> None:
    assert loaded(name).help.partition("\n")[0] == COMMANDS[name]


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("probe.cli", ("numpy", "rich", "probe.runfile")),
        ("probe.cli.report", ("lightkube", "pydantic", "probe.engine.worker")),
        ("probe.cli.doctor", ("probe.report.formats",)),
    ],
)
def test_what_a_command_does_without_is_not_imported(module: str, without: tuple[str, ...]) -> None:
    """TAB and --help are answered while a person waits."""
    code = f"import sys, {module}; print(*sys.modules.keys() & {set(without)})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def start(command: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """A run in a process of its own: a run lowers its priority for good."""
    return subprocess.Popen(
        [sys.executable, "-m", "probe.cli", *words(command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def ran(command: str, folder: Path) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a run."""
    process = start(command, folder)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("run", 2, "no server: say -s ADDRESS, or a scenario: dnsprobe run baseline --lab"),
        ("run nope.yaml", 2, "nope.yaml: no such file or shipped scenario; `dnsprobe scenarios` lists them"),
        ("run scale-dwn", 2, "scale-dwn: no such file or shipped scenario; nearest: scale-down;"),
        ("run baseline --lab -Q 5 -t 1", 2, "-Q, -t: not with a scenario; change it with --set"),
        ("run baseline --lab --max-inflight 5", 2, "-q: not with a scenario; change it with --set"),
        ("run baseline --lab --set lab.lameduk=0", 2, "lab.lameduk: unknown key; nearest: lameduck"),
        ("run --lab", 2, "--lab and --set go with a scenario"),
        ("run baseline --lab --context kind", 2, "--context: goes with a scenario in a real cluster: with --lab"),
        (
            "run baseline --service kube-dns",
            2,
            "--service 'kube-dns': say NAMESPACE/NAME, such as kube-system/kube-dns",
        ),
        ("run -s dns.example", 2, "-s 'dns.example': not an IP address"),
        ("run -s ::1 -p 70000", 2, "-p '70000': a port is a whole number from 1 to 65535"),
        ("run -s ::1 -Q -5", 2, "-Q '-5': a rate is a number of queries a second"),
        ("run -s ::1 -q 100", 2, "-q '100': there is no limit on outstanding queries: a schedule waits for no reply"),
        ("run -s ::1 -Q 100 --max-inflight 5", 2, "it goes with a rate of `max` only"),
        ("run -s ::1 -Q max --arrivals poisson", 2, "--arrivals 'poisson': goes with a rate"),
        ("run -s 192.0.2.1 -Q max", 2, "lane udp-pool: as fast as replies allow, towards 192.0.2.1 (192.0.2.1:53): no"),
        ("run -s 192.0.2.1 -Q max --max-qps 1000000", 2, "say a rate, or allow it with --max-qps max"),
        ("run -s 192.0.2.1 --ramp 1:2000:5", 2, "2,000 q/s in all towards other machines; 1,000 q/s is the ceiling"),
        ("run -s ::1 --ramp 1:2000:5 -Q 10", 2, "--ramp gives the rate itself: leave out -Q 10"),
        (
            "run -s ::1 --gso 16",
            2,
            "--gso 16: only with ports pool:K or a rate of max: a burst crosses NAT as one packet",
        ),
        ("run -s ::1 --pair --type A", 2, "--pair: a pair is A and AAAA of a name, and here A is asked"),
        ("run baseline --lab --ramp 1:2:3 --gso 2", 2, "--ramp, --gso: not with a scenario; change it with --set"),
        ("run -s ::1 -m quic", 2, "-m 'quic': say udp or tcp"),
        ("run -s ::1 --type HOST", 2, "type 'HOST': not a DNS type"),
        ("run -s ::1 -d none.txt", 2, "none.txt: no such file; a data file (`name type` a line) is expected there"),
        ("run -s 127.0.0.1:5310", 2, "-s '127.0.0.1:5310': not an IP address: the port goes to -p 5310"),
        ("run -s ::1 -n ''", 2, "name '': empty; the root is `.`"),
        ("run -s ::1 --fail luck", 2, "unknown measure 'luck'"),
        ("run -s ::1 --fail 'loss < 1%'", 2, "--fail says what is bad: did you mean 'loss > 1%'?"),
        ("run -s ::1 --fail 'p99(a, b) <= 1s'", 2, "matches no lane; nearest: udp-fresh; lanes are udp-fresh"),
        ("run -s ::1 --fail 'p99(udp-*) <= 1s'", 2, "did you mean 'p99(udp-*) > 1s'?"),
        ("run baseline --dry-run --fail 'loss(vpi-*) > 1%'", 2, "matches no lane; nearest: vip-udp-fresh; lanes are"),
        ("run -s ::1 --max-qps many", 2, "--max-qps 'many': a rate is a number"),
        ("run -s 192.0.2.1 -Q 2000", 2, "1,000 q/s is the ceiling that protects them: lower the rate"),
        ("run -s ::1 -Q 20000 --ports fixed", 2, "65,536 / (2 x timeout) = 16,384 q/s"),
        ("run -s ::1 -Q 900000 --ports fresh", 4, "rate x timeout needs up to"),
        ("run -s ::1 -o none/run.db", 2, "none/run.db: its folder does not exist"),
        ("run -s ::1 -o /proc/run.db", 2, "/proc/run.db: "),
        ("run -s ::1 -o -", 2, "-o -: a run file is a database, which stdout cannot be; name a file"),
        ("run -s ::1 --json none/x.json", 2, "--json none/x.json: its folder does not exist"),
        ("run -s ::1 --json /proc/x.json", 2, "--json /proc/x.json: cannot be written: "),
        ("report none.db", 2, "none.db: "),
        ("report none.db --format html", 2, "--format 'html': say text, json, jsonl, dnsperf, markdown, csv, junit"),
        ("run baseline --lab --jobs 2", 2, "--jobs: goes with a scenario that has a matrix"),
        ("run -s ::1 --repeats 2", 2, "--repeats: goes with a scenario that has a matrix"),
        ("run baseline --lab --set matrix.repeats=2", 2, "--set matrix.repeats=2: a matrix is changed in its file"),
        ("report none.db --cell 2", 2, "--cell 2: none.db is no sweep: leave it out"),
        ("run -s ::1 --format ''", 2, "--format '': say text, json, jsonl, dnsperf, markdown, csv, junit"),
        ("run --bogus", 2, "dnsprobe: no such option: --bogus"),
        ("runn", 2, "dnsprobe: no such command 'runn': did you mean 'run'?"),
        ("merge shard0.db", 2, "dnsprobe: missing option '-o' / '--out'; say dnsprobe merge --help"),
        ("collect job/load", 2, "dnsprobe: missing option '-o' / '--out'; say dnsprobe collect --help"),
        ("run -s", 2, "dnsprobe: option '-s' requires an argument; say dnsprobe run --help"),
        ("scenarios --schem", 2, "--schema); say dnsprobe scenarios --help"),
        ("lab up", 2, "dnsprobe: no such command 'up'; say dnsprobe lab --help"),
        ("manifests baseline --image x --bogus", 2, "--out); say dnsprobe run --help"),
    ],
)
def test_wrong_words_are_answered_before_anything_starts(
    command: str,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = told(command, capsys)
    assert (got, out) == (code, "")
    assert said in err
    assert not list(tmp_path.iterdir())


def test_an_existing_run_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.db").write_text("precious")
    code, _, err = told(f"run -s ::1 -o {tmp_path}/run.db", capsys)
    assert code == 2
    assert "run.db: exists already; name another file with -o, or remove it" in err
    assert (tmp_path / "run.db").read_text() == "precious"


@pytest.mark.parametrize("command", ["", "run", "report", "scenarios", "demo"])
def test_every_help_ends_with_examples_a_line_each(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(f"{command} --help", capsys)
    examples = out[out.index("Examples:") :].splitlines()[1:]
    assert code == 0
    assert any(line.strip().startswith(f"dnsprobe {command}") for line in examples)
    assert "<list" not in out


def test_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told("scenarios", capsys)
    assert code == 0
    for word in ("baseline", "scale-down", "scale-to-zero", "nothing", "scale to 2"):
        assert word in out


def test_a_dry_run_says_what_would_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told("run scale-down --lab --set lab.lameduck=3s --set lab.nodes=2 --dry-run", capsys)
    assert code == 0
    assert "\nLab: lab.nodes 2, lab.replicas 3, lab.lameduck 3 s, lab.readiness_period 1 s, " in out
    assert "scale-down: 6,560 queries in 16 s" in out
    assert re.search(r"vip-udp-pool +kube-dns +udp pool:128 +A AAAA +100 +1,600", out)
    assert re.search(r"pods +3 pods +udp fresh +A AAAA +20 +960", out)
    assert "  wait 4 s\n  scale to 2\nUndo: scale back to the former number" in out


@pytest.mark.parametrize(
    ("words", "title", "row"),
    [
        ("-Q max -l 5", "as fast as replies allow for 5 s", r"udp pool:64 +A +max +as fast as replies allow"),
        ("--ramp 10:500:30", "7,650 queries in 30 s", r"udp fresh +A +10 to 500 +7,650"),
        ("-Q 50 --pair -l 2", "100 queries in 2 s", r"udp fresh pair +A AAAA +50 +100"),
        ("-Q 50 --ports pool:2 --gso 16 -l 2", "100 queries in 2 s", r"udp pool:2 gso 16 +A +50 +100"),
        ("-Q 100 --arrivals poisson -l 100", r"[\d,]+ queries in 100 s", r"udp fresh +A +100 poisson +[\d,]+"),
    ],
)
def test_a_dry_run_says_what_the_load_is(
    words: str, title: str, row: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = told(f"run -s 127.0.0.1 {words} --dry-run", capsys)
    assert code == 0
    assert re.search(f"adhoc: {title}", out)
    assert re.search(row, out)


def test_a_ceiling_may_be_lifted(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told("run -s 192.0.2.1 -Q max --max-qps max --dry-run", capsys)
    assert (code, err) == (0, "")


def test_how_names_are_asked_reaches_the_server(tmp_path: Path, scripted: Start) -> None:
    server = scripted(ANSWER)
    names = "-n db -n '{random}.test' --search svc.test --ndots 1 --external"
    edns = "--edns 4096 -D --nsid --fail 'loss > 10%'"
    code, _, err = ran(f"run -s 127.0.0.1 -p {server.port} {names} {edns} -Q 100 -l 1 -o run.db", tmp_path)
    assert code == 0, err
    asked = server.received().name.tolist()
    assert Counter(re.sub("^[a-z2-7]{13}[.]", "RANDOM.", name.removesuffix(".")) for name in asked) == {
        "db.svc.test": 25,
        "db": 25,
        "RANDOM.test": 25,
        "RANDOM.test.svc.test": 25,
    }
    assert len(set(asked)) == 52
    (series,) = open_run(tmp_path / "run.db").series
    assert {str(question.edns) for question in series.questions} == {str(Edns(4096, do=True, nsid=True))}


def test_a_dry_run_in_the_lab_shows_notes_and_no_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ("lab.lameduck=100s", "lab.grace_period=1s", r'steps=[{delete_pod: newest}, {mark: "a\e[31mb"}]')
    code, out, err = told("run scale-down --lab --dry-run " + " ".join(f"--set '{s}'" for s in settings), capsys)
    assert code == 0
    assert "  delete the newest pod\n  mark: a\\x1b[31mb\n" in out
    assert err == (
        "dnsprobe: note: SIGKILL cuts the lameduck: 100 s + 0 s of preStop > 1 s of grace (lab.grace_period)\n"
    )


def test_a_run_lasts_as_long_as_asked(scripted: Start, tmp_path: Path) -> None:
    server = scripted(ANSWER)
    code, out, err = ran(f"run -s 127.0.0.1 -p {server.port} -l 2 -Q 0.5 -o run.db", tmp_path)
    assert code in (0, 3), err
    assert open_run(tmp_path / "run.db").end_ns == 2_000_000_000
    assert "2.0 s" in out


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("plain.txt", "plain.txt: is there, but not executable: chmod +x it; run `make coredns`, or unset it"),
        ("none", "none: no such program; run `make coredns`, or unset it"),
        ("other", "other: not a CoreDNS: `-version` ended with exit code 7: what is -version?; set DNSPROBE_COREDNS"),
        ("silent", "silent: not a CoreDNS: `-version` ended with exit code 0: it said nothing; set DNSPROBE_COREDNS"),
    ],
)
def test_what_is_no_coredns_is_named(
    program: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "plain.txt").write_text("")
    for name, script in (("other", "echo what is $1? >&2; exit 7"), ("silent", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("DNSPROBE_COREDNS", str(tmp_path / program))
    code, _, err = told(f"run baseline --lab -o {tmp_path}/run.db", capsys)
    assert code == 4
    assert said in err
    assert not (tmp_path / "run.db").exists()


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run file whose verdict is a pass."""
    folder = tmp_path_factory.mktemp("passed")
    server = ScriptedServer(ANSWER, "127.0.0.1")
    code, _, err = ran(f"run -s 127.0.0.1 -p {server.port} -Q 200 -l 1 -o run.db --fail 'loss > 5%'", folder)
    server.close()
    assert code == 0, err
    return folder / "run.db"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        # what follows the run file's name -> the exit code, and all of stderr
        ("> /dev/full", 4, "dnsprobe: the report cannot be written: No space left on device; the run file is whole: "),
        ("--json - > /dev/full", 4, "dnsprobe: the report cannot be written: No space left on device; the run file"),
        ("--json /dev/full > /dev/null", 0, "dnsprobe: --json /dev/full: cannot be written: No space left on device"),
        ("> /dev/full 2> /dev/full", 4, ""),
        ("| true", 0, ""),
        ("| head -n 1 > /dev/null", 0, ""),
        (">&-", 0, ""),
    ],
)
def test_an_output_that_takes_no_more(words: str, code: int, said: str, passed: Path) -> None:
    command = f"{sys.executable} -m probe.cli report {passed.name} {words}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        ["bash", "-c", command], cwd=passed.parent, env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("dnsprobe:")]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert len(lines) == bool(said)
    assert done.stderr.startswith(said) or lines[-1].startswith(said)


def test_a_json_file_keeps_what_is_in_it_until_there_is_something_new(
    passed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DNSPROBE_COREDNS", "none")
    kept = passed.with_name("kept.json")
    kept.write_text("precious")
    for command in (f"report {ROOT / 'README.md'}", f"run baseline --lab -o {passed}.new"):
        code, _, err = told(f"{command} --json {kept}", capsys)
        assert code in (2, 4), err
        assert kept.read_text() == "precious"
    told(f"report {passed} --json {kept}", capsys)
    assert json.loads(kept.read_text())["verdict"] == "PASS"


def test_a_run_without_loss_passes(scripted: Start, tmp_path: Path) -> None:
    server = scripted(ANSWER)
    command = f"run -s 127.0.0.1 -p {server.port} -n a.example --type A --type AAAA -Q 1000 -l 1 -o run.db --json -"
    code, out, err = ran(command, tmp_path)
    report = json.loads(out)
    assert code == 0, err
    assert report["totals"]["planned"] == 1000 == report["totals"]["good"]
    assert len(server.received()) == 1000
    run = open_run(tmp_path / "run.db")
    assert run.head.command == f"dnsprobe {command}"
    assert run.head.facts["ports"] == "fresh (the default up to 5,000 q/s)"
    again, text, _ = ran("report run.db", tmp_path)
    assert again == 0
    assert "PASS" in text


@pytest.mark.parametrize(
    ("form", "begins", "ends"),
    [
        ("text", "PASS: none of 200 queries was lost", "\n\n"),
        ("json", "{\n", "\n}\n\n"),
        ("dnsperf", "DNS Performance Testing Tool\n", "#histogram "),
    ],
)
def test_a_report_in_any_format(
    form: str, begins: str, ends: str, passed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(f"report {passed} --format {form}", capsys)
    assert (code, err) == (0, "")
    assert out.startswith(begins)
    assert ends in out[-40:]
    code, out, err = told(f"report {passed} --format {form} --json -", capsys)
    assert json.loads(out)["verdict"] == "PASS"
    assert err.startswith(begins)


def test_a_json_file_never_replaces_a_run_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in (f"run -s ::1 -o {tmp_path}/x --json {tmp_path}/x", f"report {tmp_path}/x --json {tmp_path}/x"):
        code, _, err = told(command, capsys)
        assert code == 2
        assert "x: is the run file, or a folder; name another file" in err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("recommend {run} --json {run}", "--json {run}: is what is read here"),
        ("merge -o all.db {run} {other} --json {other}", "--json {other}: is what is read here"),
        ("explain {run} --log {log} --json {log}", "--json {log}: is what is read here"),
        ("audit --lab --from-run {run} --save {run}", "--save {run}: is the run file"),
        ("audit --snapshot {log} --save {log}", "--save {log}: is what is read here"),
        ("run -s ::1 -d {log} --json {log}", "--json {log}: is what is read here"),
        ("compare {run} {other} --json x --html x", "--json x: is named twice"),
    ],
)
def test_what_is_read_is_never_replaced(
    command: str, said: str, passed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("a.test A\n")
    shutil.copy(passed, tmp_path / "other.db")
    names = {"run": str(passed), "other": str(tmp_path / "other.db"), "log": str(tmp_path / "log")}
    before = {name: Path(name).read_bytes() for name in names.values()}
    code, out, err = told(command.format(**names), capsys)
    assert (code, out) == (2, "")
    assert said.format(**names) in err
    assert {name: Path(name).read_bytes() for name in names.values()} == before


def test_a_missed_objective_fails(tmp_path: Path) -> None:
    command = f"run -s 127.0.0.1 -p {closed_port()} -Q 50 -l 1 -t 1 --fail 'loss > 0.1%' --json run.json"
    code, out, _ = ran(command, tmp_path)
    assert code == 1
    assert "FAIL" in out
    assert json.loads((tmp_path / "run.json").read_text())["totals"]["outcomes"]["connection_refused"] == 50
    (file,) = tmp_path.glob("dnsprobe-adhoc-*Z.db")
    assert open_run(file).head.objectives == ("loss <= 0.1%",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_is_whole_and_reported(number: signal.Signals, scripted: Start, tmp_path: Path) -> None:
    server = scripted(ANSWER)
    before = signal.signal(number, signal.SIG_DFL)  # these tests may run under nohup
    process = start(f"run -s 127.0.0.1 -p {server.port} -Q 100 -l 60 -o run.db", tmp_path)
    signal.signal(number, before)
    until(lambda: len(server.received()) >= 120)
    process.send_signal(number)
    time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert "waiting for the last answers" in err
    assert "cut" in out or "ended" in out
    run = open_run(tmp_path / "run.db")
    assert run.cut.startswith("ended after ")
    assert not list(tmp_path.glob("run.db-*"))


def test_nohup_outlives_the_terminal(scripted: Start, tmp_path: Path) -> None:
    server = scripted(ANSWER)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = start(f"run -s 127.0.0.1 -p {server.port} -Q 100 -l 3 --fail 'loss > 5%' -o run.db", tmp_path)
    signal.signal(signal.SIGHUP, before)
    until(lambda: len(server.received()) >= 50)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err


def test_ctrl_c_before_the_first_query_leaves_nothing(tmp_path: Path) -> None:
    process = start("run baseline --lab --set lab.coredns=stand-in --set lab.start_delay=5s", tmp_path)
    assert process.stderr
    assert process.stderr.readline() == "starting the cluster\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


def test_a_run_file_that_cannot_be_written_for_a_while_loses_nothing(scripted: Start, tmp_path: Path) -> None:
    server = scripted(ANSWER)
    process = start(f"run -s 127.0.0.1 -p {server.port} -Q 100 -l 4 -o run.db --json -", tmp_path)
    until(lambda: len(server.received()) >= 50)
    with sqlite3.connect(tmp_path / "run.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(2)
        other.execute("ROLLBACK")
    other.close()
    out, err = process.communicate(timeout=20)
    assert process.returncode in (0, 3), err
    assert "the next flush writes it" in err
    totals = json.loads(out)["totals"]
    assert totals["planned"] == 400 == totals["good"] + totals["outcomes"]["unsent"]


def test_a_worker_that_dies_leaves_a_run_file_and_an_inconclusive_run(scripted: Start, tmp_path: Path) -> None:
    server = scripted(ANSWER)
    process = start(f"run -s 127.0.0.1 -p {server.port} -Q 100 -l 30 -o run.db", tmp_path)
    until(lambda: len(server.received()) >= 120)
    os.kill(child(process, "probe.engine"), signal.SIGKILL)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 3, err
    assert "the worker ended after" in err
    assert open_run(tmp_path / "run.db").cut.startswith("the worker ended after")


def test_a_lab_that_dies_ends_the_run_and_is_not_blamed_on_dns(tmp_path: Path) -> None:
    process = start("run baseline --lab --set lab.coredns=stand-in -o run.db", tmp_path)
    until(lambda: flushed_ns(tmp_path / "run.db") > 2 * NS)
    os.kill(child(process, "probe.cluster.lab_process"), signal.SIGKILL)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 3, out + err
    run = open_run(tmp_path / "run.db")
    assert re.match(r"ended after \d\.\d s by the cluster: the lab's process has died", run.cut)
    (died,) = [mark for mark in run.marks if mark.kind == "lab_died"]
    assert run.end_ns - died.at_ns < NS // 2, "no query goes out to a lab that is gone"
    assert out.startswith("INCONCLUSIVE: ")


def test_what_the_lab_did_while_the_run_was_kept_from_reading_it_is_marked(tmp_path: Path) -> None:
    """As on a machine without an idle core, where a run that lowers its priority has no turn until it is over."""
    settings = "--set 'steps=[{wait: 1s}, {scale: 2}]' --set lab.propagation=3s --set lab.coredns=stand-in"
    process = start(f"run scale-down --lab {settings} --set duration=5s -o run.db", tmp_path)
    until(lambda: flushed_ns(tmp_path / "run.db") > 1.5 * NS)
    process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=20)
    run = open_run(tmp_path / "run.db")
    assert {"pod_deleted", "endpoints_programmed"} <= {mark.kind for mark in run.marks}, err
    assert all(mark.at_ns < 5 * NS for mark in run.marks if mark.kind == "endpoints_programmed")


def test_a_scale_down_in_the_lab_is_seen_from_all_sides(tmp_path: Path) -> None:
    settings = (
        "duration=5s",
        "steps=[{wait: 1s}, {scale: 2}, {delete_pod: newest}, {mark: done}]",
        "lab.coredns=stand-in",
        "lab.lameduck=0s",
        "lab.propagation=1s",
        "lab.readiness_period=200ms",
    )
    command = "run scale-down --lab -o run.db " + " ".join(f"--set '{setting}'" for setting in settings)
    code, out, err = ran(command, tmp_path)
    assert code == 1, err
    assert "FAIL" in out
    run = open_run(tmp_path / "run.db")
    assert not run.cut
    steps = [mark.text for mark in run.marks if mark.kind == "step"]
    for step, said in zip(steps, ("scale to 2", "delete pod coredns-", "done"), strict=True):
        assert step.startswith(said), "on a busy machine it says, too, how late it was"
    pods = {s.target.name for s in run.series if s.lane == "pods"}
    lives = {life.subject: life for life in run.intervals if life.kind == "life"}
    assert len(pods) == len(lives) == 4, "three at the start, and the one that replaced the deleted"
    assert sorted(life.to_ns < run.head.planned_ns for life in lives.values()) == [False, False, True, True]
    assert "5 s of 5 s: " in err


def test_a_step_that_cannot_be_taken_ends_the_run_in_order(tmp_path: Path) -> None:
    settings = ("steps=[{mark: begun}, {wait: 1s}, {delete_pod: coredns-x}]", "lab.coredns=stand-in")
    command = "run baseline --lab -o run.db " + " ".join(f"--set '{setting}'" for setting in settings)
    code, out, err = ran(command, tmp_path)
    assert code == 4, err
    assert re.search(r"^   0[.]\d s  step begun$", err, re.MULTILINE)
    assert "no pod 'coredns-x'; there are coredns-" in err
    assert "CUT SHORT" in out
    run = open_run(tmp_path / "run.db")
    assert "its step `delete pod coredns-x`: no pod 'coredns-x'" in run.cut
    assert run.marks[0].at_ns >= 0


def test_a_pod_is_asked_though_for_a_while_there_was_none(tmp_path: Path) -> None:
    """All pods go, so that the schedule is empty, and one comes back."""
    settings = (
        "duration=4s",
        "steps=[{wait: 500ms}, {scale: 0}, {wait: 2s}, {scale: 1}]",
        "lanes=[{name: pods, target: pods, rate: 50, timeout: 100ms, questions: [a.example], types: [TXT]}]",
        "lab.coredns=stand-in",
        "lab.lameduck=0s",
        "lab.replicas=1",
        "lab.teardown=0s",
    )
    command = "run baseline --lab -o run.db " + " ".join(f"--set '{setting}'" for setting in settings)
    ran(command, tmp_path)
    run = open_run(tmp_path / "run.db")
    assert {s.index for s in run.series} == set(run.counts.series.tolist()) == {0, 1}


def test_kill_9_leaves_a_file_that_can_be_reported_without_its_wal(scripted: Start, tmp_path: Path) -> None:
    server = scripted(ANSWER)
    process = start(f"run -s 127.0.0.1 -p {server.port} -Q 100 -l 60 -o run.db", tmp_path)
    until(lambda: len(server.received()) >= 350)
    process.kill()
    process.communicate()
    time.sleep(0.3)
    asked = len(server.received())
    (tmp_path / "copy.db").write_bytes((tmp_path / "run.db").read_bytes())
    code, out, err = ran("report copy.db --json -", tmp_path)
    assert code == 3
    assert "the run was cut" in err
    report = json.loads(out)
    totals = report["totals"]
    assert report["cut"].startswith("the run was cut")
    assert asked - 130 <= totals["good"] <= asked, "a second's worth and a little is missing"
    assert totals["planned"] == sum(totals["outcomes"].values()) + totals["in_flight"]


def flushed_ns(file: Path) -> int:
    """How far a run file has come, since the run's start; 0 before it is one."""
    with suppress(UsageError):
        return open_run(file).end_ns
    return 0


def child(process: subprocess.Popen[str], module: str) -> int:
    """The child of a run that runs a module: the engine's worker, the lab."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (found,) = [int(pid) for pid in children if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def until(condition: object, seconds: float = 15.0) -> None:
    """Wait until it holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_the_demo_blames_no_setting_for_what_was_not_sent(tmp_path: Path) -> None:
    runs = [STORIES[name](tmp_path / f"{name}.db") for name in ("a_third", "stalled")]
    said = _saved(*runs)
    assert "saved 100 queries" in said
    assert "0 with it (0.0 s)" in said, "two seconds of the prober's own"
