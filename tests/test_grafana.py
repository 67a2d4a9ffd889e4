"""What is generated under grafana/ is what its source says, and a drift is told with its remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from grafana.files import FILES, drifted, write

ROOT = Path(__file__).parents[1]


def test_generated_files_are_what_their_sources_say() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "grafana", "--check"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_a_drift_is_found_and_mended(tmp_path: Path) -> None:
    assert write(tmp_path) == list(FILES)
    victim = next(iter(FILES))
    (tmp_path / victim).write_text("{}\n")
    assert drifted(tmp_path) == [victim]
    assert write(tmp_path) == [victim]
    assert drifted(tmp_path) == []
