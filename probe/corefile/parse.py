"""The text of a Corefile, and what it imports -> its server blocks and what is wrong with them.

Source: coredns/caddy v1.1.4 caddyfile/parse.go, whose steps this takes; where that ends at the first error, this notes
it and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from probe.corefile.plugins import PLUGINS
from probe.corefile.problems import problems_of
from probe.corefile.stream import Stream
from probe.corefile.tokens import Token
from probe.corefile.tree import Corefile, Directive, ServerBlock

_DEEPEST = 20
_NO_IMPORT = "take that `import` out"


def parse_corefile(
    text: str, files: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> Corefile:
    """Every text is read. What CoreDNS would refuse, or misunderstand, is in its problems, by file and line.

    files: what `import` finds, by path from the Corefile or by name alone, such as the keys of coredns-custom; None if
    that is not known. environment: the pod's; None leaves `{$NAME}` as it is written.
    """
    stream = Stream(text, files, environment)
    blocks = list(_blocks(stream))
    found = dict.fromkeys([*stream.problems, *problems_of(blocks)])
    served = tuple(block for block in blocks if block.zones)
    return Corefile(
        served, tuple(sorted(found, key=lambda each: (each.file, each.line))), tuple(dict.fromkeys(stream.missing))
    )


def _blocks(stream: Stream) -> Iterator[ServerBlock]:
    while stream.next():
        keys, ended = _addresses(stream)
        names = [stream.with_environment(key.text).rstrip(",") for key in keys]
        if names == ["}"] and _ends_at_stray(stream, keys[0], ended):
            continue
        if len(names) == 1 and names[0].startswith("(") and names[0].endswith(")") and not ended:
            _read_snippet(stream, names[0][1:-1], keys[0])
            continue
        first = keys[0] if keys else stream.here
        if first is not None and (keys or not ended):
            directives = () if ended else tuple(_directives(stream))
            last = stream.line if stream.here and stream.here.file == first.file else first.line
            yield ServerBlock(tuple(names), first.line, first.file, directives, last)


def _addresses(stream: Stream) -> tuple[list[Token], bool]:
    """Those of a server block, and whether the file ends with them; else the cursor is on the word after them."""
    keys: list[Token] = []
    another = False
    while True:
        text = stream.with_environment(stream.value)
        if text == "import" and stream.opens_line():
            stream.put_in()
        elif text == "{":
            if another:
                stream.said("after a comma comes another address, not `{`", "take the comma out")
            return keys, False
        elif text:
            another = text.endswith(",")
            if stream.here and text != ",":
                keys.append(stream.here)
        if not stream.next():
            if another:
                stream.said("the file ends after a comma", "take the comma out")
            return keys, True
        if not another and keys and stream.opens_line():
            return keys, False


def _ends_at_stray(stream: Stream, brace: Token, ended: bool) -> bool:
    """Notes a `}` that closes nothing. CoreDNS serves a zone of that name, if what follows may be its block.

    If not, True, and what follows is read as a server block.
    """
    while not ended and stream.value == "import":
        stream.put_in()
        ended = not stream.next()
    taken = stream.value == "{" or stream.with_environment(stream.value) in PLUGINS
    fatal = not (ended or taken or stream.value == "}")
    what = f", and then complains of line {stream.line}" if fatal else ""
    stream.said(f"there is a `}}` too many: CoreDNS takes it for a zone{what}", "take it out", brace, fatal=fatal)
    if fatal:
        stream.back()
    return ended or not taken


def _read_snippet(stream: Stream, name: str, key: Token) -> None:
    if stream.value != "{":
        what = f"snippet `({name})` has no block; CoreDNS complains of line {stream.line}"
        stream.said(what, "open it with `{` behind its name", key)
        stream.back()
        return
    depth, words = 1, []
    while stream.next():
        depth += {"{": 1, "}": -1}.get(stream.value, 0)
        if not depth:
            break
        if stream.here:
            words.append(stream.here)
    if depth:
        what = f"the block of snippet `({name})` is never closed; CoreDNS complains of line {stream.line}"
        stream.said(what, "put a `}` on a line of its own", key)
    for before, word, argument in zip([key, *words], words, words[1:], strict=False):
        if word.text == "import" and word.opens_line(before) and stream.with_environment(argument.text) == name:
            stream.said(f"`{name}` imports itself; CoreDNS complains of line {stream.line}", _NO_IMPORT, word)
    if name in stream.snippets:
        stream.said(f"snippet `({name})` is there already", "give it another name", key)
    stream.snippets.setdefault(name, words)


def _directives(stream: Stream) -> Iterator[Directive]:
    """Those of a server block, whose `{` may be missing if it is the only one."""
    opener = stream.here if stream.value == "{" else None
    if opener is None:
        stream.back()
    last, depth = None, 0
    while stream.next():
        if stream.value == "}":
            return
        if stream.value == "import":
            stream.put_in()
            continue
        words, depth = _run(stream)
        last = _tree(stream, words)
        yield last
    if depth or opener:
        what = f"`{last.name}` takes in all that follows" if last and last.block else "the server block has no end"
        taken = not depth and stream.value == "}"  # the last word passes for the missing one
        what += "" if taken else f"; CoreDNS complains of line {stream.line}"
        line = last if last and last.block else None
        stream.said(
            f"a `}}` is missing: {what}",
            "close each block with a `}` on a line of its own",
            Token("", line.line, line.file) if line else opener,
            fatal=not taken,
        )


def _run(stream: Stream) -> tuple[list[Token], int]:
    """A plugin's words, to the end of its line or of its block; and how many blocks the end of the file leaves open."""
    words, depth = [], 0
    while True:
        token = stream.here
        if token:
            words.append(token)
        if not stream.next():
            return words, depth
        while stream.value == "import" and stream.opens_line() and depth:
            stream.put_in()
            if not stream.next():
                return words, depth
        if stream.value == "{":
            depth += 1
        elif stream.opens_line() and not depth:
            stream.back()
            return words, 0
        elif stream.value == "}" and depth:
            depth -= 1
        elif stream.value == "}":
            stream.said("this `}` stands on the line of a plugin", "put it on a line of its own")
            stream.back()
            return words, 0


@dataclass(slots=True)
class _Entry:
    """A directive whose block is being read; the outermost has no name."""

    words: list[Token]
    block: list[Directive] = field(default_factory=list)

    def closed(self, stream: Stream, end: Token) -> Directive:
        first, *arguments = self.words
        name, *texts = (stream.with_environment(word.text) for word in (first, *arguments))
        last = end.last_line if end.file == first.file else first.line
        return Directive(name, tuple(texts), first.line, first.file, tuple(self.block), last)


def _tree(stream: Stream, words: list[Token]) -> Directive:
    """As plugins read it: properties by lines, arguments to the end of the line or to `{`."""
    top, at = _Entry([words[0]]), 0
    path = [top]
    end = words[-1]
    while at < len(words):
        token = words[at]
        at += 1
        if token.text == "}" and len(path) > 1:
            entry = path.pop()
            path[-1].block.append(entry.closed(stream, token))
            continue
        line = [token]
        alone = token.text == "{"
        while not alone and at < len(words) and words[at].continues(line[-1]) and words[at].text != "{":
            line.append(words[at])
            at += 1
        behind = at < len(words) and words[at].continues(line[-1]) and words[at].text == "{"
        at += behind and not alone
        opens = (alone or behind) and len(path) <= _DEEPEST
        entry = _Entry(line)
        if opens:
            path.append(entry)
        else:
            path[-1].block.append(entry.closed(stream, line[-1]))
    while len(path) > 1:
        entry = path.pop()
        path[-1].block.append(entry.closed(stream, end))
    first, *more = top.block
    for one in more:
        what = f"`{one.name}` stands behind `{first.name}` and its block: CoreDNS takes it for another `{first.name}`"
        fatal = first.name in PLUGINS and PLUGINS[first.name].once
        stream.said(what, "put it on a line of its own", Token("", one.line, one.file), fatal)
    return first
