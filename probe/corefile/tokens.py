"""The text of a Corefile -> its words, each with its line and place, cut as CoreDNS's lexer cuts them.

Source: coredns/caddy v1.1.4 caddyfile/lexer.go, `next`; its quirks are kept, since they are what a pod goes by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SPACE = r"\t\n\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Go's unicode.IsSpace, which is not Python's; without the carriage return, which is passed over even in a word."""
_PIECE = re.compile(
    rf"(?P<space>[{_SPACE}\r]+)"
    r"|(?P<comment>#[^\n]*)"
    r'|"(?P<quoted>(?:\\.|[^"\\])*)\\?(?P<closed>"|\Z)'
    rf"|(?P<word>[^{_SPACE}\r#][^{_SPACE}#]*)(?P<glued>#[^{_SPACE}]*)?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word. line: from 1, where it begins; file: '' for the Corefile itself.

    closed: not if it stands in quotes, which are no part of text, that never end.
    commented: it is in a comment that began within a word, `5s# of lameduck`: the lexer forgets at the next space that
    it was reading a comment, so CoreDNS takes `of` and `lameduck` for words.
    """

    text: str
    line: int
    file: str = ""
    closed: bool = True
    commented: bool = False

    @property
    def last_line(self) -> int:
        """Where it ends: quotes may hold several lines."""
        return self.line + self.text.count("\n")

    def continues(self, other: Token) -> bool:
        """Whether it stands on the line where the other one ends (dispenser.go, NextArg)."""
        return self.file == other.file and self.line == other.last_line

    def opens_line(self, other: Token) -> bool:
        """Whether it stands on a later line than the other one (dispenser.go, isNewLine)."""
        return self.file != other.file or self.line > other.last_line


def tokens_of(text: str, file: str = "") -> Iterator[Token]:
    """All of its words, in order; every text is cut, none is refused."""
    line, commented = 1, False
    for piece in _PIECE.finditer(text, int(text.startswith("\ufeff"))):
        inside = piece["quoted"]
        if inside is not None:
            closed = piece["closed"] == '"'
            word = re.sub(r'\\"|\\(?!")(.)', lambda pair: '"' if pair[0] == '\\"' else pair[0], inside, flags=re.DOTALL)
            if word or closed:
                yield Token(word, line, file, closed, commented)
        elif piece["word"]:
            word = piece["word"].replace("\r", "")
            yield Token(word, line, file, commented=commented)
            commented = commented or bool(piece["glued"])
        lines = piece[0].count("\n")
        line += lines
        commented = commented and not lines
