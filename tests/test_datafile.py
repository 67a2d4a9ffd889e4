"""dnsperf's data file: what is read from it, and what a person is told about a wrong line."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest

from probe.book import PLAIN_QUESTIONS, Shelf
from probe.errors import UsageError
from probe.model import Edns, Question
from probe.scenario.datafile import _Reading, read_questions
from probe.scenario.names import Asking
from probe.wire import encode

GOOD = """\
; names of the office
www.example.com A

www.example.com. aaaa
\tmail.example.com\tMX
;commented.example A
1.2.0.192.in-addr.arpa PTR\r
_dns._udp.example.com TYPE65
www.example.com A
"""


def test_questions_come_in_file_order_and_as_often_as_they_stand_there(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text(GOOD)
    assert read_questions(str(file)) == (
        Question.of("www.example.com", "A"),
        Question.of("www.example.com.", "AAAA"),
        Question.of("mail.example.com", "MX"),
        Question.of("1.2.0.192.in-addr.arpa", "PTR"),
        Question.of("_dns._udp.example.com", "TYPE65"),
        Question.of("www.example.com", "A"),
    )


def test_expectation_holds_for_every_line(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("a.example A\nb.example AAAA\n")
    assert [str(q.expect) for q in read_questions(str(file), "nxdomain")] == ["nxdomain", "nxdomain"]
    assert [str(q.expect) for q in read_questions(str(file))] == ["answer", "answer|nodata"]


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.example A\nb.example\n")))
    with pytest.raises(UsageError, match=r"^stdin:2: 'b.example': a line is a name and a type"):
        read_questions("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="is closed; a data file"):
        read_questions("-")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.example A\nb.example\n", ":2: 'b.example': a line is a name and a type, e.g. `example.com A`"),
        ("a.example IN A\n", ":1: 'a.example IN A': a line is a name and a type"),
        ("# note\n\n", ":1: type 'NOTE': not a DNS type; say A, AAAA, TXT, ... or TYPE65; a comment begins with ;"),
        ("# a note\n", "; a comment begins with ; in the first column"),
        (" ; a note\n", "; a comment begins with ; in the first column"),
        ("a.example HOST\n", ":1: type 'HOST': not a DNS type; say A, AAAA"),
        ("a.example AXFR\n", ":1: type 'AXFR': cannot be asked for"),
        ("; x\n" + "a" * 64 + ".example A\n", "has 64 octets, 63 are allowed (RFC 1035, 2.3.4)"),
        ("; x\n" + "a" * 64 + ".example A\n", ":2: name 'aaa"),
        ("abcdefg." * 31 + "abcdefg A\n", "257 octets on the wire, 255 are allowed (RFC 1035, 2.3.4)"),
        ("a..example A\n", ":1: name 'a..example': an empty label"),
        ("", ": no question in it; a line is a name and a type"),
        ("; only\n\n; comments\n", ": no question in it"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "names"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_questions(str(file))
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"a.example A\n\xff\xfe\n")
    table = {
        str(tmp_path / "none"): "none: no such file; a data file (`name type` a line) is expected there",
        str(tmp_path): f"{tmp_path}: a directory; a data file",
        str(binary): "binary:2: not UTF-8 text",
        "a\0b": "cannot be read: embedded null byte",
    }
    for path, said in table.items():
        with pytest.raises(UsageError) as caught:
            read_questions(path)
        assert said in str(caught.value)


# --- Files that are too long for objects ---

FILLER = [f"filler{i}.example A" for i in range(PLAIN_QUESTIONS)]


def read_many(tmp_path: Path, *lines: str, asking: Asking | None = None) -> Shelf:
    """What is read of these lines behind so many others that all go into books."""
    file = tmp_path / "names"
    file.write_text("\n".join([*FILLER, *lines]))
    questions = read_questions(str(file), "", asking)
    assert isinstance(questions, Shelf)
    return questions


def test_up_to_4096_questions_are_a_tuple_in_file_order(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("\n".join(FILLER))
    assert read_questions(str(file)) == tuple(Question.of(line.split()[0]) for line in FILLER)


def test_more_are_books_by_type_in_file_order_within_each(tmp_path: Path) -> None:
    lines = [f"n{i}.example {('A', 'aaaa', 'TYPE65')[i % 3]}" for i in range(100)]
    shelf = read_many(tmp_path, *lines, asking=Asking(Edns(do=True)))
    expected = {"A": [Question.of(line.split()[0], "A", edns=Edns(do=True)) for line in FILLER]}
    for line in lines:
        name, qtype = line.split()
        expected.setdefault(qtype.upper(), []).append(Question.of(name, qtype, edns=Edns(do=True)))
    assert list(shelf) == list(chain(*expected.values()))
    assert {book.kind.qtype: list(book) for book in shelf.books} == expected


@pytest.mark.parametrize(
    "name",
    [
        "www.example.com",
        "WWW.Example.com.",
        "_dns._udp.example",
        "*.example",
        "0/25.2.0.192.in-addr.arpa",
        "a" * 63 + ".example",
        ".".join(["abcdefg"] * 31) + ".abcde",
        ".",
        "localhost",
        "b\\.c.example",
        "\\007.example",
        "m\u00fcller.example",
        "a@b.example",
        "{}.example",
    ],
)
@pytest.mark.parametrize("line", ["{} MX", "{}\tMX ", "  {}  mx\r"])
def test_a_name_in_a_book_is_what_dnspython_makes_of_it(tmp_path: Path, name: str, line: str) -> None:
    _, mx = read_many(tmp_path, line.replace("{}", name, 1)).books
    assert mx.names.tobytes() == encode(Question.of(name))[12:-4]
    assert encode(mx[0]) == encode(Question.of(name, "MX"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("b.example", ":4098: 'b.example': a line is a name and a type"),
        ("b.example HOST", ":4098: type 'HOST': not a DNS type"),
        ("b.example AXFR", ":4098: type 'AXFR': cannot be asked for"),
        ("a" * 64 + ".example A", ":4098: name 'aaa"),
        ("abcdefg." * 31 + "abcdefg A", "257 octets on the wire, 255 are allowed"),
        ("# a comment", "; a comment begins with ; in the first column"),
        ("{random}.example A", ":4098: name '{random}.example': a label that changes goes with up to 4,096 questions"),
    ],
)
def test_a_wrong_line_far_down_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_many(tmp_path, "; a comment", line, "c.example A")
    assert said in str(caught.value)


def test_what_books_cannot_hold_is_said_once_they_are_needed(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("\n".join(["{number}.example A", *FILLER]))
    with pytest.raises(
        UsageError, match=r"names:4097: name '\{number\}.example': a label that changes goes with up to"
    ):
        read_questions(str(file))
    with pytest.raises(UsageError, match=r"names:2049: more than 4,096 questions; with a search list that is the most"):
        read_questions(str(file), "", Asking(search=("test",)))


def test_a_search_list_holds_for_each_line(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("db A\ndb.test. A\n")
    asked = read_questions(str(file), "nxdomain", Asking(search=("svc.test",)))
    assert [(q.name, str(q.expect)) for q in asked] == [
        ("db.svc.test", "pinned"),
        ("db", "nxdomain"),
        ("db.test.", "nxdomain"),
    ]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("a.example A", encoding="utf-8-sig")
    assert read_questions(str(file)) == (Question.of("a.example"),)


def test_there_is_an_end_to_what_is_read() -> None:
    reading = _Reading("", Asking())
    for line in FILLER:
        reading.take(line.encode())
    reading._left = len(FILLER) + 1  # as if so many had been read
    reading.take(b"one.example A")
    with pytest.raises(UsageError, match="more than 10,000,000 questions, the most that are read"):
        reading.take(b"more.example A")


def test_what_has_no_lines_is_soon_refused() -> None:
    with pytest.raises(UsageError, match="/dev/zero:1: no end of line in 65,536 octets; a data file"):
        read_questions("/dev/zero")


MEASURE = """
import sys
from probe.scenario.datafile import read_questions
def now(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])
read_questions(sys.argv[1])
before = now("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
questions = read_questions(sys.argv[2])
print(len(questions), now("VmHWM") - before, now("VmRSS") - before)
"""


def test_memory_is_a_few_octets_a_name(tmp_path: Path) -> None:
    """300,000 names: as objects they would be 150 MB."""
    few, many = tmp_path / "few", tmp_path / "many"
    few.write_text("\n".join(FILLER))
    many.write_text("\n".join(f"n{i}.some.where.example A" for i in range(300_000)))
    command = [sys.executable, "-c", MEASURE, str(few), str(many)]
    told = subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1]).stdout.split()
    count, most_kb, kept_kb = map(int, told)
    assert count == 300_000
    assert most_kb < 20_000
    assert kept_kb < 15_000


READ = """
import sys
from probe.errors import UsageError
from probe.scenario.datafile import read_questions
try:
    read_questions("-")
except UsageError as problem:
    sys.exit(str(problem))
"""


def test_a_terminal_sees_how_far_a_long_reading_is_and_then_what_is_wrong() -> None:
    ours, theirs = pty.openpty()
    root = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", READ], stdin=subprocess.PIPE, stderr=theirs, cwd=root)
    os.close(theirs)
    assert process.stdin is not None
    for _ in range(4):
        process.stdin.write(b"a.example A\n" * 100_000)
        process.stdin.flush()
        time.sleep(0.4)
    process.communicate(b"bad\n", timeout=20)
    seen = b""
    with suppress(OSError):  # the terminal's other end is gone
        while piece := os.read(ours, 4096):
            seen += piece
    os.close(ours)
    assert seen.startswith(b"\rstdin: ")
    assert b" lines\r\x1b[Kstdin:400001: 'bad': a line is a name and a type" in seen
