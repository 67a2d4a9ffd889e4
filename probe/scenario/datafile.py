"""dnsperf's data file, `name SP type` a line -> questions in file order, or a UsageError with file and line."""

from __future__ import annotations

from probe.errors import UsageError
from probe.model import Question
from probe.scenario.textfile import read_text
from probe.wire import encode

MOST_OCTETS = 64 << 20
MOST_QUESTIONS = 1_000_000
_FORMAT = "a line is a name and a type, e.g. `example.com A`"


def read_questions(path: str, expect: str = "") -> tuple[Question, ...]:
    """The questions of a file, of stdin if path is `-`: lines of a name and a type; `;` begins a comment line.

    Names are absolute, with or without the last dot. Blank lines are skipped.
    """
    where = "stdin" if path == "-" else path
    text = read_text(path, "a data file (`name type` a line)", MOST_OCTETS)
    known: dict[tuple[str, str], Question] = {}
    questions: list[Question] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or line.startswith(";"):
            continue
        hint = "; a comment begins with ; in the first column" if words[0][0] in "#/;" else ""
        if len(words) != 2:
            raise UsageError(f"{where}:{number}: {_short(line)}: {_FORMAT}{hint}")
        if len(questions) == MOST_QUESTIONS:
            raise UsageError(f"{where}:{number}: more than {MOST_QUESTIONS:,} questions, the most that are read")
        name, qtype = words
        if (name, qtype) not in known:
            try:
                known[name, qtype] = checked_question(name, qtype, expect)
            except UsageError as problem:
                raise UsageError(f"{where}:{number}: {problem}{hint}") from None
        questions.append(known[name, qtype])
    if not questions:
        raise UsageError(f"{where}: no question in it; {_FORMAT}")
    return tuple(questions)


def checked_question(name: str, qtype: str, expect: str) -> Question:
    """A question that can be sent; UsageError for a bad name, type or expectation."""
    if not name.strip():
        raise UsageError(f"name {name!r}: empty; the root is `.`")
    question = Question.of(name, qtype, expect)
    encode(question)
    return question


def _short(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 60 else line[:57] + "...")
