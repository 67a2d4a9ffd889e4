"""The parts that `make e2e` built -> a Kubernetes of one node, with CoreDNS Ready in it.

`python -m tests.e2e.kubernetes` keeps one until its standard input ends, and says how to reach it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.e2e import components, image, keys
from tests.e2e.components import Proxy
from tests.e2e.machine import ADDRESS, Machine

MANIFESTS = Path(__file__).parent / "manifests"
COREDNS = "localhost/coredns:1.15.0"
START_TIMEOUT = 120.0


def parts() -> Path:
    """Where `make e2e` keeps the parts; it says so in the environment."""
    return Path(os.environ["DNSPROBE_E2E_PARTS"])


class Kubernetes:
    """The cluster on one machine. `kubectl` speaks to it from here; probes go in through `machine.inside`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.kubeconfig = machine.folder / "keys" / f"{keys.ADMIN}.kubeconfig"
        self._kubectl = [str(parts() / "kubectl"), f"--kubeconfig={self.kubeconfig}"]
        self._commands = components.commands(machine.folder, machine.port)

    @classmethod
    def up(cls) -> Self:
        """Start all of it, kube-proxy in iptables mode, until CoreDNS is Ready; RuntimeError with the log of what ended."""
        machine = Machine.start(parts())
        try:
            self = cls(machine)
            self._up()
        except BaseException:
            machine.close()
            raise
        return self

    def kubectl(self, *words: str) -> str:
        """What kubectl prints; subprocess.CalledProcessError when it fails, with its words in `stderr`."""
        return subprocess.run([*self._kubectl, *words], check=True, capture_output=True, text=True).stdout

    def inside(self, *command: str | Path) -> str:
        """What a command prints that runs in the node's network."""
        words = self.machine.inside(*map(str, command))
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def start(self, *names: str) -> None:
        """Start components, as they were."""
        for name in names:
            self.machine.start_process(name, self._commands[name])

    def stop(self, name: str) -> None:
        """End one component; `start` has it back."""
        self.machine.stop_process(name)

    def use_proxy(self, mode: Proxy) -> None:
        """Put kube-proxy in a mode and wait for its first sync; it takes away the rules of the mode before."""
        self.stop("kube-proxy")
        self._write("kube-proxy.json", components.kube_proxy(self.machine.folder, mode))
        self.start("kube-proxy")
        look = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:10256/healthz')"
        self._until(self.machine.inside(sys.executable, "-c", look))

    def _up(self) -> None:
        folder = self.machine.folder
        keys.make(folder / "keys", ("127.0.0.1", ADDRESS, components.FIRST_SERVICE), self.machine.port)
        for name, text in components.files(folder).items():
            self._write(name, text)
        self._write("kube-proxy.json", components.kube_proxy(folder, "iptables"))
        self.start("etcd", "containerd", "upstream", "kube-apiserver")
        self._load(components.PAUSE, "pause", ["/pause"])
        self._load(COREDNS, "coredns", ["/coredns"])
        self.until("get", "--raw", "/readyz")
        self.start("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
        self.until("apply", "--filename", str(MANIFESTS))
        self.until("wait", "--for=condition=Ready", "node/node", "--timeout=5s")
        self.until("rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=10s")

    def _write(self, name: str, text: str) -> None:
        path = self.machine.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def _load(self, name: str, program: str, entrypoint: list[str]) -> None:
        """Make an image of one of the parts and give it to containerd, as soon as that is there."""
        tar = self.machine.folder / f"{program}.tar"
        image.write(tar, name, [parts() / program], entrypoint)
        address = components.containerd(self.machine.folder)
        ctr = [f"{parts()}/debian/usr/bin/ctr", f"--address={address}", "--namespace=k8s.io"]
        self._until([*ctr, "images", "import", str(tar)])

    def until(self, *words: str) -> None:
        """Say it to kubectl until it succeeds, for at most START_TIMEOUT."""
        self._until([*self._kubectl, *words])

    def _until(self, command: list[str]) -> None:
        until = time.monotonic() + START_TIMEOUT
        while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
            if ended := self.machine.ended():
                logs = "\n".join(f"{name}:\n{self.machine.log(name)}" for name in ended)
                raise RuntimeError(f"ended, with exit codes {ended}:\n{logs}")
            if time.monotonic() > until:
                raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
            time.sleep(0.2)

    def close(self) -> None:
        """Take all of it away."""
        self.machine.close()


def main() -> None:
    """Start one, say where it is, and keep it until standard input ends."""
    cluster = Kubernetes.up()
    print(f"export KUBECONFIG={cluster.kubeconfig}  # from any namespace")
    print(f"in its network: nsenter --net=/run/netns/{cluster.machine.namespace} COMMAND", flush=True)
    sys.stdin.buffer.read()
    cluster.close()


if __name__ == "__main__":
    main()
