"""Files that options name -> checked before anything is asked, written when there is what they are for."""

from __future__ import annotations

from pathlib import Path

from probe.cli.output import complain, say
from probe.errors import UsageError


def check_json(json_file: str, run_file: Path, *read: Path, form: str = "") -> None:
    """UsageError where --json cannot be written, or would be in place of what is read, before anything is asked."""
    if json_file == "-" and form == "jsonl":
        raise UsageError("--json -: stdout has the lines of --format jsonl: name a file")
    if json_file != "-":
        check_file("--json", json_file, run_file, *read)


def check_file(word: str, name: str, run_file: Path, *read: Path) -> None:
    """UsageError where the file of an option, '' for none, cannot be written, or is one of those."""
    if not name:
        return
    file = Path(name)
    if not file.parent.is_dir():
        raise UsageError(f"{word} {name}: its folder does not exist")
    try:
        if file.resolve() == run_file.resolve() or file.is_dir():
            raise UsageError(f"{word} {name}: is the run file, or a folder; name another file")
        if any(file.resolve() == one.resolve() for one in read):
            raise UsageError(f"{word} {name}: is what is read here; name another file")
        there = file.exists()
        if file.is_file() or not there:
            file.open("ab").close()
        if not there:
            file.resolve().unlink()  # of a link that led nowhere what it leads to, not the link
    except RuntimeError:  # Python up to 3.12
        raise UsageError(f"{word} {name}: cannot be written: links in a circle; name another file") from None
    except OSError as problem:
        raise UsageError(f"{word} {name}: cannot be written: {problem.strerror}; name another file") from None


def write_json(json_file: str, text: str, kept: str) -> None:
    """Write it, if asked; `kept` says what there is where that cannot be done any more."""
    if json_file == "-":
        say(text)
    elif json_file:
        write_page("--json", json_file, text.encode(), kept)


def write_page(word: str, name: str, content: bytes, kept: str) -> None:
    """Write a file; what cannot be written any more is said, with what there is."""
    try:
        Path(name).write_bytes(content)
    except OSError as problem:
        complain(f"{word} {name}: cannot be written: {problem.strerror}; {kept}")
