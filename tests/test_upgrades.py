"""Run files of every schema that was ever released, kept as SQL: each is read, none is changed, all come out alike."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from probe.errors import UsageError
from probe.outcome import Outcome
from probe.report.formats import REPORTS
from probe.runfile import open_run, reader, samples
from probe.runfile.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES, UPGRADES, VIEWS
from tests.synthetic import drawn, series_of, written

KEPT = Path(__file__).parent / "data" / "runfile"
HOW = "run `dnsprobe run -s ADDRESS -Q 20 -l 3 -t 500ms --ports pool:2 --nsid -o run.db` and `sqlite3 run.db .dump`"
VERSIONS = range(1, SCHEMA_VERSION + 1)


def restored(version: int, folder: Path) -> Path:
    """The run that is kept of a schema, as a file."""
    kept, path = KEPT / f"{version}.sql", folder / f"{version}.db"
    assert kept.exists(), f"{kept}: a run of schema {version} is to be kept there: {HOW}"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(kept.read_text())
        _signed(db, version)
    return path


def _signed(db: sqlite3.Connection, version: int) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()


def shape(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """The columns of every table and view: name, type, NOT NULL, default, place in the primary key."""
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    return {name: [row[1:] for row in db.execute(f"PRAGMA table_info({name})")] for name in sorted(names)}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_each_schema_is_read_as_it_was_written(version: int, tmp_path: Path) -> None:
    path = restored(version, tmp_path)
    before = path.read_bytes()
    run = open_run(path)
    assert run.head.started_unix_ns > 0
    assert (run.head.name, run.finished, len(run.series), run.end_ns) == ("adhoc", True, 1, 3_000_000_000)
    by_outcome = {Outcome(o): int(run.counts.n[run.counts.outcome == o].sum()) for o in set(run.counts.outcome)}
    assert by_outcome == {Outcome.ANSWER: 30, Outcome.TIMEOUT: 30}
    assert len(run.failures) == 30
    assert json.loads(REPORTS["json"](run))["verdict"] == "FAIL"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", VERSIONS)
def test_upgraded_it_has_the_tables_of_today(version: int, tmp_path: Path) -> None:
    with closing(sqlite3.connect(restored(version, tmp_path))) as db, closing(sqlite3.connect("")) as today:
        for sql in UPGRADES[version - 1 :]:
            db.executescript(sql)
        today.executescript(TABLES + VIEWS)
        assert shape(db) == shape(today), "TABLES or VIEWS changed: see UPGRADES in probe/runfile/schema.py"


SINCE = (
    "DROP VIEW loss_per_second; ALTER TABLE failures RENAME COLUMN source_port TO port; DROP TABLE metrics;"
    " DROP TABLE samples; ALTER TABLE run DROP COLUMN cut"
)
"""What makes of a file of today one as a dnsprobe may have written it that knew less."""
STEPS = (
    "ALTER TABLE run ADD COLUMN cut TEXT NOT NULL DEFAULT ''; ALTER TABLE failures RENAME COLUMN port TO source_port",
    samples.TABLES,
)


@pytest.mark.parametrize("going", [False, True])
def test_a_file_that_knew_less_is_upgraded_on_a_copy(
    going: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = written(tmp_path / "run.db", [series_of()], drawn("..xx.."))
    with closing(sqlite3.connect(run.path)) as db:
        for sql in SINCE.split(";"):
            db.execute(sql)
        _signed(db, 1)
        if going:  # as one that is written just now: some of it is in the -wal alone
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("UPDATE run SET name = 'later'")
            db.commit()
        before = run.path.read_bytes()
        with pytest.raises(UsageError, match="is a damaged run file"):
            open_run(run.path)
        monkeypatch.setattr(reader, "SCHEMA_VERSION", 3)
        monkeypatch.setattr(reader, "UPGRADES", STEPS)
        again = open_run(run.path)
        assert run.path.read_bytes() == before
    assert again.head.name == ("later" if going else run.head.name)
    assert (again.cut, again.failures, again.counts.n.tolist()) == ("", run.failures, run.counts.n.tolist())


def test_an_upgrade_that_fails_says_whose_file_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written(tmp_path / "run.db", [series_of()], drawn("...."))
    monkeypatch.setattr(reader, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(reader, "UPGRADES", ("ALTER TABLE nobody ADD COLUMN x",))
    with pytest.raises(UsageError, match=r"run\.db: is a damaged run file: no such table: nobody"):
        open_run(run.path)


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, 99])
def test_a_schema_that_nobody_here_knows_is_refused(version: int, tmp_path: Path) -> None:
    run = written(tmp_path / "run.db", [series_of()], drawn("...."))
    with closing(sqlite3.connect(run.path)) as db:
        _signed(db, version)
    with pytest.raises(UsageError, match=f"has run file schema {version}, this dnsprobe reads {SCHEMA_VERSION} and"):
        open_run(run.path)
