"""Files that are cut off, corrupt, or made to harm who reads them -> a sentence, soon, or what can still be read."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from probe.runfile.schema import APPLICATION_ID, SCHEMA_VERSION
from tests.stories import STORIES
from tests.test_cli import told

BOMB = "a0: &a0 [" + "x, " * 10 + "x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 10))
SPARSE = 1 << 30
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


def test_a_run_that_was_killed_before_its_file_had_anything_in_it_is_said_to_be_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite writes the header first, and the tables into the log beside it."""
    with closing(sqlite3.connect(tmp_path / "begun.db")) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    code, _, err = told(f"report {tmp_path}/begun.db", capsys)
    assert (code, "begun.db: is empty: its run ended before it had begun" in err) == (2, True), err
