"""The sdist and the wheel, built from what is tracked: they hold what they must and nothing else; installed, they work.

Without a registry: what dnsprobe needs is that of this environment. `make package` installs all of it anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from probe import __version__
from probe.scenario.file import shipped_scenarios
from tests.test_house import ROOT, tracked
from tests.test_upgrades import restored

KEPT_BESIDE = {"scenarios": "probe/_scenarios", "deploy": "probe/_deploy"}


@dataclass(frozen=True)
class Built:
    """The files, and a folder in which the wheel is installed."""

    sdist: Path
    wheel: Path
    from_sdist: Path
    site: Path

    def run(self, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """`dnsprobe COMMAND` of the wheel, as somebody else."""
        environment = {"PYTHONPATH": str(self.site), "PATH": "", "HOME": str(folder), "TERM": "dumb"}
        words = [sys.executable, "-m", "probe.cli", *command.split()]
        return subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )


def _built(source: Path, target: str) -> Path:
    (source / "dist").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", target]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (found,) = (source / "dist").glob("*.whl" if target == "wheel" else "*.tar.gz")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    if not find_spec("hatchling"):
        pytest.skip("needs hatchling: run `make install`")
    folder = tmp_path_factory.mktemp("package")
    for path in tracked():
        copy = folder / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    sdist, wheel = (_built(folder / "source", target) for target in ("sdist", "wheel"))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    from_sdist = _built(folder / "unpacked" / sdist.name.removesuffix(".tar.gz"), "wheel")
    with zipfile.ZipFile(from_sdist) as archive:
        archive.extractall(folder / "site")  # noqa: S202  we have just made it
    return Built(sdist, wheel, from_sdist, folder / "site")


def held(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_code_with_scenarios_and_manifests_beside_it(built: Built) -> None:
    wanted = set()
    for path in tracked():
        top, *rest = path.relative_to(ROOT).parts
        if top == "probe" or top in KEPT_BESIDE:
            wanted.add("/".join([KEPT_BESIDE.get(top, top), *rest]))
    assert held(built.wheel) == held(built.from_sdist) == wanted
    assert {"probe/report/page.css", "probe/report/page.js", "probe/_deploy/base/job.yaml"} <= wanted


def test_the_sdist_holds_what_tests_need(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    ours = {str(path.relative_to(ROOT)) for path in tracked()}
    assert {name for name in ours - names if not name.startswith(".")} == set()
    assert names - ours <= {"PKG-INFO"}


def test_what_is_installed_works_without_the_checkout(built: Built, tmp_path: Path) -> None:
    assert built.run("--version", tmp_path).stdout == f"dnsprobe {__version__}\n"
    listed = built.run("scenarios", tmp_path).stdout
    assert [name for name in shipped_scenarios() if f"{name}: " not in listed] == []
    assert "kind: Job" in built.run("manifests watch-upgrade --image registry.example.com/x", tmp_path).stdout
    done = built.run(f"report {restored(1, tmp_path)} --html run.html", tmp_path)
    assert (done.returncode, done.stdout.partition(":")[0]) == (1, "FAIL")
    page = (tmp_path / "run.html").read_text()
    assert [
        name for name in ("page.css", "page.js") if (ROOT / "probe/report" / name).read_text().strip() not in page
    ] == []
