"""A Corefile -> what a real CoreDNS says of it: '' where it would serve it, else the line with which it ends.

It runs in a network namespace of its own, without any link: whatever a Corefile names, nothing leaves it.
"""

import functools
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from probe.cluster.images import choose_coredns, find_coredns
from probe.errors import EnvironmentProblem

AT_HAND = ("1.15.0", "1.9.3")
"""Releases that every test may ask; what needs another one is marked `releases`."""
_SERVES = re.compile(r"^\S+:\d+( on \S+)?$|^CoreDNS-|^linux/|waiting for Kubernetes|Failed to (list|watch)")
_PASSES = re.compile(r"^maxprocs|^Warning|\[(ERROR|WARNING|INFO)]|^[EWI][0-9]{4} ")
_ALONE = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net"]


def asking(*versions: str) -> Sequence[pytest.MarkDecorator]:
    """The marks of a test that asks those releases."""
    return [] if {*versions} <= {*AT_HAND} else [pytest.mark.releases]


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
        alone = [*_ALONE, "sh", "-c", 'ip link set lo up; exec timeout --signal KILL 20 "$0" -conf Corefile']
        with subprocess.Popen(
            [*alone, binary], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout
            try:
                for line in process.stdout:
                    if _SERVES.search(line):
                        return ""
                    if not _PASSES.search(line):
                        return line.strip()
            finally:
                with suppress(ProcessLookupError):  # its group is that of `timeout`: no lameduck is waited for
                    os.killpg(process.pid, signal.SIGKILL)
    return "it ended, or was ended, without a word"
