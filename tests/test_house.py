"""The house's own rules, read from its files: floors, first lines, help texts, pins, what the manual must name."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from enum import IntEnum
from pathlib import Path

import pytest

import probe
from probe.audit import CHECKS
from probe.exporter.catalogue import METRICS
from probe.outcome import COUNTER_HELP, MEANINGS, UNSENT_HELP, Counter, Outcome, UnsentCause

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
MODULES = sorted(path for folder in ("probe", "tests", "bench", "grafana") for path in (ROOT / folder).rglob("*.py"))

REGISTRIES = (
    "TRANSPORTS",
    "PACERS",
    "STEPS",
    "CHECKS",
    "RULES",
    "REPORTS",
    "CLIENTS",
    "MEASURES",
    "DOUBTS",
    "METRICS",
    "EXAMINATIONS",
)
NOT_YET_IN_MANUAL: set[str] = set()
"""Registries without a table in the README yet. A table opens with `<!-- STEPS -->` and ends at the next heading."""


def tracked() -> list[Path]:
    """The files of the repository, as git knows them."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout: run `git clone`")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_one_sentence(path: Path) -> None:
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    assert first.endswith("."), f"{path}: the docstring's first line is one sentence: what goes in, what comes out"
    assert not re.search(r"[.!?] [A-Z]", first), f"{path}: {first!r} is more than one sentence"


def test_no_machine_and_no_registry_is_named() -> None:
    foreign = re.compile(
        r"/(work|root|opt|home/\w+|Users/\w+)/|/tmp/\w|pypi[.]org|pythonhosted[.]org|(proxy|sum)[.]golang"
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        for match in foreign.finditer(path.read_bytes().decode(errors="replace"))
    ]
    assert found == []


def test_the_map_of_the_house_and_the_import_contract_agree() -> None:
    floors = {name: int(floor) for floor, name in re.findall(r"^    (\d) (\w+)/? ", probe.__doc__ or "", re.MULTILINE)}
    layers = next(c["layers"] for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    order = [re.findall(r"\w+", layer) for layer in layers]
    assert set(floors) <= {name for layer in order for name in layer}
    heights = [{floors[name] for name in layer if name in floors} for layer in order]
    assert all(len(layer) <= 1 for layer in heights), "modules of one layer stand on different floors"
    steps = [height for layer in heights for height in layer]
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize(("kind", "texts"), [(Outcome, MEANINGS), (Counter, COUNTER_HELP), (UnsentCause, UNSENT_HELP)])
def test_everything_counted_has_help(kind: type[IntEnum], texts: dict[IntEnum, object]) -> None:
    assert list(texts) == list(kind)
    assert all(str(getattr(text, "help", text)).strip() for text in texts.values())


def test_the_manual_explains_every_outcome_as_the_code_does() -> None:
    rows = [f"| `{outcome.label}` | {meaning.help} | {meaning.blame.value} |" for outcome, meaning in MEANINGS.items()]
    assert "\n".join(rows) in README


def test_the_manual_explains_every_counter_as_the_code_does() -> None:
    assert "\n".join(f"| `{counter.label}` | {text} |" for counter, text in COUNTER_HELP.items()) in README


def test_the_manual_explains_every_metric_as_the_code_does() -> None:
    rows = [
        f"| `{name}` | {metric.type} | {', '.join(f'`{label}`' for label in metric.labels) or '-'} | {metric.help} |"
        for name, metric in METRICS.items()
    ]
    assert "\n".join(rows) in README


def test_the_manual_explains_every_check_as_the_code_does() -> None:
    rows = [f"| `{check.id}` | {check.title} | {check.why} |" for check in CHECKS.values()]
    assert "\n".join(rows) in README


def _entries(registry: str) -> list[str]:
    """The keys of a registry, wherever in probe/ it stands; none if nobody has written it yet."""
    assigned = re.compile(rf"^{registry}\b.*=", re.MULTILINE)
    homes = [path for path in MODULES if path.is_relative_to(ROOT / "probe") and assigned.search(path.read_text())]
    assert len(homes) <= 1, f"{registry} stands in {homes}"
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in homes]
    return [str(key) for name in names for key in getattr(importlib.import_module(name), registry)]


@pytest.mark.parametrize("registry", REGISTRIES)
def test_the_manual_names_what_can_be_chosen(registry: str) -> None:
    table = re.search(rf"<!-- {registry} -->(.*?)(?=^#|\Z)", README, re.MULTILINE | re.DOTALL)
    assert (table is None) == (registry in NOT_YET_IN_MANUAL)
    if table:
        assert [entry for entry in _entries(registry) if f"`{entry}`" not in table[1]] == []


def test_what_is_tested_is_pinned_by_hash_and_by_no_address() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
        told = [line for line in lines if line and not line.startswith("#")]
        assert [x for x in told if not re.fullmatch(r"[a-z0-9.-]+==\S+ \\|--hash=sha256:[0-9a-f]{64}( \\)?", x)] == []
    pinned = re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    pinned += re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    wanted = PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]
    assert {re.split(r"[><=\[]", text)[0].lower() for text in wanted} <= set(pinned)


@pytest.mark.parametrize(
    ("strict", "reason", "ending"),
    [
        ("0", "needs knotd: run `make servers`", "1 skipped"),
        ("1", "needs knotd: run `make servers`", "1 failed"),
        ("1", "needs IPv6: this machine's loopback has no ::1", "1 skipped"),
    ],
)
def test_where_everything_is_installed_a_skip_is_a_failure(
    tmp_path: Path, strict: str, reason: str, ending: str
) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef test_it(): pytest.skip({reason!r})\n")
    said = by_this_conftest(tmp_path, NO_SKIP=strict)
    assert ending in said.splitlines()[-1], said
    assert reason in said


def by_this_conftest(folder: Path, *options: str, **environment: str) -> str:
    """What pytest says of the tests in a folder, by this house's conftest."""
    always = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-rA"]
    command = [sys.executable, "-m", "pytest", *always, *options, str(folder)]
    settings = os.environ | {f"DNSPROBE_{name}": value for name, value in environment.items()}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=settings, timeout=60
    ).stdout


def test_a_test_that_is_tried_again_has_the_runs_of_its_module_made_again(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""import pytest
made = []
@pytest.fixture(scope="module")
def runs():
    made.append(1)
    return len(made)
def test_it(runs):
    assert runs == 3
""")
    assert "1 passed, 2 rerun" in by_this_conftest(tmp_path, "--reruns", "2")


def test_a_signal_that_a_test_left_ignored_is_not_ignored_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""import signal
def test_first():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def test_second():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
""")
    assert "2 passed" in by_this_conftest(tmp_path)
