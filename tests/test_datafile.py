"""dnsperf's data file: what is read from it, and what a person is told about a wrong line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from probe.errors import UsageError
from probe.model import Question
from probe.scenario.datafile import read_questions

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
