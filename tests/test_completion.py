"""Completion in bash, zsh and fish themselves: what TAB would offer; and no other command writes into a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probe.scenario.file import shipped_scenarios
from tests.servers import need
from tests.test_cli import ROOT, told

ASK = {
    "bash": (
        "{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _dnsprobe_completion dnsprobe\n"
        "echo ${{COMPREPLY[@]}}"
    ),
    "zsh": (
        "_arguments() {{ print -- $@; }}; compdef() {{ :; }}\n{script}\n"
        "words=({words}); CURRENT=$#words; _dnsprobe_completion"
    ),
    "fish": "{script}\ncomplete --do-complete '{words}'",
}
"""Words of each shell that load its script and then do what TAB does."""
SCALES = [name for name in shipped_scenarios() if name.startswith("scale-")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and a folder on PATH that has `dnsprobe`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "dnsprobe"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m probe.cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path / "home"


def installed(shell: str, home: Path) -> str:
    """What `dnsprobe --install-completion`, typed into that shell, wrote for it."""
    need(shell, "make servers")
    subprocess.run([shell, "-c", "dnsprobe --install-completion; true"], check=True, capture_output=True, timeout=60)
    (script,) = [path for path in home.rglob("*dnsprobe*") if path.is_file()]
    return script.read_text()


def offered(shell: str, script: str, words: str) -> str:
    code = ASK[shell].format(script=script, words=words)
    done = subprocess.run([shell, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_offers_commands_options_and_scenarios(shell: str, home: Path) -> None:
    script = installed(shell, home)
    assert {"recommend", "report"} <= set(
        offered(shell, script, "dnsprobe re").replace(":", " ").replace('"', " ").split()
    )
    assert "scale-to-zero" in offered(shell, script, "dnsprobe run scale-")
    assert "--linger-scrapes" in offered(shell, script, "dnsprobe run --ling")


@pytest.mark.parametrize("command", ["scenarios", "run baseline --lab --dry-run", "doctor --format json", "--help"])
def test_no_other_command_writes_into_a_home(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = told(command, capsys)
    assert code == 0
    assert list(home.rglob("*")) == []
