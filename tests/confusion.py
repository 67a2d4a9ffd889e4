"""Labs with a hidden cause -> what the rules make of their run files: a table of true causes against those named.

`python -m tests.confusion` runs every case once, `-n 5` five times each, `-j 2` two at a time; names choose some.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from probe.cluster.lab import Lab
from probe.diagnosis import Diagnosis, diagnose
from probe.engine import Engine
from probe.model import Sure
from probe.runfile import Run, open_run
from probe.scenario.file import find_scenario, read_scenario_text
from probe.scenario.run import run
from probe.timeline import Timeline


class Silent:
    """A View that only says when the first query is due."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    def begin(self, _: object) -> None:
        self.began.set()

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


Fault = Callable[["Ground"], Coroutine[None, None, None]]

TOLD = ("pod_", "clock_", "endpoints_changed", "rollout_", "node_not_ready", "corefile_", "log", "metric", "not_")
"""Marks that a real cluster gives, too: the others say what the lab did, and are taken out before the rules look."""
TRIES = 3
NETNS = {"lab.backend": "netns"}
QUICK = {"lab.readiness_period": "1s", "lab.readiness_failures": "1"}


@dataclass(frozen=True)
class Ground:
    """Where a fault is made: the names of the lab's network namespaces begin with `lab`."""

    lab: str
    engine: Engine

    def nft(self, rules: str, where: str = "node-1") -> None:
        words = ["ip", "netns", "exec", f"{self.lab}-{where}", "nft", "-f", "-"]
        subprocess.run(words, input=rules, text=True, check=True, capture_output=True)

    def filter(self, rule: str, *, hook: str = "forward", where: str = "node-1") -> None:
        chain = f"chain fault {{ type filter hook {hook} priority -50; policy accept; {rule}; }}"
        self.nft(f"table ip fault {{ {chain}; }}", where)

    def pods(self) -> list[str]:
        return sorted(n.name for n in Path("/run/netns").iterdir() if n.name.startswith(f"{self.lab}-coredns"))

    def address(self, namespace: str) -> str:
        words = ["ip", "-n", namespace, "-o", "-4", "addr", "show", "dev", "eth0"]
        told = subprocess.run(words, capture_output=True, text=True, check=True)
        return told.stdout.split()[3].partition("/")[0]

    def pids(self, namespace: str) -> list[int]:
        told = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True)
        return [int(pid) for pid in told.stdout.split()]


@dataclass(frozen=True)
class Case:
    """A cause: settings of the lab, steps, and a fault made past the lab after so many seconds.

    names: what the rules may call it. model: known on the loopback model of IPVS alone.
    """

    names: tuple[str, ...]
    settings: dict[str, str]
    steps: str = "[{wait: 1s}]"
    duration: str = "12s"
    fault: Fault | None = None
    after: float = 4.0
    model: bool = False
    more: str = ""
    """What is added to the scenario."""


async def _blocked(ground: Ground) -> None:
    ground.filter("udp dport 53 drop")


async def _port_blocked(ground: Ground) -> None:
    ground.filter("meta l4proto { tcp, udp } th dport 53 drop")


async def _broken(ground: Ground) -> None:
    ground.filter("drop")


async def _lossy(ground: Ground) -> None:
    ground.filter("meta l4proto udp numgen random mod 100 < 30 drop")


async def _full(ground: Ground) -> None:
    """Simulated: the table's limit cannot be set in a namespace."""
    ground.filter("ct state new numgen random mod 100 < 30 drop")


async def _raced(ground: Ground) -> None:
    """Simulated: of two queries to the Service that leave one port before a reply came, the second is lost or not."""
    first = "ct original ip daddr 10.96.0.10 ct state new udp dport 53"
    rules = f"{first} udp sport @seen numgen random mod 100 < 80 drop; {first} add @seen {{ udp sport }};"
    chain = f"chain fault {{ type filter hook forward priority -50; policy accept; {rules} }}"
    ground.nft(
        f"table ip fault {{ set seen {{ type inet_service; flags dynamic,timeout; timeout 100ms; }}; {chain}; }}"
    )


async def _no_api(ground: Ground) -> None:
    """Whatever listens on the node itself; its pods are past it."""
    ground.filter("ip daddr 10.244.0.1 tcp flags syn drop", hook="input")


async def _all_busy(ground: Ground) -> None:
    await asyncio.gather(*(_slowed(ground.pids(pod)) for pod in ground.pods()))


async def _no_proxy(ground: Ground) -> None:
    ground.nft("delete table ip kube-proxy")


async def _crash(ground: Ground) -> None:
    for pid in ground.pids(ground.pods()[0]):
        os.kill(pid, signal.SIGKILL)


async def _busy(ground: Ground) -> None:
    await _slowed(ground.pids(ground.pods()[0]))


async def _slowed(pids: Sequence[int]) -> None:
    """A pod that runs for 50 ms of every 600."""
    with suppress(ProcessLookupError):  # the lab has ended
        while True:
            for each, lasts in ((signal.SIGSTOP, 0.55), (signal.SIGCONT, 0.05)):
                for pid in pids:
                    os.kill(pid, each)
                await asyncio.sleep(lasts)


async def _pinned(ground: Ground) -> None:
    """ClientIP: one pod for all that this client asks; and it is busy."""
    address = ground.address(ground.pods()[0])
    rules = "".join(f"ip daddr 10.96.0.10 {proto} dport 53 dnat ip to {address}:53; " for proto in ("udp", "tcp"))
    chain = f"chain affinity {{ type nat hook prerouting priority -110; policy accept; {rules} }}"
    ground.nft(f"table ip affinity {{ {chain}; }}")
    await asyncio.sleep(2)
    await _busy(ground)


async def _stalled(ground: Ground) -> None:
    for _ in range(3):
        for each, lasts in ((signal.SIGSTOP, 0.6), (signal.SIGCONT, 0.6)):
            for pid in ground.engine.worker_pids:
                os.kill(pid, each)
            await asyncio.sleep(lasts)


def _up(mode: str) -> Case:
    does = {"refusing": "refuses", "nxdomain": "denies", "servfail": "fails"}.get(mode, "silent")
    return Case((f"upstream_{does}",), NETNS, f"[{{wait: 4s}}, {{upstream: {mode}}}]")


HEADLESS = """
  - {name: headless-udp, target: service, ports: fresh, rate: 10, timeout: 1s, types: [A],
     questions: &large [headless100.default.svc.cluster.local]}
  - {name: headless-tcp, target: service, transport: tcp, ports: fresh, rate: 5, timeout: 1s, types: [A],
     questions: *large}
"""
CLIENTS = """
clients: {profiles: [glibc], names: [kubernetes.default], search: [svc.cluster.local], target: service}
"""
SEARCH = Path(__file__).parent / "data" / "autopath.conf"


CASES: dict[str, Case] = {
    "upstream silent": _up("silent"),
    "upstream refusing": _up("refusing"),
    "upstream NXDOMAIN": _up("nxdomain"),
    "upstream SERVFAIL": _up("servfail"),
    "upstream closed": _up("closed"),
    "upstream without TCP": Case(("upstream_without_tcp",), {**NETNS, "lab.upstream": "udp_only"}),
    "max_concurrent": Case(
        ("max_concurrent",),
        {**NETNS, "lab.configmap_delay": "0s", "lab.replicas": "2"},
        "[{wait: 2s}, {patch_corefile: 'forward . upstream { max_concurrent 2 }'}, {wait: 3s},"
        " {upstream: 'slow:1500ms'}]",
        "14s",
    ),
    "headless too big": Case(("too_big",), NETNS, more=HEADLESS),
    "autopath": Case(
        ("autopath",),
        {**NETNS, "lab.configmap_delay": "0s"},
        f"[{{wait: 3s}}, {{patch_corefile: 'autopath cluster.local {SEARCH}'}}]",
        "14s",
    ),
    "A and AAAA race": Case(("race",), NETNS, fault=_raced),
    "API server gone": Case(("api_server",), NETNS, fault=_no_api),
    "no API for CoreDNS": Case(
        ("no_api",),
        {**NETNS, "lab.configmap_delay": "0s"},
        "[{wait: 2s}, {patch_corefile: 'kubernetes cluster.local { endpoint http://10.244.0.9:1 }'}]",
        "18s",
    ),
    "UDP 53 blocked": Case(("udp_blocked",), NETNS, fault=_blocked),
    "port 53 blocked": Case(("port_blocked",), NETNS, duration="16s", fault=_port_blocked),
    "network broken": Case(("network",), NETNS, fault=_broken),
    "lossy node": Case(("client_node",), NETNS, fault=_lossy),
    "conntrack full": Case(("conntrack_full",), NETNS, fault=_full),
    "kube-proxy gone": Case(("kube_proxy",), NETNS, fault=_no_proxy),
    "one pod overloaded": Case(("pod_stuck", "one_slow"), NETNS, fault=_busy),
    "all pods overloaded": Case(("all_slow",), NETNS, fault=_all_busy, after=0.5),
    "affinity": Case(("affinity", "one_for_all"), NETNS, fault=_pinned, after=0.0),
    "client overloaded": Case(("stall", "prober"), NETNS, fault=_stalled),
    "bad Corefile": Case(
        ("stuck_rollout",),
        {**NETNS, **QUICK, "lab.configmap_delay": "60s", "lab.propagation": "200ms"},
        "[{wait: 2s}, {patch_corefile: bogus on}, {wait: 500ms}, restart: ]",
    ),
    "no ready plugin": Case(
        ("never_ready",),
        {**NETNS, **QUICK, "lab.configmap_delay": "60s", "lab.propagation": "200ms"},
        "[{wait: 2s}, {patch_corefile: ready off}, {wait: 500ms}, restart: ]",
    ),
    "unsynced pod": Case(
        ("unsynced",),
        {**NETNS, "lab.configmap_delay": "60s", "lab.readiness": "none", "lab.propagation": "200ms"},
        "[{wait: 2s}, {patch_corefile: 'kubernetes cluster.local { endpoint http://10.244.0.9:1 }'}, {wait: 500ms},"
        " {delete_pod: oldest}]",
        "16s",
    ),
    "short lameduck": Case(
        ("short_lameduck",),
        {**NETNS, **QUICK, "lab.lameduck": "1s", "lab.propagation": "3s"},
        "[{wait: 3s}, {scale: 2}]",
    ),
    "no lameduck": Case(
        ("no_lameduck",), {**NETNS, **QUICK, "lab.lameduck": "0s", "lab.propagation": "3s"}, "[{wait: 3s}, {scale: 2}]"
    ),
    "short grace": Case(
        ("short_grace",),
        {**NETNS, **QUICK, "lab.lameduck": "10s", "lab.grace_period": "2s", "lab.propagation": "5s"},
        "[{wait: 3s}, {scale: 2}]",
    ),
    "pod killed": Case(
        ("killed",),
        {**NETNS, **QUICK, "lab.lameduck": "5s", "lab.propagation": "3s"},
        "[{wait: 3s}, {kill_pod: oldest}]",
    ),
    "all replaced": Case(
        ("all_replaced",), {**NETNS, **QUICK, "lab.lameduck": "1s", "lab.propagation": "4s"}, "[{wait: 3s}, restart: ]"
    ),
    "all evicted": Case(
        ("all_evicted",),
        {**NETNS, **QUICK, "lab.lameduck": "1s", "lab.propagation": "4s", "lab.replicas": "1", "lab.nodes": "2"},
        "[{wait: 3s}, evict_dns: ]",
    ),
    "scaled to 0": Case(("no_pods",), {**NETNS, **QUICK, "lab.lameduck": "2s"}, "[{wait: 3s}, {scale: 0}]"),
    "all terminating on 1.25": Case(
        ("no_fallback",),
        {**NETNS, "lab.lameduck": "6s", "lab.kubernetes": "1.25", "lab.propagation": "1s"},
        "[{wait: 3s}, {scale: 0}]",
    ),
    "stale conntrack": Case(
        ("stale_flow",),
        {**NETNS, "lab.lameduck": "2s", "lab.propagation": "1s", "lab.teardown": "0s"},
        "[{wait: 3s}, {scale: 1}]",
        "14s",
    ),
    "IPVS session": Case(
        ("ipvs_session",),
        {**QUICK, "lab.proxy_mode": "ipvs", "lab.expire_nodest_conn": "false", "lab.lameduck": "4s"},
        "[{wait: 3s}, {scale: 1}]",
        model=True,
    ),
    "node lost": Case(
        ("node_lost",), {**NETNS, "lab.nodes": "3", "lab.node_grace": "6s"}, "[{wait: 3s}, lose_node: ]", "16s"
    ),
    "pod crashed": Case(("crashed",), NETNS, fault=_crash),
    "NodeLocal restarted": Case(
        ("nodelocal",),
        {**NETNS, "lab.nodelocal": "true", "lab.start_delay": "1500ms"},
        "[{wait: 3s}, restart_nodelocal: ]",
    ),
    "NodeLocal unused": Case(("nodelocal_unused",), {**NETNS, "lab.nodelocal": "true"}, duration="16s", more=CLIENTS),
    "reload on 1.9.3": Case(
        ("reload_lameduck",),
        {**NETNS, **QUICK, "lab.coredns": "1.9.3", "lab.lameduck": "8s", "lab.configmap_delay": "0s"},
        "[{wait: 2s}, {patch_corefile: cache 60s}]",
        "16s",
    ),
    "nothing": Case(
        ("nothing",), {**NETNS, **QUICK, "lab.lameduck": "5s", "lab.propagation": "1s"}, "[{wait: 2s}, {scale: 2}]"
    ),
}


def hidden(made: Run) -> Run:
    """The run as if it were of a real cluster: what the lab did, and how it was set, is taken out."""
    said = made.head.facts
    facts = {name: text for name, text in said.items() if not name.startswith("lab.")}
    facts |= {
        "kubernetes": f"v{said.get('lab.kubernetes', '1.33')}.0",
        "kube-proxy": said.get("lab.proxy_mode", "iptables"),
    }
    marks = tuple(m for m in made.marks if m.kind.startswith(TOLD))
    return replace(made, marks=marks, head=replace(made.head, facts=facts, scenario="", command="", name="hidden"))


async def make(cause: str, path: Path) -> None:
    """Run one case."""
    case = CASES[cause]
    settings = [
        f"{key}={value}" for key, value in {"lab.coredns": "real", "duration": case.duration, **case.settings}.items()
    ]
    text = find_scenario("causes").read_text() + case.more
    plan = read_scenario_text("causes", text, [*settings, f"steps={case.steps}"])
    lab, engine, view = Lab(plan.lab), Engine(), Silent()
    going = asyncio.create_task(run(plan, path, view, engine, lab, idle=False))
    if case.fault:
        await asyncio.wait([going, asyncio.create_task(view.began.wait())], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(case.after)
        fault = asyncio.create_task(
            case.fault(Ground(lab.namespaces[0].rpartition("/")[2].split("-prober-")[0], engine))
        )
        await asyncio.wait([going, fault], return_when=asyncio.FIRST_EXCEPTION)
        fault.cancel()
        with suppress(asyncio.CancelledError):
            await fault
    await going


def judged(path: Path) -> tuple[str, Sure | None, list[Diagnosis]]:
    """What is named first, of the diagnosis that explains most of what was lost; `nothing` if nothing is."""
    found = diagnose(Timeline.of(hidden(open_run(path))))
    if not found:
        return "nothing", None, []
    sures = list(Sure)
    most = max(found, key=lambda d: (sum(w.lost for w in d.windows), -sures.index(d.finding.sure or Sure.UNDETERMINED)))
    return most.finding.id, most.finding.sure, found


def _one(name: str, path: Path) -> tuple[str, str, Sure | None]:
    """A run in which this machine kept the prober itself from running is made again: it says nothing of the cause."""
    words = [sys.executable, "-m", "tests.confusion", "--make", name, "--out", str(path)]
    for _ in range(TRIES):
        path.unlink(missing_ok=True)
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            return name, f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}", None
        said, sure, _ = judged(path)
        if said != "stall" or said in CASES[name].names:
            break
    return name, said, sure


def table(results: Sequence[tuple[str, str, Sure | None]]) -> str:
    """A line for each cause: how often the right one came first, and what else did; causes of a model alone last."""
    names = sorted(dict.fromkeys(r[0] for r in results), key=lambda name: CASES[name].model)
    lines = []
    for name in names:
        mine = [(said, sure) for n, said, sure in results if n == name]
        ok = [said for said, _ in mine if said in CASES[name].names]
        others = Counter(f"{said} ({sure})" for said, sure in mine if said not in CASES[name].names)
        sures = Counter(str(sure) for said, sure in mine if said in CASES[name].names)
        told = ", ".join(f"{n} x {text}" for text, n in [*sures.items(), *others.items()])
        lines.append(f"{name + (' (model)' if CASES[name].model else ''):28} {len(ok)}/{len(mine)}  {told}")
    for model in (False, True):
        of = [(said in CASES[n].names, sure) for n, said, sure in results if CASES[n].model is model]
        if of:
            right, wrong = sum(fits for fits, _ in of), sum(not fits and sure is Sure.CERTAIN for fits, sure in of)
            share = f"right first: {right} of {len(of)} ({100 * right / len(of):.0f} %); wrong and certain: {wrong}"
            lines.append(share + "; on the loopback model of IPVS alone" * model)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-n", type=int, default=1)
    parser.add_argument("-j", type=int, default=1)
    parser.add_argument("--make")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.make:
        asyncio.run(make(given.make, given.out))
        return
    names = given.names or list(CASES)
    folder = given.out or Path(tempfile.mkdtemp(prefix="dnsprobe-confusion-"))
    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(given.j) as pool:
        paths = [(name, folder / f"{name.replace(' ', '-')}-{i}.db") for i in range(given.n) for name in names]
        results = []
        for result in pool.map(lambda one: _one(*one), paths):
            results.append(result)
            print(*result, sep="\t", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
