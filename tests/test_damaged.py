"""Files that are cut off, corrupt, or made to harm who reads them -> a sentence, soon, or what can still be read."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from probe.audit.files import read_files
from probe.cli.files import check_file, write_page
from probe.cluster.kube.jobs import RUNNING, JobPod, JobPods
from probe.collect.fromlog import rebuilt, told_in
from probe.collect.pods import Left, _read, _take
from probe.engine.plan import EngineOptions
from probe.engine.worker import Worker
from probe.errors import UsageError
from probe.model import NS
from probe.recorder.room import Room
from probe.report.formats import REPORTS
from probe.report.lines import lines_report
from probe.runfile import Head, RunWriter, open_run
from probe.runfile.schema import APPLICATION_ID, SCHEMA_VERSION
from probe.transport.udp import Udp
from tests.apiserver import ApiServer
from tests.kube_objects import thing
from tests.stories import STORIES
from tests.test_cli import told

BOMB = "a0: &a0 [" + "x, " * 10 + "x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 10))
SPARSE = 1 << 30
BAD_JSON = (
    '{"kind": "Service", "metadata": {"name": "x", "uid": "\\/\\ud83d\\ude00"}, "spec": {"ports": [{"port": "a"}]}}'
)
"""No YAML: there is no line to be told."""
SURROGATE = (
    '{"kind": "DaemonSet", "metadata": {"name": "x"}, "spec": {"selector": {}, "template": {"spec": {"containers": [],'
    ' "volumes": [{"name": "a", "configMap": "\\ud800"}]}}}}'
)
CODE = "!!python/object/apply:os.mkdir ['pwned']"


def test_a_run_file_cut_off_anywhere_or_with_octets_flipped_is_reported_or_said_to_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    STORIES["a_third"](Path("whole.db"))
    whole, rng = Path("whole.db").read_bytes(), random.Random(1)
    codes = []
    for nth in range(220):
        damaged = bytearray(whole)
        if nth < 20:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            for _ in range(rng.choice((1, 4, 16, 64))):
                damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        Path("damaged.db").write_bytes(damaged)
        code, out, err = told(f"report damaged.db --format {('json', 'text')[nth % 2]}", capsys)
        said = out if code in (0, 1, 3) else err
        assert "dnsprobe: damaged.db: is " in said if code == 2 else said, (nth, code, err)
        codes.append(code)
    assert codes.count(2) > 20
    assert len(set(codes)) > 1


@pytest.mark.parametrize(
    ("command", "content", "said"),
    [
        ("run FILE --dry-run", f"name: x\n{BOMB}", "more than 20,000 values (aliases count as often as used)"),
        ("run FILE --dry-run", "name: x\nlanes: &a [*a]\n", "nested too deeply; 20 levels are allowed"),
        ("run FILE --dry-run", "[" * 200_000, "nested too deeply; 20 levels are allowed"),
        ("run FILE --dry-run", f"name: {CODE}\n", "name: a single value is expected here, not a list"),
        ("run FILE --dry-run", SPARSE, "longer than 262,144 octets"),
        ("run FILE --dry-run", None, "no such file or shipped scenario"),
        ("run -s ::1 -d FILE --dry-run", SPARSE, "no end of line in 65,536 octets"),
        ("run -s ::1 -d FILE --dry-run", None, "cannot be read: Too many levels of symbolic links"),
        ("audit --snapshot FILE", BOMB, "an alias: kubectl writes none"),
        ("audit --snapshot FILE", "[" * 200_000, "nested too deeply to be of a cluster"),
        ("audit --snapshot FILE", "{a: " * 200_000, "nested too deeply to be of a cluster"),
        ("audit --snapshot FILE", "{a: #}\n" * 100_000, "nested too deeply to be of a cluster"),
        ("audit --snapshot FILE", "- " * 200_000, "nested too deeply to be of a cluster"),
        ("audit --snapshot FILE", "".join(f"{' ' * n}a:\n" for n in range(2000)), "nested too deeply to be of a"),
        ("audit --snapshot FILE", CODE, "could not determine a constructor for the tag"),
        ("audit --snapshot FILE", SPARSE, "longer than 268,435,456 octets: export fewer objects"),
        ("audit --snapshot FILE", None, "cannot be read: Too many levels of symbolic links"),
        ("audit --snapshot FILE", BAD_JSON, "Service x: Expected `int`, got `str`: export it again"),
        ("audit --snapshot FILE", SURROGATE, "DaemonSet x: 'utf-8' codec can't encode character"),
        (
            "audit --snapshot FILE",
            f"kind: ConfigMap\nmetadata: {{name: x}}\ndata: {{Corefile: {'a ' * 600_000}}}",
            "ConfigMap x: more than 1,048,576",
        ),
        (
            "explain whole.db --log FILE",
            SPARSE,
            "it.yaml:1: no end of line in 65,536 octets; CoreDNS's log is expected",
        ),
        ("explain FILE", SPARSE, "is not a run file"),
        ("merge FILE FILE -o all.db", SPARSE, "is not a run file"),
        ("compare FILE FILE", SPARSE, "is not a run file"),
        ("report FILE", SPARSE, "is not a run file"),
        ("report FILE", None, "cannot be read: Too many levels of symbolic links"),
    ],
)
def test_a_file_that_was_made_to_harm_is_refused(
    command: str,
    content: str | int | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A text; so many octets that are not there; or a link to itself."""
    monkeypatch.chdir(tmp_path)
    if "whole.db" in command:
        STORIES["cut"](Path("cut.db")).path.rename("whole.db")
    file = Path("it.yaml")
    if content is None:
        file.symlink_to(file)
    elif isinstance(content, int):
        with file.open("wb") as sparse:
            sparse.truncate(content)
    else:
        file.write_text(content)
    code, _, err = told(command.replace("FILE", str(file)), capsys)
    assert (code, said in err) == (2, True), err
    assert not Path("pwned").exists()


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT i, 0, 0, 1, 1 FROM n"
PACKED = zlib.compress(bytes(1 << 26))


def _packed(octets: bytes) -> str:
    return f"UPDATE histograms SET counts = x'{octets.hex()}'"  # noqa: S608


WRONG = {
    "a fact that is none": ("INSERT INTO facts VALUES ('x', NULL)", "facts.value is not what is written there"),
    "a text for a number": ("UPDATE run SET lag_max_ns = 'x'", "run.lag_max_ns is not"),
    "a number beyond all": ("UPDATE tenths SET n = 1e308", "tenths.n is not"),
    "a fraction": ("UPDATE tenths SET n = 0.5", "tenths.n is not"),
    "a series before the first": ("INSERT INTO in_flight VALUES (0, -75, 1)", "in_flight.series is not"),
    "a series after the last": ("INSERT INTO seconds VALUES (0, 75, 0, 1, 1)", "seconds.series is not"),
    "an outcome of nobody": ("INSERT INTO failures VALUES (0, 0, 0, '', 99, 0, '', 0, 0)", "failures.outcome is not"),
    "a sample without end": ("INSERT INTO samples VALUES (0, 0, 9e999)", "samples.value is not"),
    "a mark without a text": ("INSERT INTO marks VALUES (0, 'x', NULL, '', '')", "marks.text is not"),
    "an end after years": ("UPDATE run SET end_ns = 1 << 60", "run.end_ns is not"),
    "a pace of nobody": ("UPDATE series SET shape = replace(shape, 'even', 'evening')", "no pace is 'evening'"),
    "a view that never ends": (
        f"DROP TABLE seconds; CREATE VIEW seconds AS {ENDLESS}",
        "seconds is no table of values",
    ),
    "a column that is calculated": (
        "DROP TABLE bad; CREATE TABLE bad (bucket, series, first_ns, last_ns AS (hex(zeroblob(1000000000))))",
        "bad is no table of values",
    ),
    "64 MiB in 64 kB": (_packed(PACKED), "what is packed in it goes on"),
    "a histogram cut off": (_packed(PACKED[:99]), "what is packed in it goes on"),
}


@pytest.mark.parametrize(("sql", "said"), WRONG.values(), ids=WRONG)
def test_a_run_file_that_holds_what_nobody_writes_is_said_to_be_damaged(sql: str, said: str, tmp_path: Path) -> None:
    """SQLite has no complaint about it: its tables here take any value."""
    path = STORIES["over_tcp"](tmp_path / "run.db").path
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        views = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")]
        for view in views:
            db.execute(f"DROP VIEW {view}")
        for table in tables:
            db.execute(f"CREATE TABLE new AS SELECT * FROM {table}")  # noqa: S608
            db.execute(f"DROP TABLE {table}")
            db.execute(f"ALTER TABLE new RENAME TO {table}")
        open_run(path)
        db.executescript(sql)
    with pytest.raises(UsageError, match=r"\.db: is a damaged run file: ") as raised:
        open_run(path)
    assert said in str(raised.value)


def test_a_sample_may_be_any_number_that_others_count_to(tmp_path: Path) -> None:
    """Of a pod's metrics a run keeps what is finite: a file that has it is whole."""
    path = STORIES["over_tcp"](tmp_path / "run.db").path
    with closing(sqlite3.connect(path)) as db, db:
        (metric,) = db.execute("SELECT coalesce(max(metric), -1) + 1 FROM metrics").fetchone()
        db.execute("INSERT INTO metrics VALUES (?, 'coredns', 'a', 'coredns_dns_requests_total')", (metric,))
        db.executemany("INSERT INTO samples VALUES (?, ?, ?)", [(metric, 0, -1e300), (metric, 1000, 1.7e308)])
    run = open_run(path)
    for form in REPORTS.values():
        assert form(run)


def test_a_run_of_half_an_address_is_reported(tmp_path: Path) -> None:
    path = STORIES["over_tcp"](tmp_path / "run.db").path
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE series SET address = '127.0.0.'")
    assert "connection_refused" in REPORTS["text"](open_run(path))


PRINTED = {
    "a key that is missing": ('"timeout_ns"', '"x"'),
    "an instant that is none": ('"started": "2026-09-21T14', '"started": "2026-09-21Tnoon'),
    "an outcome that is none": ('"class": "connection_refused"', '"class": "co.nection"'),
    "a series that is not the first": ('"series": 0', '"series": 3'),
    "a text that is none": ('"name": "adhoc"', '"name": []'),
    "a million years": ('"seconds": 4.0', '"seconds": 3e13'),
    "no number": ('"seconds": 4.0', '"seconds": NaN'),
    "more rows than memory": ('"connection_refused": 50', '"connection_refused": 50000000000000000'),
    "a rate by zero": ('"rate": "50"', '"rate": "1/0"'),
}


@pytest.mark.parametrize(("former", "odd"), PRINTED.values(), ids=PRINTED)
def test_a_log_with_lines_that_nobody_prints_makes_no_run_file(former: str, odd: str, tmp_path: Path) -> None:
    lines = lines_report(STORIES["over_tcp"](tmp_path / "own.db")).splitlines()
    whole, told = told_in(lines), told_in([line.replace(former, odd) for line in lines])
    assert any(former in line for line in lines)
    assert whole
    assert told
    rebuilt(whole, tmp_path / "whole.db")
    with pytest.raises(UsageError, match="its log has lines that no dnsprobe prints: "):
        rebuilt(told, tmp_path / "log.db")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["own.db", "whole.db"]


def test_a_workload_without_a_spec_of_pods_is_read(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text("kind: Deployment\nmetadata: {name: x}\nspec: {selector: {}, template: {}}\n")
    assert [str(one) for one in read_files([file]).things] == ["deployment/x"]


def test_a_run_that_was_killed_before_its_file_had_anything_in_it_is_said_to_be_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite writes the header first, and the tables into the log beside it."""
    with closing(sqlite3.connect(tmp_path / "begun.db")) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    code, _, err = told(f"report {tmp_path}/begun.db", capsys)
    assert (code, "begun.db: is empty: its run ended before it had begun" in err) == (2, True), err


# -- where it is written


def test_an_output_that_is_a_link_is_written_where_it_leads_and_stays_a_link(tmp_path: Path) -> None:
    link, there = tmp_path / "link.json", tmp_path / "there.json"
    link.symlink_to(there)
    check_file("--json", str(link), tmp_path / "run.db")
    assert (link.is_symlink(), there.exists()) == (True, False), "to look whether it can be written changes nothing"
    write_page("--json", str(link), b"{}", "")
    assert (link.is_symlink(), there.read_bytes()) == (True, b"{}")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to("run.db"), "is the run file, or a folder"),
        (lambda path: path.symlink_to("."), "is the run file, or a folder"),
        (lambda path: path.mkdir(), "is the run file, or a folder"),
        (lambda path: path.symlink_to(path.name), "cannot be written: "),
        (lambda path: path.symlink_to("nowhere/x"), "cannot be written: No such file or directory"),
    ],
    ids=["run file", "folder by a link", "folder", "circle", "no folder"],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_asked(
    make: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("out.json"))
    with pytest.raises(UsageError, match=f"--json out.json: {said}"):
        check_file("--json", "out.json", Path("run.db"))
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("nowhere.db"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/dev/null"),
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: path.write_bytes(b"mine"),
    ],
    ids=["link to nowhere", "circle", "device", "folder", "FIFO", "file"],
)
def test_a_run_file_is_made_anew_whatever_is_there_stays(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    make(path)
    before = path.lstat()
    with pytest.raises(UsageError, match=r"run\.db: exists already"):
        RunWriter.create(path, Head("x", 0, 0, "", "", (), {}))
    assert (path.lstat().st_mode, path.lstat().st_size) == (before.st_mode, before.st_size)
    assert [file.name for file in tmp_path.iterdir()] == ["run.db"]


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", ".x", "x\0", "X", ""])
def test_a_pod_with_a_name_that_leads_elsewhere_is_not_collected(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No API server has one, but who answers may be anybody."""
    server = ApiServer(
        thing("Job", "load", namespace="dnsprobe", spec={"template": {"spec": {"containers": []}}}),
        thing("Pod", name, namespace="dnsprobe", labels={"job-name": "load"}, spec={"containers": []}),
    )
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.chdir(tmp_path)
    try:
        code, _, err = told("collect job/load -o all.db", capsys)
    finally:
        server.stop()
    assert (code, "is no name of a pod: this is no Kubernetes" in err) == (4, True), err
    assert [file.name for file in tmp_path.iterdir()] == ["kubeconfig"]


def test_what_is_collected_goes_into_no_folder_of_somebody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "all.db.parts").symlink_to("theirs")
    code, _, err = told(f"collect job/load -o {tmp_path}/all.db", capsys)
    assert (code, "all.db.parts: is a link, or somebody else's folder" in err) == (2, True), err


class Serving:
    """A pod's port that serves other octets than it told of."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    async def served(self, *_: object) -> AsyncIterator[bytes]:
        for at in range(0, len(self._octets), 4096):
            yield self._octets[at : at + 4096]


def test_a_pod_that_serves_more_than_it_told_of_fills_neither_disk_nor_memory(tmp_path: Path) -> None:
    left = Left(JobPod("load-0", "0", "", going=False, state=RUNNING), tmp_path)
    bomb = gzip.compress(bytes(1 << 26))
    with pytest.raises(ValueError, match="more octets than were told"):
        asyncio.run(_take(cast("JobPods", Serving(bomb)), left, 1, {"octets": 1000, "sha256": ""}))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1 << 23
    with pytest.raises(ValueError, match="more than 65,536 octets"):
        asyncio.run(_read(Serving(bytes(1 << 26)).served("load-0", 1, "/")))


def test_ids_and_labels_are_other_ones_each_time_unless_a_seed_makes_them_the_same() -> None:
    def drawn(seed: int | None) -> tuple[int, bytes]:
        worker = Worker(Room.create(4, NS)[0], EngineOptions(seed=seed))
        udp = worker._paths["udp"].transport
        assert isinstance(udp, Udp)
        return int(worker._questions._secret), udp._ledger.flight.ids_of.tobytes()

    assert EngineOptions().seed is None
    ways = [drawn(None), drawn(None), drawn(7), drawn(7)]
    assert ways[2] == ways[3]
    for part in zip(*ways[:3], strict=True):
        assert len(set(part)) == 3
