"""Faults -> whole runs that go through them: the short ones; `make drills` has them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drills import DRILLS, wrong


@pytest.mark.parametrize("name", [name for name, drill in DRILLS.items() if drill.is_short])
def test_a_run_loses_nothing_but_its_last_second_and_says_what_happened(name: str, tmp_path: Path) -> None:
    drill = DRILLS[name]
    if drill.lacks:
        pytest.skip(f"needs {drill.lacks}: sudo make servers, then sudo make test")
    result = drill.run(tmp_path)
    assert not wrong(drill, result), result
