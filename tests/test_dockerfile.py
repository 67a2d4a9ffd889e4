"""The Dockerfile, built on this machine's own Python: what is in the image works for anybody on a read-only root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import prober
from tests.servers import need

ANYBODY = "4711:4711"


@dataclass(frozen=True)
class Built:
    """The image: its configuration, and its root as a folder."""

    config: dict[str, object]
    root: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`dnsprobe WORDS` in it: its root is read-only, /data is a file system of its own, the user is ANYBODY."""
        inside = (
            f"mount --bind {self.root} {self.root} && mount -o remount,ro,bind {self.root}"
            f" && mount -t tmpfs -o mode=1777 tmpfs {self.root}/data"
            f" && mount -t proc proc {self.root}/proc && mount --rbind /dev {self.root}/dev"
            f" && exec chroot --userspec={ANYBODY} {self.root}"
            """ sh -c 'cd /data && exec /usr/local/dnsprobe/bin/dnsprobe "$@"' sh "$@" """
        )
        command = ["unshare", "--mount", "--propagation=private", "sh", "-c", inside, "sh", *words]
        environment = {"TMPDIR": "/data", "PATH": os.environ["PATH"]}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    if os.geteuid() != 0:
        pytest.skip("needs root: run `sudo make test`")
    program, folder = need("buildah", "make servers"), tmp_path_factory.mktemp("buildah")

    def buildah(*words: str) -> str:
        stored = [f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs"]
        done = subprocess.run([program, *stored, *words], capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    base = folder / "base.tar"
    prober.write_base(base)
    buildah("pull", "--quiet", f"oci-archive:{base}")
    base.unlink()
    local = ["--isolation=chroot", "--network=host", "--pull-never", f"--build-arg=BASE={prober.BASE}"]
    buildah("build", *local, "--tag=localhost/dnsprobe:built", str(prober.PROJECT))
    config = json.loads(buildah("inspect", "--type=image", "localhost/dnsprobe:built"))["OCIv1"]["config"]
    container = buildah("from", "--pull-never", "localhost/dnsprobe:built")
    root = Path(buildah("mount", container))
    for name in ("proc", "dev"):
        (root / name).mkdir(exist_ok=True)
    yield Built(config, root)
    buildah("rm", "--all")
    shutil.rmtree(folder)


def test_it_is_a_command_and_nobody_s(built: Built) -> None:
    assert built.config["Entrypoint"] == ["dnsprobe"]
    assert built.config["User"] == "65532:65532"  # Kubernetes' runAsNonRoot wants a number
    assert built.config["WorkingDir"] == "/data"


def test_it_brings_scenarios_and_manifests(built: Built) -> None:
    told = built.run("manifests", "every-node", "--image", "x", "--kind", "daemonset")
    assert "kind: DaemonSet" in told.stdout, told.stderr


def test_it_asks_and_judges(built: Built) -> None:
    ran = built.run("run", "baseline", "--lab", "--set", "duration=2s", "--set", "lab.coredns=stand-in")
    assert "all rows: 260 planned" in ran.stdout, ran.stdout + ran.stderr
    assert ran.returncode in (0, 3)


def test_it_has_no_tools_to_build_with(built: Built) -> None:
    there = {path.name for path in (built.root / "usr/local/dnsprobe").glob("lib/*/site-packages/*")}
    assert {"probe", "numpy"} <= there
    assert not {"pip", "setuptools"} & there
