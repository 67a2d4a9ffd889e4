"""A Corefile -> what a real CoreDNS says of it: '' where it would serve it, else the line with which it ends.

It runs in a network namespace of its own, without any link: whatever a Corefile names, nothing leaves it.
"""

import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from probe.cluster.images import choose_coredns, find_coredns
from probe.errors import EnvironmentProblem

_SERVES = re.compile(r"\S+:\d+( on \S+)?$|CoreDNS-|linux/")
_ALONE = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net"]


@functools.cache
def coredns(version: str = "") -> Path:
    """That release, the newest if none is named; skips the test where it is missing."""
    if subprocess.run([*_ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a network namespace: run as root")
    try:
        found = choose_coredns(version) if version else find_coredns()
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    if found is None:
        pytest.skip("needs the real CoreDNS: run `make coredns`")
    return found


def said_by(binary: Path, text: str, files: Mapping[str, str] | None = None) -> str:
    """Within 20 s. files: by their path from the Corefile."""
    with tempfile.TemporaryDirectory() as home:
        for name, content in {"Corefile": text, **(files or {})}.items():
            path = Path(home, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        command = ["sh", "-c", 'ip link set lo up; exec "$@"', "sh", "timeout", "20", str(binary), "-conf", "Corefile"]
        with subprocess.Popen(
            [*_ALONE, *command], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout
            try:
                for line in process.stdout:
                    if _SERVES.match(line):
                        return ""
                    if not line.startswith(("maxprocs", "Warning")) and not re.search(r"\[(ERROR|WARNING|INFO)]", line):
                        return line.strip()
            finally:
                process.terminate()
    return "it ended, or was ended, without a word"
