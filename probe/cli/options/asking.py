"""The options of commands that ask on schedule: run, serve, capacity, and manifests, which hands them on."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from probe.cli.options import MANY, RESULT, SCENARIO, OneFlag, OneText, Texts, flag, option
from probe.runfile import SERVED
from probe.scenario.abort import EXAMPLE as RULE
from probe.scenario.adhoc import DEFAULT_NAME
from probe.scenario.capacity import OBJECTIVES
from probe.scenario.file import shipped_scenarios
from probe.scenario.limits import CEILING, MOST_EXTERNAL
from probe.scenario.linger import PORT
from probe.scenario.load import WINDOW
from probe.scenario.manifests import KINDS
from probe.scenario.recent import BASELINE
from probe.scenario.start import JOB_COMPLETIONS, JOB_INDEX, MOST_WORKERS

RATES = "Rates"
AD_HOC = "Ad hoc: a server, in dnsperf's letters"
EXPECT_HELP = (
    "What is good: answer, nodata, nxdomain, servfail, refused, truncated, or some of them joined by |; any; pinned,"
    " what the first ten replies mostly are; same, what the other servers say; or addresses joined by commas"
    " (default answer, for AAAA answer|nodata)."
)
NAME_HELP = (
    f"Ask for it; repeatable; {{random}} or {{number}} in it is another label in each query (default {DEFAULT_NAME})."
)
EXTERNAL_HELP = "Names with {random} or {number} may load servers that are not ours."
SEARCH_HELP = "Try names with it, as a pod's resolver does; repeatable; what becomes of these is expected as `pinned`."
NDOTS_HELP = "From so many dots on a name is first asked as it stands (default 5)."
EDNS_HELP = "The size of UDP replies, 512 to 65535 (default no EDNS)."
DNSSEC_HELP = "Ask for signatures: the DO bit, and EDNS of 1232 octets."
NSID_HELP = "Ask which server answers, by EDNS of 1232 octets."
PORTS_HELP = (
    "Source ports: fresh, fixed or pool:K; for tcp connections: fresh, reused or pool:K"
    " (default fresh; above 5,000 q/s pool:64, for tcp reused)."
)
RATE_HELP = "Queries a second to each server (default 100), or max: as fast as replies allow, a closed loop."
RAMP_HELP = "Instead of -Q: from A to B queries a second, evenly over the seconds, then B."
ARRIVALS_HELP = "even, or poisson: exponential gaps, as many clients together make them (default even)."
INFLIGHT_HELP = (
    f"Under -Q max: the most queries outstanding to each server (default {WINDOW:,})."
    " With a rate there is no limit on outstanding queries."
)
PAIR_HELP = "Ask A and AAAA of a name from one socket, back to back, as glibc does."
GSO_HELP = "Let 2 to 64 queries leave as one burst (UDP_SEGMENT): less work for us, one packet to NAT."
LENGTH_HELP = "Seconds, or 5m (default 10; with --ramp as long as it takes)."
DRY_RUN_HELP = "Print lanes, planned queries and steps (of a real cluster as it is now); ask and change nothing."
REPEATS_HELP = "Of a matrix: how often each cell is run (default its own); more continue a sweep."
JOBS_HELP = "Of a matrix: how many cells run at a time (default what this machine bears)."
WORKERS_HELP = f"Worker processes, 1 to {MOST_WORKERS} (default 1)."
SHARD_HELP = (
    "Ask this slice of the rows alone, counted from 0: 0/4 to 3/4 on four machines"
    f" (default {JOB_INDEX}/{JOB_COMPLETIONS} where both are set); put together by `dnsprobe merge`."
)
START_HELP = (
    "When the first query is due: 2026-11-21T04:30:00Z, +30s, unix seconds, or job: once all pods of this Indexed Job"
    " are ready (default at once)."
)
READY_HELP = f"A file that is there once the last {BASELINE:g} s of all lanes were clean: for a readiness probe."
KEEP_HELP = "How much of the run its file keeps (default 1h); the file before is beside it, as .1 and so on."
SERVED_HELP = f"The run file (default {SERVED} in this folder)."
LOG_HELP = "What is logged: text, jsonl: lines of JSON (default text)."
LINGER_HELP = "After the verdict serve the run file until `dnsprobe collect` has taken it, for at most so long."
SCRAPES_HELP = "Of --linger: until the last metrics were scraped so often, or the run file was taken."
METRICS_HELP = (
    f"Serve /metrics for Prometheus while the run goes, e.g. 127.0.0.1:{PORT}, or :{PORT} for all addresses"
    f" (default :{PORT} with --linger, else none; or DNSPROBE_METRICS)."
)
SERVE_METRICS_HELP = (
    f"Where /metrics is served for Prometheus, e.g. 127.0.0.1:{PORT} (default :{PORT}, all addresses; or"
    " DNSPROBE_METRICS)."
)
HTTP_HELP = f"The TCP port that its pods serve on (default {PORT})."
FAIL_HELP = "An objective is missed if this holds, e.g. 'loss > 0.1%'; repeatable; replaces all other objectives."
ABORT_HELP = (
    f"End the run, its changes undone, once this held, e.g. '{RULE}'; repeatable; beside the scenario's own rules."
)
OBJECTIVE_HELP = f"What must hold at a rate; repeatable (default {', '.join(OBJECTIVES)})."
STEP_HELP = "How long each rate is asked (default 5s)."
PRECISION_HELP = "How near the rates that met and missed are in the end (default 5%)."
FOLDER_HELP = "The folder of the run files, one for each rate (default dnsprobe-capacity-TIME in this folder)."
FOUND_HELP = "Write what was found as JSON, too; - is stdout."
MAX_QPS_HELP = f"The most queries a second in all towards other machines, or max for no ceiling (default {CEILING})."
PER_NODE_HELP = (
    "One of many probers, one on each node: ask N of the pods, chosen by this node's name, and of the API only for the"
    " Service and its EndpointSlices."
)
KIND_HELP = f"{', '.join(KINDS)} (default job)."
MANIFEST_CLUSTER_HELP = (
    "For a scenario that changes it: which one is meant, by the UID of its namespace kube-system, which a pod can see."
)
HOST_NETWORK_HELP = "In the nodes' own network; PodSecurity has to allow the namespace `privileged`."
POD_MONITOR_HELP = "With PodMonitors for the Prometheus operator, which must be there."
YES_HELP = "Change a real cluster as the scenario says; with --cluster."
OUTAGE_HELP = "Even if a step can leave no ready endpoint."
MAX_EXTERNAL_HELP = f"The same of each lane for what upstream servers have to answer (default {MOST_EXTERNAL})."
LETTERS = {
    "servers": "-s", "port": "-p", "datafile": "-d", "names": "-n", "types": "--type", "expect": "--expect",
    "rate": "-Q", "length": "-l", "timeout": "-t", "transport": "-m", "ports": "--ports",
    "search": "--search", "ndots": "--ndots", "edns": "--edns", "dnssec": "-D", "nsid": "--nsid",
    "external": "--external", "ramp": "--ramp", "arrivals": "--arrivals", "max_inflight": "-q",
    "pair": "--pair", "gso": "--gso",
}  # fmt: skip
"""adhoc.Options' fields as they are typed."""
_ad_hoc = partial(option, AD_HOC)
_ad_hoc_flag = partial(flag, AD_HOC)


def _named(typed: str) -> list[str]:
    """Of the shipped scenarios those that begin like that; where none does, a shell goes on with files."""
    return [name for name in shipped_scenarios() if name.startswith(typed)]


ENDLESS = "every-node"
SCENARIO_HELP = "A YAML file, or a shipped scenario's name"
ScenarioName = Annotated[str, typer.Argument(help=f"{SCENARIO_HELP}.", autocompletion=_named, show_default=False)]
ServedName = Annotated[
    str, typer.Argument(help=f"{SCENARIO_HELP} (default {ENDLESS}).", autocompletion=_named, show_default=False)
]
Servers = Annotated[Texts, _ad_hoc("-s", "--server", "ADDRESS", "The server; repeatable.")]
Port = Annotated[OneText, _ad_hoc("-p", "--port", "PORT", "Its port (default 53).")]
Data = Annotated[OneText, _ad_hoc("-d", "--data", "FILE", "Lines of `name type`; - is stdin.")]
Names = Annotated[Texts, _ad_hoc("-n", "--name", "NAME", NAME_HELP)]
Types = Annotated[Texts, _ad_hoc("", "--type", "TYPE", "Of the names; repeatable (default A).")]
Expected = Annotated[OneText, _ad_hoc("", "--expect", "WHAT", EXPECT_HELP)]
Suffixes = Annotated[Texts, _ad_hoc("", "--search", "SUFFIX", SEARCH_HELP)]
Ndots = Annotated[OneText, _ad_hoc("", "--ndots", "N", NDOTS_HELP)]
External = Annotated[OneFlag, _ad_hoc_flag("", "--external", EXTERNAL_HELP)]
EdnsSize = Annotated[OneText, _ad_hoc("", "--edns", "SIZE", EDNS_HELP)]
Dnssec = Annotated[OneFlag, _ad_hoc_flag("-D", "--dnssec", DNSSEC_HELP)]
Nsid = Annotated[OneFlag, _ad_hoc_flag("", "--nsid", NSID_HELP)]
Rate = Annotated[OneText, _ad_hoc("-Q", "--qps", "RATE", RATE_HELP)]
Ramp = Annotated[OneText, _ad_hoc("", "--ramp", "A:B:SECONDS", RAMP_HELP)]
Arrivals = Annotated[OneText, _ad_hoc("", "--arrivals", "HOW", ARRIVALS_HELP)]
Inflight = Annotated[OneText, _ad_hoc("-q", "--max-inflight", "N", INFLIGHT_HELP)]
Length = Annotated[OneText, _ad_hoc("-l", "--length", "TIME", LENGTH_HELP)]
Timeout = Annotated[OneText, _ad_hoc("-t", "--timeout", "TIME", "Seconds, or 500ms (default 2).")]
Transport = Annotated[OneText, _ad_hoc("-m", "--mode", "MODE", "udp or tcp (default udp).")]
SourcePorts = Annotated[OneText, _ad_hoc("", "--ports", "PORTS", PORTS_HELP)]
Pair = Annotated[OneFlag, _ad_hoc_flag("", "--pair", PAIR_HELP)]
Gso = Annotated[OneText, _ad_hoc("", "--gso", "N", GSO_HELP)]
PerNode = Annotated[OneText, option(SCENARIO, "", "--per-node", "N", PER_NODE_HELP)]
Yes = Annotated[bool, flag(SCENARIO, "", "--yes", YES_HELP)]
AllowOutage = Annotated[bool, flag(SCENARIO, "", "--allow-outage", OUTAGE_HELP)]
Repeats = Annotated[OneText, option(SCENARIO, "", "--repeats", "N", REPEATS_HELP)]
Jobs = Annotated[OneText, option(SCENARIO, "", "--jobs", "N", JOBS_HELP)]
Lowest = Annotated[OneText, option(RATES, "", "--from", "RATE", "The first rate (default 1000).")]
Highest = Annotated[OneText, option(RATES, "", "--to", "RATE", "The last one (default 1M).")]
StepLength = Annotated[OneText, option(RATES, "", "--step-length", "TIME", STEP_HELP)]
Precision = Annotated[OneText, option(RATES, "", "--precision", "PERCENT", PRECISION_HELP)]
Objectives = Annotated[Texts, option(RATES, "", "--objective", "WHAT", OBJECTIVE_HELP)]
Workers = Annotated[str, option(MANY, "-T", "--workers", "N", WORKERS_HELP)]
Shard = Annotated[str, option(MANY, "", "--shard", "I/N", SHARD_HELP)]
StartAt = Annotated[str, option(MANY, "", "--start-at", "TIME", START_HELP)]
ReadyPath = Annotated[str, option(RESULT, "", "--ready-file", "PATH", READY_HELP)]
DryRun = Annotated[bool, flag(RESULT, "", "--dry-run", DRY_RUN_HELP)]
ServedFile = Annotated[str, option(RESULT, "-o", "--out", "FILE", SERVED_HELP)]
Keep = Annotated[str, option(RESULT, "", "--keep", "TIME", KEEP_HELP)]
LogFormat = Annotated[str, option(RESULT, "", "--format", "FORMAT", LOG_HELP)]
Folder = Annotated[str, option(RESULT, "-o", "--out", "FOLDER", FOLDER_HELP)]
FoundFile = Annotated[str, option(RESULT, "", "--json", "FILE", FOUND_HELP)]
Linger = Annotated[str, option(RESULT, "", "--linger", "TIME", LINGER_HELP)]
LingerScrapes = Annotated[str, option(RESULT, "", "--linger-scrapes", "N", SCRAPES_HELP)]
Metrics = Annotated[str, option(RESULT, "", "--metrics", "ADDRESS:PORT", METRICS_HELP)]
ServeMetrics = Annotated[str, option(RESULT, "", "--metrics", "ADDRESS:PORT", SERVE_METRICS_HELP)]
HttpPort = Annotated[str, option(RESULT, "", "--http", "PORT", HTTP_HELP)]
Fail = Annotated[Texts, option(RESULT, "", "--fail", "WHEN", FAIL_HELP)]
AbortOn = Annotated[Texts, option(RESULT, "", "--abort-on", "WHEN", ABORT_HELP)]
MaxExternal = Annotated[str, option(RESULT, "", "--max-external-qps", "RATE", MAX_EXTERNAL_HELP)]
MaxQps = Annotated[str, option(RESULT, "", "--max-qps", "RATE", MAX_QPS_HELP)]
IN_CLUSTER = "In a cluster"
ImageName = Annotated[str, option(IN_CLUSTER, "", "--image", "REF", "The prober's image, as its nodes pull it.")]
Kind = Annotated[str, option(IN_CLUSTER, "", "--kind", "KIND", KIND_HELP)]
ObjectName = Annotated[
    str, option(IN_CLUSTER, "", "--name", "NAME", "Of the Job or its like (default the scenario's).")
]
ManifestCluster = Annotated[str, option(IN_CLUSTER, "", "--cluster", "UID", MANIFEST_CLUSTER_HELP)]
Shards = Annotated[
    OneText, option(IN_CLUSTER, "", "--shards", "N", "Of an Indexed Job: pods that share the run (default 4).")
]
Schedule = Annotated[str, option(IN_CLUSTER, "", "--schedule", "CRON", "Of a CronJob (default 17 * * * *).")]
HostNetwork = Annotated[bool, flag(IN_CLUSTER, "", "--host-network", HOST_NETWORK_HELP)]
PodMonitor = Annotated[bool, flag(IN_CLUSTER, "", "--pod-monitor", POD_MONITOR_HELP)]
