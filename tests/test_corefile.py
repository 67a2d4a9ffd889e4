"""Corefiles as CoreDNS reads them: what is in them, what is wrong; a real CoreDNS is asked whether that is so."""

import os
import random
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.corefile import NEWEST, PLUGINS, PROPERTIES, Corefile, Directive, duration_of, parse_corefile
from probe.corefile.tokens import tokens_of
from probe.corefile.zones import addresses_of
from tests.oracle import asking, coredns, said_by

KUBERNETES = """\
.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        endpoint http://127.0.0.1:1
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    forward . 127.0.0.1 {
        max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
"""
SNIPPETS = """\
# stub domains
(opts) {
    errors
    cache 30 {
        success 9984 30
    }
}
example.org, example.net {
    import opts
    forward . 127.0.0.1:5301
}
. {
    import opts
    log . "{remote} \\"{name}\\"" { # each
        class error
    }
    hosts {
        10.0.0.1 a.example.org
        fallthrough
    }
    whoami
}
import custom/*.server
"""
REVERSE = """\
10.0.0.0/24:1053 {
    template IN A {
        rcode NXDOMAIN
    }
}
.:1053
{
    rewrite name a.example b.example
    whoami
}
"""
SEEDS = (KUBERNETES, SNIPPETS, REVERSE)


_MERGED = ".[kubernetes(pods insecure ttl 30)]"


def shape(corefile: Corefile) -> str:
    """`.:53[errors; log(class error)]`."""

    def of(one: Directive) -> str:
        inner = " ".join(map(of, one.block))
        return " ".join([one.name, *one.arguments]) + f"({inner})" * bool(inner)

    return " ".join(f"{','.join(each.zones)}[{'; '.join(map(of, each.directives))}]" for each in corefile.blocks)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b\tc\u00a0d\u2003e", ["a", "b", "c", "d", "e"]),
        ("a\x1cb", ["a\x1cb"]),
        ("\ufeffa", ["a"]),
        ('"a b" c"d e"', ["a b", 'c"d', 'e"']),
        ('"a \\" \\n \\\\" b', ['a " \\n \\\\', "b"]),
        ('"a"b', ["a", "b"]),
        ('"" a', ["", "a"]),
        ('"a\nb" c', ["a\nb", "c"]),
        ('"never closed', ["never closed"]),
        ('"', []),
        ("# a b\nc # d\ne", ["c", "e"]),
        ("a#b c\nd", ["a", "c", "d"]),
        ("a\r\nb\rc", ["a", "bc"]),
        ('"#" b', ["#", "b"]),
    ],
)
def test_words_are_cut_as_the_lexer_cuts_them(text: str, words: list[str]) -> None:
    assert [token.text for token in tokens_of(text)] == words


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (". {\n whoami\n}", ".[whoami]"),
        (".\n{\n whoami\n}", ".[whoami]"),
        (".:53\nwhoami\nlog", ".:53[whoami; log]"),
        ("a, b\nc {\n}", "a,b[c]"),
        ("a,\nb {\n}", "a,b[]"),
        ("a b", "a,b[]"),
        (". {\n a b {\n  c d {\n   e\n  }\n  f\n }\n}", ".[a b(c d(e) f)]"),
        (". {\n a {\n }\n b\n}", ".[a; b]"),
        ('. {\n log "a b"\n}', ".[log a b]"),
        (
            "(x) {\n log\n cache 1 {\n  prefetch 1\n }\n}\n. {\n import x\n whoami\n}",
            ".[log; cache 1(prefetch 1); whoami]",
        ),
        (
            "(x) {\n pods insecure\n}\n. {\n kubernetes {\n  import x\n  ttl 30\n }\n}",
            ".[kubernetes(pods insecure ttl 30)]",
        ),
        ("import a.conf\n", "a[log]"),
        ("a {\n import */b\n}", "a[whoami]"),
        ("import *.server", "c[log] d[log]"),
        (". {\n import {$NAME}.override\n}", ".[errors; log]"),
        (". {\n log {$NAME} {%NAME%}x {$NONE} {$}\n}", ".[log x xx  {$}]"),
        ("{$ZONE} {\n whoami\n}", "example.org[whoami]"),
    ],
)
def test_blocks_snippets_imports_and_the_environment(text: str, seen: str) -> None:
    files = {
        "a.conf": "a {\n log\n}\n",
        "sub/b": "whoami\n",
        "d.server": "d {\n log\n}\n",
        "c.server": "c {\n log\n}\n",
        "x.override": "errors\nlog\n",
    }
    read = parse_corefile(text, files, {"NAME": "x", "ZONE": "example.org"})
    assert shape(read) == seen
    assert not [each for each in read.problems if each.text.startswith(("`import", "a `}"))]


def test_lines_are_those_of_the_file_in_which_a_word_stands() -> None:
    text = '. {\n errors\n import custom/*.override\n\n log "a\nb"\n whoami\n}\nimport custom/*.server\n'
    files = {"a.override": "# own\ncache 30 {\n success 5\n}\n", "b.server": "\nb:53 {\n log\n}\n"}
    first, second = parse_corefile(text, files).blocks
    lines = [(each.name, each.file, each.line) for each in first.directives]
    assert lines == [("errors", "", 2), ("cache", "a.override", 2), ("log", "", 5), ("whoami", "", 7)]
    assert first.directives[1].block[0].line == 3
    assert (second.zones, second.file, second.line) == (("b:53",), "b.server", 2)


def test_directives_are_found_by_name() -> None:
    read = parse_corefile(". {\n health {\n lameduck 5s\n lameduck 10s\n }\n}\na {\n health\n}\n")
    assert [each.line for each in read.all("health")] == [2, 8]
    health = read.blocks[0].last("health")
    assert health
    assert [each.arguments for each in health.all("lameduck")] == [("5s",), ("10s",)]
    last = health.last("lameduck")
    assert last
    assert last.arguments == ("10s",)
    assert read.blocks[0].last("ready") is health.last("x") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), (".5s", 0.5), ("0", 0), ("-1s", -1), ("+2s", 2)],
        *[("5", None), ("", None), ("s", None), ("5 s", None), ("5sec", None), ("1,5s", None), ("-", None)],
    ],
)
def test_durations_are_gos(text: str, seconds: float | None) -> None:
    assert duration_of(text) == seconds


def test_what_a_reverse_zone_and_a_bound_block_serve() -> None:
    block = parse_corefile("10.1.0.0/15:53 tls://Example.ORG {\n bind 127.0.0.1 lo\n}").blocks[0]
    assert list(map(str, addresses_of(block)))[::2] == [
        "dns://0.10.in-addr.arpa.:53 on 127.0.0.1",
        "dns://1.10.in-addr.arpa.:53 on 127.0.0.1",
        "tls://example.org.:853 on 127.0.0.1",
    ]


# Text, line of the first problem, a part of it, its remedy; whether CoreDNS refuses the file is what its `fatal` says.
WRONG = {
    "pasted comment": (". {\n // of ours\n whoami\n}", 2, "Unknown directive '//'", "#"),
    "pasted behind a zone": (". { // of ours\n whoami\n}", 1, "Unknown directive '//'", "#"),
    "pasted in a block": (". {\n cache {\n  // of ours\n  success 5\n }\n}", 3, "`//` begins no comment", "#"),
    "pasted among hosts": (". {\n hosts {\n  // of ours\n  10.0.0.1 a\n }\n}", 3, "`//` begins no comment", "#"),
    "pasted behind a word": (". {\n health {\n  lameduck 5s // more\n }\n}", 3, "`//` begins no comment", "#"),
    "pasted, and taken for zones": (". {\n cache 30 // seconds\n}", 2, "`//` begins no comment", "#"),
    "comment that touches": (". {\n cache 30# of seconds\n}", 2, "`of` is read as a word", "space before #"),
    "typo": (". {\n\n cahce 30\n}", 3, "Unknown directive 'cahce'", "`cache`"),
    "property outside": (". {\n lameduck 5s\n}", 2, "it is a property of `health`", "block of `health`"),
    "typo of a property": (". {\n health {\n  lameduk 5s\n }\n}", 3, "unknown property 'lameduk'", "`lameduck`"),
    "no such plugin": (". {\n k8s_gateway example.org\n}", 2, "CoreDNS 1.15.0 has no such plugin", "this build"),
    "one line": (". { whoami }", 1, "stands on the line of a plugin", "line of its own"),
    "one line, property": (". {\n health { lameduck 5s }\n}", 2, "is read as an argument of `lameduck`", "own"),
    "one line, passes": (". {\n hosts { 10.0.0.1 a }\n}", 2, "is read as an argument", "line of its own"),
    "block not closed": (KUBERNETES.replace("    }\n    ready", "    ready"), 3, "`health` takes in all", "close"),
    "block not closed, more behind": (". {\n cache {\n whoami\n}\na {\n whoami\n}", 3, "it is a plugin", "line 2"),
    "server block not closed": (". {\n errors\nexample.org {\n whoami\n}", 3, "within that of line 1", "`}`"),
    "last brace missing": (". {\n whoami\n cache {\n }", 1, "a `}` is missing", "close"),
    "brace too many": (". {\n whoami\n}\n}\na {\n whoami\n}", 4, "a `}` too many", "take it out"),
    "two braces too many": (". {\n whoami\n}\n}\n}\na {\n whoami\n}", 4, "a `}` too many", "take it out"),
    "brace too many, with a block": (". {\n whoami\n}\n}\n{\n whoami\n}", 4, "a `}` too many", "take it out"),
    "brace too many, with a plugin": (". {\n cache {\n }\n }\n}\n log\n}", 5, "a `}` too many", "take it out"),
    "last brace too many": (". {\n whoami\n}\n}\n", 4, "a `}` too many", "take it out"),
    "brace on the next line": (". {\n cache\n {\n  success 5\n }\n}", 3, "`{` stands behind `cache`", "own"),
    "words behind a brace": (". {\n cache {\n } // end\n}", 3, "takes it for another `cache`", "line of its own"),
    "block twice": (". {\n whoami\n}\n.:53 {\n whoami\n}", 4, "line 1 serves that too", "merge"),
    "zone twice": ("a A. {\n whoami\n}", 1, "it is written twice", "merge"),
    "zone twice, once bound": ("a {\n whoami\n}\na {\n bind 127.0.0.1\n whoami\n}", 4, "line 1 serves", "merge"),
    "reverse zone twice": ("10.0.0.0/8 {\n whoami\n}\n10.in-addr.arpa {\n whoami\n}", 4, "line 1", "merge"),
    "plugin twice": (". {\n cache 30\n whoami\n cache 60\n}", 4, "in this server block already, line 2", "merge"),
    "plugin twice, passes": (". {\n log\n whoami\n log\n}", 4, "with the same words", "take one out"),
    "zone with a brace": ("a{\n whoami\n}", 1, "a space is missing before {", "space"),
    "no zone": (":53 {\n whoami\n}", 1, "it has an empty label", "address"),
    "label too long": (f"{'a' * 64} {{\n whoami\n}}", 1, "too long", "address"),
    "port missing": ("a: {\n whoami\n}", 1, "nothing follows the last colon", "address"),
    "no such port": ("a:70000 {\n whoami\n}", 1, "there is no such port", "address"),
    "comma too many": ("a, {\n whoami\n}", 1, "after a comma", "comma"),
    "import of nothing": (". {\n import\n}", 2, "takes one file", "its line"),
    "import of two": (". {\n import a b\n}", 2, "takes one file", "its line"),
    "import of what is not there": (". {\n import nowhere\n}", 2, "finds no snippet and no file", "take it out"),
    "import of two stars": (". {\n import */*.x\n}", 2, "more than one wildcard", "one `*`"),
    "snippet in itself": ("(a) {\n log\n import a\n}\n. {\n import a\n}", 3, "imports itself", "take"),
    "snippets in a circle": (
        "(a) {\n log\n import b\n}\n(b) {\n import a\n}\n. {\n import a\n}",
        6,
        "imports itself",
        "take",
    ),
    "snippet twice": ("(a) {\n log\n}\n(a) {\n log\n}\n. {\n import a\n}", 4, "is there already", "another name"),
    "snippet without a block": ("(a)\nlog\n", 1, "has no block", "open it"),
    "snippet not closed": ("(a) {\n log\n. {\n whoami\n}\n", 1, "is never closed", "line of its own"),
    "quotes not closed": ('. {\n log . "{remote}\n whoami\n}', 2, "never closed", "write"),
    "typo in a block without a zone": ("{\n whomai\n}\n", 2, "Unknown directive", "`whoami`"),
    "block without a zone": ("{\n whoami\n}\n", 1, "a block without a zone", "before it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_line_and_a_remedy(name: str) -> None:
    text, line, part, remedy = WRONG[name]
    there = [each for each in parse_corefile(text, files={}).problems if each.line == line and part in each.text]
    assert there, parse_corefile(text, files={}).problems
    assert remedy in there[0].remedy
    assert str(there[0]).startswith(f"Corefile:{line}: ")


def agrees(said: str, text: str) -> str:
    """Whether CoreDNS and the parser say the same of a Corefile; '' if so. What a plugin says is not the grammar's."""
    problems = parse_corefile(text, files={}, environment={}).problems
    fatal = [each for each in problems if each.fatal]
    where = re.match(r"Corefile:([0-9]+) - ", said)
    named = where is None or any(str(each.line) == where[1] or f"of line {where[1]}" in each.text for each in fatal)
    if "plugin/" in said or (bool(said) == bool(fatal) and (not said or named)):
        return ""
    return f"CoreDNS: {said or 'serves it'}\nparser: {[*map(str, fatal)] or 'serves it'}\n{text}"


def asked(texts: Sequence[str], version: str = "") -> list[str]:
    """What a release of CoreDNS, the newest if none is named, says of each."""
    binary = coredns(version)
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda text: said_by(binary, text), texts))


def test_a_real_coredns_refuses_what_is_said_to_be_refused_and_takes_the_rest() -> None:
    texts = [text for text, *_ in WRONG.values()]
    for text, said in zip([*texts, *SEEDS], asked([*texts, *SEEDS]), strict=True):
        problems = parse_corefile(text, files={}).problems
        assert bool(said) == any(each.fatal for each in problems), f"{text}: {said or 'served'}: {problems}"
        assert not agrees(said, text)


def _documented() -> list[str]:
    modules = Path(os.environ.get("GOMODCACHE") or Path(os.environ.get("GOPATH") or Path.home() / "go", "pkg/mod"))
    source = modules / f"github.com/coredns/coredns@v{NEWEST}"
    if not source.is_dir():
        pytest.skip(f"needs CoreDNS's documentation in {modules}: run `make coredns`")
    pages = [*sorted(source.glob("plugin/*/README.md")), source / "corefile.5.md"]
    fenced = r"^(?:~~~|```) *corefile\n(.*?)^(?:~~~|```)$"
    return [text for page in pages for text in re.findall(fenced, page.read_text(), re.DOTALL | re.MULTILINE)]


def test_every_corefile_of_coredns_s_documentation_is_read_without_a_problem() -> None:
    texts = _documented()
    assert len(texts) > 120
    for text, said in zip(texts, asked(texts), strict=True):
        assert not said or said.startswith("plugin/"), said  # a file or a server that is not here
        assert not parse_corefile(text).problems, text
        assert parse_corefile(text).blocks or text.startswith("(")  # a snippet alone


_BITS = [
    *("{", "}", "\n", "#", '"', "\\", " ", "//", ",", "\r", "\u00a0", "]", "\ufeff", "\n}\n", ":53", ".", "{$X}"),
    *("import ", "import opts\n", "(opts)", "(a) {\n", "log\n", "(a) {\nimport a\n}\n"),
]


def mutated(text: str, random_: random.Random) -> str:
    """With up to three words, lines or pieces put in, taken out or doubled."""
    for _ in range(random_.randint(1, 3)):
        at, lines = random_.randrange(len(text) + 1), text.split("\n")
        line = random_.randrange(len(lines))
        text = random_.choice(
            [
                text[:at] + text[at + random_.randint(1, 3) :],
                text[:at] + random_.choice(_BITS) + text[at:],
                "\n".join([*lines[:line], *lines[line + 1 :]]),
                "\n".join([*lines[:line], lines[random_.randrange(len(lines))], *lines[line:]]),
                text[:at] + text[at // 2 : at // 2 + 20] + text[at:],
            ]
        )
    return text


def test_of_200_mutated_corefiles_a_real_coredns_says_the_same() -> None:
    texts = [mutated(SEEDS[n % len(SEEDS)], random.Random(n)) for n in range(200)]
    answers = asked(texts)
    assert 40 < sum(map(bool, answers)) < 190
    assert not list(filter(None, map(agrees, answers, texts)))


@settings(max_examples=200, deadline=None)
@given(
    st.builds(mutated, st.sampled_from(SEEDS), st.randoms(use_true_random=False))
    | st.text(alphabet=st.sampled_from('{}()"\\#\n\r ,.:/*[]$%aimport \u00a0\ufeff\x00'), max_size=200)
    | st.lists(st.sampled_from([*_BITS, "{\n", "import b\n", "(b) {\n"])).map("".join)
)
def test_no_text_breaks_the_parser_and_lines_are_where_words_are(text: str) -> None:
    files = {"b": text, "c.server": text[::2]}
    read = parse_corefile(text, files, {"X": "{$X}x", "aim": "{$aim}{$aim}"})
    lines = {name: content.split("\n") for name, content in {"": text, **files}.items()}
    for problem in read.problems:
        assert 1 <= problem.line <= len(lines[problem.file])
    for block in parse_corefile(text, files).blocks:
        stack = list(block.directives)
        while stack:
            one = stack.pop()
            stack += one.block
            first = _plain(one.name.split("\n")[0])
            assert first in _plain(lines[one.file][one.line - 1])
            assert one.line <= one.last_line <= len(lines[one.file])


def _plain(text: str) -> str:
    """Without what the lexer takes out."""
    return re.sub(r'[\r"\\]', "", text)


HOSTILE = {
    "deep": "a {\n" * 20_000,
    "deep, closed": ". {\n" + "a {\n" * 5_000 + "}\n" * 5_001,
    "zones": " ".join(f"z{n}" for n in range(30_000)),
    "the same zone": "a " * 30_000,
    "reverse zones": " ".join(f"10.{n}.0.0/9" for n in range(256)),
    "laughs": "".join(f"(s{n}) {{\n import s{n - 1}\n import s{n - 1}\n}}\n" for n in range(1, 60))
    + ". {\n import s59\n}",
    "quotes": '"' + 'a\\"' * 100_000,
    "backslashes": '"' + "\\" * 100_001,
    "one word": "a" * 1_000_000,
    "spaces": " " * 1_000_000,
    "comments": "#" * 1_000_000,
    "references": "{$A}" * 30_000,
    "carriage returns": "a\r" * 300_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_corefile_is_read_in_its_time(name: str) -> None:
    started = time.process_time()
    parse_corefile(HOSTILE[name], {"s-1": "log\n" * 1_000}, {"A": "{$A}{$A}"})
    assert time.process_time() - started < 5


_ARGUMENTS = {"forward": ". 127.0.0.1"}


RELEASES = (NEWEST, "1.9.3", "1.8.0", "1.6.9")


@pytest.mark.parametrize("version", [pytest.param(version, marks=asking(version)) for version in RELEASES])
def test_the_plugins_and_properties_of_a_release_are_those_of_the_real_one(version: str) -> None:
    names = [*PLUGINS, "no_such"]
    pairs = [(plugin, name) for plugin, known in PROPERTIES.items() for name in [*known, "no_such"]]
    pairs = [(plugin, name) for plugin, name in pairs if PLUGINS[plugin].within(version)]
    texts = [f". {{\n {name}\n}}\n" for name in names]
    texts += [f". {{\n {plugin} {_ARGUMENTS.get(plugin, '')} {{\n  {name}\n }}\n}}\n" for plugin, name in pairs]
    answers = asked(texts, "" if version == NEWEST else version)
    for name, said in zip(names, answers, strict=False):
        known = name in PLUGINS and PLUGINS[name].within(version)
        assert ("Unknown directive" in said) != known, (name, said)
    for (plugin, name), said in zip(pairs, answers[len(names) :], strict=True):
        there = PROPERTIES[plugin].get(name)
        known = there is not None and there.within(version)
        assert "unknown" not in said.lower() if known else said, (plugin, name, said)
