"""What a run asks for -> what the server counts: no second has more, whatever happens meanwhile."""

from __future__ import annotations

import ast
import re
from itertools import accumulate
from pathlib import Path

import pytest

from tests.drilling import Result
from tests.loads import LOADS, Counted, Load, Seen, wrong
from tests.test_house import ROOT


@pytest.mark.parametrize("name", [name for name, load in LOADS.items() if load.is_short])
def test_a_server_counts_no_more_than_was_asked_for(name: str, tmp_path: Path) -> None:
    load = LOADS[name]
    if load.lacks:
        pytest.skip(f"needs {load.lacks}: sudo make servers, then sudo make test")
    assert wrong(load, load.run(tmp_path)) == []


@pytest.mark.parametrize(
    ("tenths", "said"),
    [
        ([20] * 40, ""),
        ([20] * 10 + [0] * 20 + [400] + [20] * 9, "580 queries in 1.11 s, where 200 a second were asked for"),
        ([30] * 40, "1200 queries in all, where 200 a second were asked for"),
        ([20] * 39 + [21], "801 queries counted, where 800 are said to be sent"),
        ([20] * 39, "780 queries counted, where 800 are said to be sent"),
    ],
)
def test_what_is_too_much_is_found(tenths: list[int], said: str) -> None:
    totals = accumulate(tenths, initial=1000)
    seen = tuple(Seen(k / 10, k / 10 + 0.01, total) for k, total in enumerate(totals))
    found = wrong(Load("drawn", 200), Counted(Result(0, (), planned=800, end_s=4.0), seen))
    assert bool(found) == bool(said)
    assert said in "; ".join(found)


# -- docs/harm.md


PAGE = (ROOT / "docs" / "harm.md").read_text()
REFUSALS = [
    tuple(row) for row in re.findall(r"^\| (.+) \| `` (.+) `` \| (\S+) \| `(\S+)::(\S+)` \|$", PAGE, re.MULTILINE)
]


@pytest.mark.parametrize(("said", "file", "name"), [(said, file, name) for _, said, _, file, name in REFUSALS])
def test_each_refusal_that_the_page_names_is_what_a_test_asserts(said: str, file: str, name: str) -> None:
    """The test is there, and its own text, or a table that it names, has the sentence."""
    text = (ROOT / "tests" / file).read_text()
    tree = ast.parse(text)
    (function,) = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name]
    begin = min([function.lineno, *(each.lineno for each in function.decorator_list)])
    mine = "\n".join(text.splitlines()[begin - 1 : function.end_lineno])
    constants = [each.value for each in ast.walk(ast.parse(mine)) if isinstance(each, ast.Constant)]
    told = "\n".join(each.replace("\\", "") for each in constants if isinstance(each, str))
    assert said in told or said in mine or any(said in registry(name, text) for name in re.findall(r"[A-Z_]{4,}", mine))


def registry(name: str, text: str) -> str:
    """A table of this name in a test's file."""
    found = re.search(rf"^{name} = \[.*?^\]", text, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def test_the_page_has_every_load_and_every_refusal() -> None:
    assert len(REFUSALS) > 30
    assert PAGE.count("::test_") == len(REFUSALS), "a row that is not read as one"
    assert [load.what for load in LOADS.values() if f"\n| {load.what} | {load.asked:,.0f} |" not in PAGE] == []
