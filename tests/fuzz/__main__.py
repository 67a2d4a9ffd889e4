"""Names of targets, seconds for each -> what was tried, what was reached and what broke, as a table: `make fuzz`.

Guided by Atheris (libFuzzer), which `make fuzz` installs. A fault is printed as the shortest input that shows it, ready
for a test, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

WATCHED = ["probe", "dns"]
"""Packages whose branches guide it: they are not imported before it is there."""
HEAD = "| target | inputs | time | branches: seeds -> in all | corpus | faults |\n|---|---|---|---|---|---|"
_STATE = re.compile(r"#(\d+)\s.* cov: (\d+) ft: \d+ corp: (\d+)/")
_SEEDS = re.compile(r"INITED cov: (\d+)")
_ENDED = ("crash-*", "timeout-*", "oom-*")
"""What libFuzzer calls an input that ended it."""


@dataclass(frozen=True, slots=True)
class Total:
    """Of one target: inputs tried, seconds, branches that its seeds reach and that were reached, inputs kept."""

    inputs: int
    seconds: float
    seeded: int
    reached: int
    corpus: int
    faults: int

    def row(self, name: str) -> str:
        """Of the table."""
        told = (
            f"{self.inputs:,}",
            f"{self.seconds:,.0f} s",
            f"{self.seeded:,} -> {self.reached:,}",
            f"{self.corpus:,}",
        )
        return f"| {' | '.join((name, *told, str(self.faults)))} |"


class Fuzzer:
    """Atheris, and the targets as it has instrumented them. Each is run in a fork: libFuzzer ends its process."""

    def __init__(self) -> None:
        self._atheris = importlib.import_module("atheris")
        with redirect_stderr(io.StringIO()), self._atheris.instrument_imports(include=WATCHED):
            self.targets: dict[str, Target] = importlib.import_module("tests.fuzz.targets").TARGETS
            self._faults = importlib.import_module("tests.fuzz.faults")

    def total(self, name: str, seconds: int, seed: int) -> Total:
        """Runs one target; prints the faults that it finds."""
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            folder, began = Path(place), time.monotonic()
            code = _in_fork(self._run, self.targets[name], folder, f"-max_total_time={seconds}", f"-seed={seed}")
            lasted, text = time.monotonic() - began, (folder / "told").read_text(errors="replace")
            states, seeded = _STATE.findall(text), _SEEDS.search(text)
            faults = [*folder.glob("*.fault"), *(file for kind in _ENDED for file in folder.glob(kind))]
            if not states or (code and not faults):
                sys.exit(f"{name}: the fuzzer ended with {code}:\n{text[-3000:]}")
            for file in faults:
                _in_fork(self._print_fault, name, file)
            inputs, reached, corpus = map(int, states[-1])
            return Total(inputs, lasted, int(seeded[1]) if seeded else 0, reached, corpus, len(faults))

    def _run(self, target: Target, folder: Path, *options: str) -> None:
        """Writes each fault, the shortest input of it, into the folder as it is found."""
        with (folder / "told").open("wb") as told:
            os.dup2(told.fileno(), 1)
            os.dup2(told.fileno(), 2)
        tempfile.tempdir = str(folder)
        corpus, words, found = folder / "corpus", folder / "words", dict[str, int]()
        corpus.mkdir()
        for seed in target.seeds():
            (corpus / _digest(seed)).write_bytes(seed)
        escaped = ("".join(f"\\x{octet:02x}" for octet in word) for word in target.words)
        words.write_text("".join(f'"{word}"\n' for word in escaped))

        def tried(octets: bytes) -> None:
            fault = self._faults.fault_of(target, octets)
            if fault and len(octets) < found.get(fault.site, 1 << 32):
                found[fault.site] = len(octets)
                (folder / f"{_digest(fault.site.encode())}.fault").write_bytes(octets)

        limits = [f"-max_len={target.longest}", "-len_control=0", "-timeout=60", f"-artifact_prefix={folder}/"]
        limits += [f"-dict={words}"] if target.words else []
        self._faults.bound_memory()
        self._atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], tried)
        self._atheris.Fuzz()

    def _print_fault(self, name: str, file: Path) -> None:
        octets, target = file.read_bytes(), self.targets[name]
        if file.suffix != ".fault":
            print(f"{name}: {file.name}: the process was ended by this input\n    {octets!r}", flush=True)
            return
        self._faults.bound_memory()
        fault = self._faults.fault_of(target, octets)
        if fault is None:
            print(f"{name}: seen once, not again, with\n    {octets!r}", flush=True)
            return
        short = self._faults.shortened(target, octets, fault.site)
        print(f"{name}: {fault.site}: {fault.text}\n    {short!r}", flush=True)


def _in_fork(call: Callable[..., None], *arguments: Any) -> int:
    process = get_context("fork").Process(target=call, args=arguments)
    process.start()
    process.join()
    return process.exitcode or 0


def _digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()[:16]


def main() -> int:
    """1 if something broke."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Octets nobody meant, guided by coverage.")
    parser.add_argument("names", nargs="*", metavar="TARGET", help="some of those in tests/fuzz/targets.py; else all")
    parser.add_argument("--seconds", type=int, default=60, help="for each of them (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of what is tried; with another, other inputs (default: 1)")
    asked = parser.parse_args()
    fuzzer = Fuzzer()
    if unknown := [name for name in asked.names if name not in fuzzer.targets]:
        parser.error(f"{', '.join(unknown)}: no such target; say {', '.join(fuzzer.targets)}")
    print(HEAD, flush=True)
    totals = []
    for name in asked.names or fuzzer.targets:
        totals.append(fuzzer.total(name, asked.seconds, asked.seed))
        print(totals[-1].row(name), flush=True)
    return int(any(total.faults for total in totals))


if __name__ == "__main__":
    sys.exit(main())
