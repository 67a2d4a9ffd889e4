"""The JSON Schema of scenarios: every one that runs fits it, and what is misspelt does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from probe.scenario.file import shipped_scenarios
from probe.scenario.schema import scenario_schema
from probe.scenario.steps import STEPS
from tests.test_cli import told

SCHEMA = Draft202012Validator(scenario_schema())
SHIPPED = shipped_scenarios()
GOOD = """\
name: x
duration: 10s
lab: {replicas: 2, propagation: [1s, 2s to 3s], udp_timeout: 300s}
lanes:
- {name: a, target: service, rate: 10, questions: [a.test, {name: b.test, type: A}]}
- {name: b, target: pods, ramp: {from: 1, to: 1/2, over: 5s}, questions: [a.test]}
steps: [restart, wait: 2s, scale: 1]
clients: {profiles: [glibc], names: [a.test]}
"""


def wrong(text: str) -> list[str]:
    """Where it does not fit."""
    return [error.json_path for error in SCHEMA.iter_errors(yaml.safe_load(text))]


def test_it_is_a_schema_and_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    Draft202012Validator.check_schema(scenario_schema())
    code, out, _ = told("scenarios --schema", capsys)
    assert (code, json.loads(out)) == (0, scenario_schema())


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_fits(name: str) -> None:
    assert wrong(SHIPPED[name].read_text()) == []


@pytest.mark.parametrize(
    ("put", "instead", "where"),
    [
        ("", "", []),
        ("duration: 10s\n", "", ["$"]),
        ("duration:", "durration:", ["$", "$"]),
        ("replicas: 2", "replica: 2", ["$.lab"]),
        ("target: pods", "target: [pods]", ["$.lanes[1].target"]),
        ("name: b, target", "transport: upd, name: b, target", ["$.lanes[1].transport"]),
        ("questions: [a.test]", "questions: []", ["$.lanes[1].questions"]),
        ("over: 5s", "for: 5s", ["$.lanes[1].ramp"]),
        ("scale: 1", "scall: 1", ["$.steps[2]"]),
        ("[restart, wait: 2s", "[restart, {wait: 2s, scale: 3}", ["$.steps[1]"]),
        ("profiles: [glibc], ", "", ["$.clients"]),
    ],
)
def test_what_is_misspelt_does_not_fit(put: str, instead: str, where: list[str]) -> None:
    assert sorted(wrong(GOOD.replace(put, instead))) == where


def test_every_step_is_known_by_its_word_and_said_what_it_does() -> None:
    (mapping, words) = _steps(scenario_schema())["anyOf"]
    assert list(mapping["properties"]) == words["enum"] == list(STEPS)
    assert all(one["description"] == STEPS[word].help for word, one in mapping["properties"].items())


def _steps(schema: dict[str, Any]) -> Any:
    return schema["properties"]["steps"]["items"]
