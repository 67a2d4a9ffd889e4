"""dnsprobe: what becomes of DNS queries while a cluster changes.

The house, floor by floor; a module imports only from lower floors (`make lint` checks it):

    0 errors       what a person got wrong, with an exit code each
    0 outcome      what can become of a query: Outcome, its help text, whose fault it is
    0 model        Question, Target, Lane, Series, Mark, Interval, Finding: the nouns everyone shares
    1 book         many names of one type, flat in memory that processes share; weights -> whose turn it is
    1 schedule     pacers: rates -> due instants, a chunk at a time
    1 wire         question -> the octets of its query; a reply -> what it says           the only door to dnspython
    1 questions    questions -> batches of queries; batches of replies -> outcomes
    1 histogram    log-linear latency counts that add
    1 linux        recvmmsg, error queue, timestamps, timers                                the only door to ctypes
    1 resolv       resolv.conf -> whom a resolver asks, for which names and how patiently, and whose file it is
    1 corefile/    the text of a Corefile -> server blocks and plugins with their lines, and what is wrong with it
    1 pages        paths and who answers there -> an HTTP server beside the run
    1 host         what the machine did to us: CPU withheld, clock steps, conntrack, steal
    2 transport/   rows out, finished rows back: udp, tcp, and beside DNS connect, http
    2 recorder/    finished rows -> time-bucketed columns; recorders add
    2 runfile      a run as one SQLite file, written while the run goes
    3 engine       schedule -> transport -> recorder: the one loop, in worker processes
    3 clients/     lookups as glibc, musl, Go, c-ares and Java make them                    the only door to aiodns
    3 cluster/     the Cluster protocol; lab: pods on this machine; kube/: the API         the only door to lightkube
    4 timeline     columns + marks -> windows of disruption
    4 doubts       what the prober did wrong itself, and which lanes that could hide
    5 verdict      timeline x objectives x doubts -> PASS | FAIL | INCONCLUSIVE, with the numbers
    5 advice/      propagation x how pods end -> the lameduck that loses nothing, as each platform keeps it; a short
                   run -> what came of each path
    5 diagnosis/   timeline -> what each group of windows looks like: the cause, how sure, the evidence, the remedy;
                   paths that fail -> the same causes and remedies
    5 audit/       the objects of a cluster -> what will break in the next CoreDNS upgrade, and how to mend it
    5 felt         timeline -> what each client would have felt in a window; what real lookups did
    6 scenario/    YAML -> steps, lanes, objectives; runs them while the engine runs
    6 report/      run files -> text, json, html, pictures, csv, markdown, junit; two runs -> what differs
    6 exporter/    a run while it goes -> its state for Prometheus, rendered when it is scraped
    6 collect/     a Job's pods -> their run files and logs, put together
    6 sweep/       a scenario's matrix -> every cell a run, in one file -> which setting is right
    6 doctor/      this machine -> what it has of what dnsprobe uses, and what mends the rest
    6 live         the run while it goes: a table on a terminal, else a line every 5 s
    7 cli          the commands
    7 library      what `import probe` offers to Python: probe.run(), probe.open_run()

Data goes one way:

    scenario.yaml -> lanes x targets -> due instants -> transport -> finished rows -> recorder -> run file
                  -> timeline -> verdict -> report;      cluster watch, steps -> marks -> run file
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.library import Options, open_run, run, verdict_of

# Before numpy is imported: nothing here multiplies matrices, and its threads would take the core that queries need.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"

__all__ = ["Options", "open_run", "run", "verdict_of"]
"""Of probe.library, which is imported when one of them is first used: `import probe` itself imports nothing."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from probe import library  # noqa: PLC0415

    return getattr(library, name)
