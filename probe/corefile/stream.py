"""The words of a Corefile -> a cursor over them, which puts in what `import` names and the environment's values.

Source: coredns/caddy v1.1.4 caddyfile/dispenser.go (the cursor), parse.go `doImport`, `replaceEnvVars`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from probe.corefile.tokens import Token, tokens_of
from probe.corefile.tree import Problem

MOST_IMPORTS = 10_000
"""parse.go, maxSnippetExpansions."""
MOST_WORDS = 300_000
"""So many words imports may add; a ConfigMap, 1 MiB, holds no more without them."""
_REFERENCES = (("{%", "%}"), ("{$", "}"))
_MOST_REFERENCES, _LONGEST = 100, 100_000  # a value may hold a reference to itself


class Stream:
    """here: the word that is read now, None before the first one. problems: of imports and of odd words, so far."""

    def __init__(self, text: str, files: Mapping[str, str] | None, environment: Mapping[str, str] | None) -> None:
        self.problems: list[Problem] = []
        self.missing: list[str] = []
        self.snippets: dict[str, list[Token]] = {}
        self._files, self._environment = files, environment
        self._cut: dict[str, list[Token]] = {}
        self._done: list[Token] = []
        self._rest = self._words_of(text, "")[::-1]
        self._open: list[tuple[str, int]] = []  # imports that are being read, and how many words come after them
        self._imports = self._words = 0

    @property
    def here(self) -> Token | None:
        """The word at the cursor."""
        return self._done[-1] if self._done else None

    @property
    def value(self) -> str:
        """Its text; '' before the first one."""
        return self._done[-1].text if self._done else ""

    @property
    def line(self) -> int:
        """Its line; 1 before the first one."""
        return self._done[-1].line if self._done else 1

    def next(self) -> bool:
        """To the next word; False, and the cursor stays, at the end."""
        if not self._rest:
            return False
        self._done.append(self._rest.pop())
        return True

    def next_argument(self) -> bool:
        """The same, if that is on the same line."""
        return bool(self._rest and self._done and self._rest[-1].continues(self._done[-1])) and self.next()

    def back(self) -> None:
        """To the word before."""
        self._rest.append(self._done.pop())

    def opens_line(self) -> bool:
        """Whether the word is the first of its line."""
        return len(self._done) < 2 or self._done[-1].opens_line(self._done[-2])

    def said(self, text: str, remedy: str = "", at: Token | None = None, fatal: bool = True) -> None:
        """Notes a problem, of the word at the cursor if not of another."""
        token = at or self.here
        line, file = (token.line, token.file) if token else (1, "")
        self.problems.append(Problem(line, file, text, remedy, fatal))

    def put_in(self) -> None:
        """Replaces `import` and its argument by what they name; the cursor is on the word before them then."""
        word, before = self._done[-1], len(self._rest)
        arguments = []
        while self.next_argument():
            arguments.append(self._done[-1])
        del self._done[len(self._done) - 1 - len(arguments) :]
        name = self.with_environment(arguments[0].text) if arguments else ""
        if len(arguments) != 1 or not name:
            self.said("`import` takes one file, glob or snippet", "give it one, on its line", word)
            return
        self._open = [(one, after) for one, after in self._open if after < before]
        found = self.snippets.get(name)
        place = name if found is not None else posixpath.normpath(posixpath.join(posixpath.dirname(word.file), name))
        if any(one == place for one, _ in self._open):
            self.said(f"`{name}` imports itself", "take that `import` out", word)
            return
        found = self._of_files(name, place, word) if found is None else found
        self._imports += 1
        self._words += len(found)
        if self._imports > MOST_IMPORTS:
            self.said(f"there are more than {MOST_IMPORTS:,} imports", "write out what they name", word)
        elif self._words > MOST_WORDS:
            self.said(f"imports add more than {MOST_WORDS:,} words: not read further", "", word, fatal=False)
        else:
            self._open.append((place, len(self._rest)))
            self._rest += reversed(found)

    def _of_files(self, name: str, place: str, word: Token) -> list[Token]:
        """The words of all files that it names, by name; none where that is not known, or wrong."""
        if place.count("*") > 1 or place.count("?") > 1 or "[" in place:
            self.said(f"`import {name}` has more than one wildcard", "use one `*`, and no `[`", word)
            return []
        names = re.compile(re.sub(r"\\\*|\\\?", lambda sign: f"[^/]{sign[0][1:].replace('?', '')}", re.escape(place)))
        paths = sorted(path for path in self._files or () if names.fullmatch(_beside(path, place)))
        if not paths:
            self.missing.append(name)
            if self._files is not None and not re.search(r"[*?\]]", place):
                self.said(f"`import {name}` finds no snippet and no file", "define it above, or take it out", word)
        for path in paths:
            if path not in self._cut:
                self._cut[path] = self._words_of((self._files or {})[path], path)
        return [token for path in paths for token in self._cut[path]]

    def _words_of(self, text: str, file: str) -> list[Token]:
        words = list(tokens_of(text, file))
        for word in words:
            if not word.closed:
                self.said("quotes are opened and never closed", 'write " where they end', word, fatal=False)
            if word.commented:
                self.said(
                    f"`{word.text}` is read as a word: a # that touches a word comments to the next space alone",
                    "put a space before #",
                    word,
                    fatal=False,
                )
        return words

    def with_environment(self, text: str) -> str:
        """`{$NAME}` and `{%NAME%}` as the environment has them, '' if it has not."""
        if self._environment is None:
            return text
        for start, end in _REFERENCES:
            for _ in range(_MOST_REFERENCES):
                at = text.find(start) if len(text) < _LONGEST else -1
                to = text.find(end, at)
                if at < 0 or to <= at + len(start):
                    break
                reference = text[at : to + len(end)]
                text = text.replace(reference, self._environment.get(reference[len(start) : -len(end)], ""))
        return text


def _beside(path: str, place: str) -> str:
    """A file given by its name alone is where the pattern looks for it."""
    return path if "/" in path else posixpath.join(posixpath.dirname(place), path)
