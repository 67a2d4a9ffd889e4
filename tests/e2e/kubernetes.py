"""The parts that `make e2e` built -> a Kubernetes of two nodes, with CoreDNS Ready in it.

`python -m tests.e2e.kubernetes` keeps one until its standard input ends, and says how to reach it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Self

from tests.e2e import components, image, keys, prober
from tests.e2e.components import Proxy
from tests.e2e.machine import Machine

MANIFESTS = Path(__file__).parent / "manifests"
COREDNS = "localhost/coredns:1.15.0"
NODES = 2
START_TIMEOUT = 120.0


def parts() -> Path:
    """Where `make e2e` keeps the parts; it says so in the environment."""
    return Path(os.environ["DNSPROBE_E2E_PARTS"])


class Kubernetes:
    """The cluster on its machines; the first has the control plane, too. `kubectl` speaks to it from here."""

    def __init__(self, machines: list[Machine]) -> None:
        self.machines = machines
        self.first = first = machines[0]
        self.kubeconfig = first.folder / "keys" / f"{keys.ADMIN}.kubeconfig"
        self._kubectl = [str(parts() / "kubectl"), f"--kubeconfig={self.kubeconfig}"]
        self._commands = {m.name: components.node(m, first) for m in machines}
        self._commands[first.name] |= components.control(first)

    @classmethod
    def up(cls) -> Self:
        """Start all of it, kube-proxy in iptables mode, until CoreDNS is Ready; RuntimeError with the end of a log."""
        with contextlib.ExitStack() as closing:
            first = Machine.start(parts())
            closing.callback(first.close)
            machines = [first]
            for number in range(2, NODES + 1):
                machines.append(Machine.start(parts(), number, first))
                closing.callback(machines[-1].close)
            self = cls(machines)
            self._up()
            closing.pop_all()
        return self

    def close(self) -> None:
        """Take all of it away."""
        for machine in reversed(self.machines):
            machine.close()

    def kubectl(self, *words: str) -> str:
        """What kubectl prints; subprocess.CalledProcessError when it fails, with its words in `stderr`."""
        return subprocess.run([*self._kubectl, *words], check=True, capture_output=True, text=True).stdout

    def until(self, *words: str) -> None:
        """Say it to kubectl until it succeeds, for at most START_TIMEOUT."""
        self._until([*self._kubectl, *words])

    def start(self, *names: str, on: Machine | None = None) -> None:
        """Start components, as they were, on the first machine or another."""
        machine = on or self.first
        for name in names:
            machine.start_process(name, self._commands[machine.name][name])

    def stop(self, name: str, number: Signals = SIGTERM, on: Machine | None = None) -> None:
        """End one component; `start` has it back."""
        (on or self.first).stop_process(name, number)

    def use_proxy(self, mode: Proxy) -> None:
        """Put each kube-proxy in a mode and wait for its first sync; it takes away the rules of the mode before."""
        look = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:10256/healthz')"
        for machine in self.machines:
            self.stop("kube-proxy", on=machine)
            _write(machine, "kube-proxy.json", components.kube_proxy(machine, self.first, mode))
            self.start("kube-proxy", on=machine)
            self._until(machine.inside(sys.executable, "-c", look))

    def load(self, tar: Path) -> None:
        """Give an image, in a tar as of OCI or Docker, to every node."""
        for machine in self.machines:
            ctr = [f"{parts()}/debian/usr/bin/ctr", f"--address={components.containerd(machine)}", "--namespace=k8s.io"]
            self._until([*ctr, "images", "import", str(tar)])

    def _up(self) -> None:
        first, names = self.first, [machine.host for machine in self.machines]
        addresses = ("127.0.0.1", first.address, components.FIRST_SERVICE)
        keys.make(first.folder / "keys", addresses, first.port, names)
        self.start("etcd", "kube-apiserver")
        for machine in self.machines:
            for name, text in components.files(machine, first).items():
                _write(machine, name, text)
            _write(machine, "kube-proxy.json", components.kube_proxy(machine, first, "iptables"))
            self.start("containerd", on=machine)
            for other in self.machines:
                if other is not machine:
                    route = f"ip route add {components.pods(other)} via {other.address}"
                    subprocess.run(machine.inside(*route.split()), check=True)
        self.start("upstream")
        for name, program in ((components.PAUSE, "pause"), (COREDNS, "coredns")):
            tar = first.folder / f"{program}.tar"
            image.write(tar, name, [image.layer([(program, parts() / program)])], [f"/{program}"])
            self.load(tar)
        self.until("get", "--raw", "/readyz")
        self.start("kube-controller-manager", "kube-scheduler")
        for machine in self.machines:
            self.start("kubelet", "kube-proxy", on=machine)
        for name in names:
            self.until("wait", "--for=condition=Ready", f"node/{name}", "--timeout=5s")
        self.until("apply", "--filename", str(MANIFESTS))
        self.until("rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=10s")

    def _until(self, command: list[str]) -> None:
        until = time.monotonic() + START_TIMEOUT
        while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
            for machine in self.machines:
                if ended := machine.ended():
                    logs = "\n".join(f"{name}:\n{machine.log(name)}" for name in ended)
                    raise RuntimeError(f"{machine.host}: ended, with exit codes {ended}:\n{logs}")
            if time.monotonic() > until:
                raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
            time.sleep(0.2)


def _write(machine: Machine, name: str, text: str) -> None:
    path = machine.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def main() -> None:
    """Start one with the prober's image in it, say where it is, and keep it until standard input ends."""
    cluster = Kubernetes.up()
    tar = cluster.first.folder / "prober.tar"
    prober.write(tar)
    cluster.load(tar)
    print(f"the prober's image is {prober.NAME}")
    print(f"export KUBECONFIG={cluster.kubeconfig}  # from any namespace")
    for machine in cluster.machines:
        print(f"in the network of {machine.host}: nsenter --net=/run/netns/{machine.namespace} COMMAND", flush=True)
    sys.stdin.buffer.read()
    cluster.close()


if __name__ == "__main__":
    main()
