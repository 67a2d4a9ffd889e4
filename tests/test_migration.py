"""Corefiles brought from one release of CoreDNS to another: the real ones take the before and the after."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.audit.migration import migrate
from probe.audit.releases import MIGRATIONS, Kind
from probe.corefile import NEWEST, parse_corefile, release_of
from probe.errors import UsageError
from tests.oracle import asking, coredns, said_by
from tests.test_corefile import KUBERNETES, SEEDS, mutated

API = "endpoint http://127.0.0.1:1"


def root(*lines: str) -> str:
    return "\n".join([".:53 {", *(f"    {line}" for line in lines), "}", ""])


def kubernetes(*lines: str) -> str:
    inner = (f"    {line}" for line in (API, *lines))
    return root("errors", "kubernetes cluster.local in-addr.arpa { # ours", *inner, "}", "cache 30")


HANDED_OUT = kubernetes().replace(
    "    }\n    cache", "    }\n    transfer cluster.local in-addr.arpa {\n        to * 127.0.0.2\n    }\n    cache"
)
REMOVED, IGNORED, DEPRECATED, DEFAULT = Kind.REMOVED, Kind.IGNORED, Kind.DEPRECATED, Kind.DEFAULT
FORWARD = root("forward . 127.0.0.1 {", "    max_concurrent 1000", "}")

FIRST = kubernetes().replace(API, f"{API} # two")
BOUND = root("forward . 127.0.0.1 { # up", "    max_concurrent 1000", "}")

# The running and the target release, the Corefile, what becomes of it, and what is said first, of which line. The
# running release takes the text, the target what becomes of it; what is removed the target refuses.
MIGRATED = {
    "resyncperiod": ("1.6.9", "1.7.0", kubernetes("resyncperiod"), kubernetes(), REMOVED, 5),
    "resyncperiod, ignored": ("1.6.9", "1.6.9", kubernetes("resyncperiod"), kubernetes(), IGNORED, 5),
    "upstream": ("1.6.9", "1.7.0", kubernetes("upstream 127.0.0.1 # old"), kubernetes(), REMOVED, 5),
    "upstream, ignored": ("1.6.9", "1.6.9", kubernetes("upstream"), kubernetes(), IGNORED, 5),
    "transfer": ("1.7.0", "1.8.0", kubernetes("transfer to *", "transfer to 127.0.0.2"), HANDED_OUT, REMOVED, 5),
    "federation": (
        *("1.6.9", "1.7.0", root("errors", "federation c.local {", "    prod us.example", "}", "whoami")),
        *(root("errors", "whoami"), REMOVED, 3),
    ),
    "two endpoints": (
        *("1.9.3", "1.15.0", kubernetes().replace(API, f"{API} http://127.0.0.1:2 # two"), FIRST, IGNORED, 4),
    ),
    "file": (
        *("1.7.0", "1.9.3", root("file db.x a b {", "    transfer to *", "}", "errors")),
        *(root("file db.x a b {", "}", "transfer a b {", "    to *", "}", "errors"), REMOVED, 3),
    ),
    "auto": (
        *("1.7.0", "1.8.0", root("auto {", "    upstream", "    transfer to 127.0.0.2", "}")),
        *(root("auto {", "}", "transfer {", "    to 127.0.0.2", "}"), IGNORED, 3),
    ),
    "secondary": (
        *("1.7.0", "1.15.0", root("secondary a {", "    transfer from 127.0.0.1", "    upstream", "}")),
        *(root("secondary a {", "    transfer from 127.0.0.1", "}"), REMOVED, 4),
    ),
    "secondary, handed on": (
        *("1.7.0", "1.8.0", root("secondary a {", "    transfer from 127.0.0.1", "    transfer to *", "}")),
        *(root("secondary a {", "    transfer from 127.0.0.1", "}", "transfer a {", "    to *", "}"), REMOVED, 4),
    ),
    "template": (
        *("1.9.3", "1.15.0", root("template IN A {", "    rcode NXDOMAIN", "    upstream", "}")),
        *(root("template IN A {", "    rcode NXDOMAIN", "}"), IGNORED, 4),
    ),
    "header": (
        *("1.9.3", "1.15.0", root("header {", "    set aa # always", "    clear ra", "}", "whoami")),
        *(root("header {", "    response set aa # always", "    response clear ra", "}", "whoami"), REMOVED, 3),
    ),
    "forward": ("1.6.9", "1.9.3", root("forward . 127.0.0.1 # up"), BOUND, DEFAULT, 2),
    "forward with a block": (
        *("1.6.9", "1.7.0", FORWARD.replace("max_concurrent 1000", "prefer_udp")),
        *(FORWARD.replace("        max", "        prefer_udp\n        max"), DEFAULT, 2),
    ),
    "bufsize": ("1.9.3", "1.15.0", root("bufsize", "whoami"), root("bufsize", "whoami"), DEFAULT, 2),
    "a typical one": ("1.9.3", "1.15.0", KUBERNETES, KUBERNETES, DEFAULT, 14),
}


@pytest.mark.parametrize("name", MIGRATED)
def test_a_corefile_is_brought_to_a_later_release(name: str) -> None:
    running, target, before, after, kind, line = MIGRATED[name]
    made = migrate(before, running, target)
    assert made.text == after
    assert [(each.kind, each.line) for each in made.changes][:1] == [(kind, line)]
    assert not made.unsupported
    assert bool(made.diff) == (made.text != before)
    again = migrate(made.text, target, target)
    assert (again.text, again.changes) == (made.text, ())


@pytest.mark.parametrize("name", [pytest.param(name, marks=asking(*row[:2])) for name, row in MIGRATED.items()])
def test_the_real_ones_take_the_before_and_the_after(name: str) -> None:
    running, target, before, _, kind, _ = MIGRATED[name]
    new = coredns("" if target == NEWEST else target)
    assert not said_by(coredns(running), before)
    assert not said_by(new, migrate(before, running, target).text)
    refused = any(each.kind is REMOVED for each in migrate(before, running, target).changes)
    assert bool(said_by(new, before)) == refused, kind


@pytest.mark.releases
def test_a_resyncperiod_with_a_value_is_refused_even_where_it_is_said_to_be_ignored() -> None:
    made = migrate(kubernetes("resyncperiod 5m"), "1.6.9", "1.6.9")
    assert [each.kind for each in made.changes] == [REMOVED]
    assert made.text == kubernetes()
    old = coredns("1.6.9")
    assert "unknown property '5m'" in said_by(old, kubernetes("resyncperiod 5m"))
    assert not said_by(old, made.text)


@pytest.mark.parametrize(
    ("text", "target", "subject", "why"),
    [
        (root("records {", "}"), "1.14.2", "`records`", "must have it compiled in"),
        (root("view a {", "    expr true", "}"), "1.9.3", "`view`", "1.10.0 is the first release that has it"),
        (root("forward . 127.0.0.1 {", "    max_concurrent 9", "    next NXDOMAIN", "}"), "1.9.3", "`next`", "1.11.4"),
        (root("health {", "    lamedukc 5s", "}"), "1.9.3", "`lamedukc`", "no release knows it"),
        (root("proxy . 127.0.0.1"), "1.9.3", "`proxy`", "write `forward`"),
        (root("forward . 127.0.0.1", "forward a 127.0.0.1"), "1.9.3", "`forward`", "holds it once"),
        (root("kubernetes { transfer to *", "}"), "1.9.3", "`transfer` of `kubernetes`", "outgoing zone transfers"),
    ],
)
def test_what_is_not_ours_to_decide_is_left_and_named(text: str, target: str, subject: str, why: str) -> None:
    made = migrate(text, target, target)
    assert made.text == text
    (change,) = made.unsupported
    assert change.subject.startswith(subject)
    assert why in change.why
    assert str(change).startswith(f"Corefile:{change.line}: ")
    assert said_by(coredns("" if target == NEWEST else "1.9.3"), text)


def test_files_that_are_imported_are_migrated_in_their_place() -> None:
    text = "(opts) {\n    transfer to *\n}\n" + kubernetes("import opts").replace(
        "    cache", "    import *.x\n    cache"
    )
    files = {"a.x": "header {\n    set aa\n}\n", "b.x": "log\n"}
    made = migrate(text, "1.7.0", NEWEST, files)
    assert made.after["a.x"] == "header {\n    response set aa\n}\n"
    assert made.after["b.x"] == files["b.x"]
    assert made.text.startswith("(opts) {\n}\n.:53 {")
    assert "    transfer cluster.local in-addr.arpa {\n        to *\n    }\n    import *.x\n" in made.text
    assert [line for line in made.diff.splitlines() if line.startswith("+++")] == [
        "+++ Corefile (CoreDNS 1.15.0)",
        "+++ a.x (CoreDNS 1.15.0)",
    ]


@pytest.mark.parametrize(
    ("running", "target", "said"),
    [
        ("1.13.0", "1.14.5", "go to the next plugin"),
        ("1.14.5", "1.14.7", "end there, as before 1.14.5"),
        ("1.13.0", "1.14.7", ""),
        ("", "1.14.5", ""),
        ("1.14.5", "1.13.0", ""),
    ],
)
def test_a_new_default_is_named_where_it_is_new(running: str, target: str, said: str) -> None:
    text = root("hosts {", "    10.0.0.1 a", "    fallthrough", "}")
    changes = migrate(text, running, target).changes
    assert bool(changes) == bool(said)
    assert all(said in each.why and each.kind is DEFAULT for each in changes)


@pytest.mark.parametrize("target", ["", "latest", "1.6.4", "1.x"])
def test_a_target_that_the_table_does_not_reach_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match=r"name a release from 1\.6\.5 on"):
        migrate(KUBERNETES, "1.9.3", target)


def test_rules_have_their_releases_in_order_and_a_source() -> None:
    for rule in MIGRATIONS:
        assert release_of(rule.release)
        assert not rule.until or release_of(rule.release) < release_of(rule.until) <= release_of(NEWEST)
        assert rule.why
        assert rule.source


@settings(max_examples=100, deadline=None)
@given(st.builds(mutated, st.sampled_from([*SEEDS, *(one[2] for one in MIGRATED.values())]), st.randoms()))
def test_no_corefile_breaks_it_and_other_lines_stay(text: str) -> None:
    made = migrate(text, "1.6.9", NEWEST)
    touched = {each.line for each in made.changes if each.done}
    kept = [line for n, line in enumerate(text.split("\n"), 1) if n not in touched]
    if not touched:
        assert made.text == text
    assert not {line for line in kept if line.lstrip().startswith("#")} - set(made.text.split("\n"))
    parse_corefile(made.text)
