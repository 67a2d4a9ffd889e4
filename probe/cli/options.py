"""Words of a command line -> the values a command gets: every option of every command, with its help."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

import typer

from probe.advice import PLATFORMS
from probe.cluster.kube.board import HOME
from probe.errors import UsageError
from probe.report import REPORTS
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

T = TypeVar("T")

RATES = "Rates"
AD_HOC, SCENARIO, RESULT = "Ad hoc: a server, in dnsperf's letters", "A scenario", "What comes of it"
PROPAGATION = "How late nodes learn of a pod's end"
AUDITED, PLANNED = "What is audited", "What is planned"
PAGES = "Files beside what is printed; html, png and svg need: pip install 'dnsprobe[report]'"
MANY = "Many processes, many machines"
EXPECT_HELP = (
    "What is good: answer, nodata, nxdomain, servfail, refused, truncated, or some of them joined by |; any; pinned,"
    " what the first ten replies mostly are; same, what the other servers say; or addresses joined by commas"
    " (default answer, for AAAA answer|nodata)."
)
NAME_HELP = (
    f"Ask for it; repeatable; {{random}} or {{number}} in it is another label in each query (default {DEFAULT_NAME})."
)
SCHEMA_HELP = "Print the JSON Schema of a scenario, for editors that complete and check YAML."
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
QUERY_LOG_HELP = "Lines of CoreDNS's query log (plugin log): lost queries are looked for in it, by source port and id."
LENGTH_HELP = "Seconds, or 5m (default 10; with --ramp as long as it takes)."
LAB_HELP = "Run it in the lab: CoreDNS pods and a Service on this machine (lab.backend)."
CONTEXT_HELP = "Of the kubeconfig: which cluster (default the current one, or the one whose pod this is)."
SERVICE_HELP = "Of the cluster: its DNS (default kube-system's with the label k8s-app=kube-dns)."
DRY_RUN_HELP = "Print lanes, planned queries and steps (of a real cluster as it is now); ask and change nothing."
REPEATS_HELP = "Of a matrix: how often each cell is run (default its own); more continue a sweep."
JOBS_HELP = "Of a matrix: how many cells run at a time (default what this machine bears)."
CELL_HELP = "Of a sweep: that run, CELL or CELL.REPEAT, instead of the table."
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
JOB_HELP = "job/NAME: the Job whose runs are to end, with their reports."
HOME_HELP = f"Its namespace (default {HOME})."
STOP_HELP = "How long its pods have to say that they heard it (default 30s)."
PARTIAL_HELP = "Though shards are missing, or were killed: what these have not asked is undecided."
LAST_HELP = "That stretch before the end alone, or, of a run that goes on, before now (default all that is kept)."
OUT_HELP = "The run file (default dnsprobe-NAME-TIME.db in this folder)."
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
FORMAT_HELP = f"What is printed: {', '.join(REPORTS)} (default text)."
JSON_HELP = "Write the report as JSON, too; - is stdout."
FAIL_HELP = "An objective is missed if this holds, e.g. 'loss > 0.1%'; repeatable; replaces all other objectives."
ABORT_HELP = (
    f"End the run, its changes undone, once this held, e.g. '{RULE}'; repeatable; beside the scenario's own rules."
)
OBJECTIVE_HELP = f"What must hold at a rate; repeatable (default {', '.join(OBJECTIVES)})."
STEP_HELP = "How long each rate is asked (default 5s)."
PRECISION_HELP = "How near the rates that met and missed are in the end (default 5%)."
FOLDER_HELP = "The folder of the run files, one for each rate (default dnsprobe-capacity-TIME in this folder)."
FOUND_HELP = "Write what was found as JSON, too; - is stdout."
PLATFORM_HELP = f"Who keeps CoreDNS's settings: {', '.join(PLATFORMS)} (default kubeadm)."
DELETIONS_HELP = "Delete so many pods, one after the other; the longest counts (default 1)."
KNOWN_HELP = "Delete no pod: nodes learn of its end so late, at the longest."
ADVICE_FILE_HELP = "Write the recommendation as JSON, too; - is stdout."
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

SNAPSHOT_HELP = "Instead of a cluster: a file or folder of --save or of kubectl get ... -o yaml; repeatable."
SAVE_HELP = "Write what was read: YAML, or JSON if it ends in .json; with --snapshot it can be audited anywhere."
MANAGEMENT_HELP = "The context of the management cluster, with Cluster API's KubeadmControlPlanes."
LAB_AUDIT_HELP = "Audit the lab: its settings as the objects that they stand for."
TARGET_HELP = "CoreDNS's version after the upgrade, such as 1.12.1."
VENDOR_HELP = f"Who keeps CoreDNS's objects: {', '.join(PLATFORMS)} (default by their signs)."
LATE_HELP = (
    "How late the last node learns of a pod's end: 4s, or kube-proxy: the 99th percentile of its own metric (default"
    " 10s)."
)
FROM_RUN_HELP = "A run of this cluster: how late its nodes learned, what was lost and why, beside what is configured."
ONLY_HELP = "Of the checks these alone, C05,C16; repeatable."
SKIP_HELP = "Not these; repeatable."
EXPLAIN_HELP = "What a check looks at and why, and where that is from."
FAIL_ON_HELP = "What the exit code 1 stands for: fail or warn (default fail)."
MIGRATE_HELP = "Print the Corefile for --target-version as a diff, and nothing else."
AGAINST_HELP = "A snapshot from before the upgrade: what has been overwritten since, and the patch that puts it back."

YES_HELP = "Change a real cluster as the scenario says; with --cluster."
CLUSTER_HELP = "The name of the cluster that may be changed: the context's; in a pod the UID of namespace kube-system."
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

OneText = str | None
Texts = list[str] | None
OneFlag = bool | None


def option(panel: str, letter: str, word: str, metavar: str, text: str) -> Any:
    """An option with a value. Its default is said in its help, for None means that it was left out."""
    names = [name for name in (letter, word) if name]
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


def flag(panel: str, letter: str, word: str, text: str) -> Any:
    """An option without a value; a default of None tells that it was left out."""
    names = [name for name in (letter, word) if name]
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


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

InLab = Annotated[bool, flag(SCENARIO, "", "--lab", LAB_HELP)]
Context = Annotated[OneText, option(SCENARIO, "", "--context", "NAME", CONTEXT_HELP)]
ServiceName = Annotated[OneText, option(SCENARIO, "", "--service", "NAMESPACE/NAME", SERVICE_HELP)]
PerNode = Annotated[OneText, option(SCENARIO, "", "--per-node", "N", PER_NODE_HELP)]
Yes = Annotated[bool, flag(SCENARIO, "", "--yes", YES_HELP)]
UndoYes = Annotated[bool, flag(SCENARIO, "", "--yes", "Take it back; with --cluster.")]
ClusterName = Annotated[str, option(SCENARIO, "", "--cluster", "NAME", CLUSTER_HELP)]
AllowOutage = Annotated[bool, flag(SCENARIO, "", "--allow-outage", OUTAGE_HELP)]
Settings = Annotated[Texts, option(SCENARIO, "", "--set", "PATH=VALUE", "Change a value; repeatable.")]

PlatformName = Annotated[str, option(PROPAGATION, "", "--platform", "NAME", PLATFORM_HELP)]
Deletions = Annotated[str, option(PROPAGATION, "", "--repeats", "N", DELETIONS_HELP)]
Known = Annotated[str, option(PROPAGATION, "", "--propagation", "TIME", KNOWN_HELP)]

Repeats = Annotated[OneText, option(SCENARIO, "", "--repeats", "N", REPEATS_HELP)]
Jobs = Annotated[OneText, option(SCENARIO, "", "--jobs", "N", JOBS_HELP)]
OneCell = Annotated[str, option(RESULT, "", "--cell", "CELL", CELL_HELP)]

Lowest = Annotated[OneText, option(RATES, "", "--from", "RATE", "The first rate (default 1000).")]
Highest = Annotated[OneText, option(RATES, "", "--to", "RATE", "The last one (default 1M).")]
StepLength = Annotated[OneText, option(RATES, "", "--step-length", "TIME", STEP_HELP)]
Precision = Annotated[OneText, option(RATES, "", "--precision", "PERCENT", PRECISION_HELP)]
Objectives = Annotated[Texts, option(RATES, "", "--objective", "WHAT", OBJECTIVE_HELP)]

Workers = Annotated[str, option(MANY, "-T", "--workers", "N", WORKERS_HELP)]
Shard = Annotated[str, option(MANY, "", "--shard", "I/N", SHARD_HELP)]
StartAt = Annotated[str, option(MANY, "", "--start-at", "TIME", START_HELP)]
ReadyPath = Annotated[str, option(RESULT, "", "--ready-file", "PATH", READY_HELP)]
JobName = Annotated[str, typer.Argument(metavar="job/NAME", help=JOB_HELP, show_default=False)]
Namespace = Annotated[str, option(MANY, "-n", "--namespace", "NAME", HOME_HELP)]
StopWait = Annotated[str, option(MANY, "", "--wait", "TIME", STOP_HELP)]

Last = Annotated[str, option(RESULT, "", "--last", "TIME", LAST_HELP)]
DryRun = Annotated[bool, flag(RESULT, "", "--dry-run", DRY_RUN_HELP)]
RunFile = Annotated[str, option(RESULT, "-o", "--out", "FILE", OUT_HELP)]
ServedFile = Annotated[str, option(RESULT, "-o", "--out", "FILE", SERVED_HELP)]
Keep = Annotated[str, option(RESULT, "", "--keep", "TIME", KEEP_HELP)]
LogFormat = Annotated[str, option(RESULT, "", "--format", "FORMAT", LOG_HELP)]
MergedFile = Annotated[str, option(RESULT, "-o", "--out", "FILE", "The run file that is written.")]
Folder = Annotated[str, option(RESULT, "-o", "--out", "FOLDER", FOLDER_HELP)]
Partial = Annotated[bool, flag(RESULT, "", "--partial", PARTIAL_HELP)]
Format = Annotated[str, option(RESULT, "", "--format", "FORMAT", FORMAT_HELP)]
ExplainedFile = Annotated[str, typer.Argument(help="What `dnsprobe run` wrote.", show_default=False)]
ErrorText = Annotated[str, option(RESULT, "", "--error", "TEXT", "Instead of a run: what a client's message means.")]
Took = Annotated[str, option(RESULT, "", "--took", "TIME", "How long that client's lookup took: 5s.")]
QueryLog = Annotated[str, option(RESULT, "", "--log", "FILE", QUERY_LOG_HELP)]
JsonFile = Annotated[str, option(RESULT, "", "--json", "FILE", JSON_HELP)]
HtmlFile = Annotated[str, option(PAGES, "", "--html", "FILE", "The timeline to zoom in, and its tables: one page.")]
PngFile = Annotated[str, option(PAGES, "", "--png", "FILE", "The timeline as a picture.")]
SvgFile = Annotated[str, option(PAGES, "", "--svg", "FILE", "The same in vectors.")]
MarkdownFile = Annotated[str, option(PAGES, "", "--markdown", "FILE", "The summary, as GitHub reads it.")]
CsvFile = Annotated[str, option(PAGES, "", "--csv", "FILE", "The disruptions, a line each.")]
JunitFile = Annotated[str, option(PAGES, "", "--junit", "FILE", "The objectives as test cases.")]
ComparedFile = Annotated[str, option(RESULT, "", "--json", "FILE", "Write the comparison as JSON, too; - is stdout.")]
ComparedPage = Annotated[str, option(RESULT, "", "--html", "FILE", "The timelines above each other: one page.")]
AdviceFile = Annotated[str, option(RESULT, "", "--json", "FILE", ADVICE_FILE_HELP)]
FoundFile = Annotated[str, option(RESULT, "", "--json", "FILE", FOUND_HELP)]
Schema = Annotated[bool, flag(RESULT, "", "--schema", SCHEMA_HELP)]
CheckFormat = Annotated[str, option(RESULT, "", "--format", "FORMAT", "text or json (default text).")]
KeptFile = Annotated[str, option(RESULT, "-o", "--out", "FILE", "Keep what was asked as a run file (default none).")]
Linger = Annotated[str, option(RESULT, "", "--linger", "TIME", LINGER_HELP)]
LingerScrapes = Annotated[str, option(RESULT, "", "--linger-scrapes", "N", SCRAPES_HELP)]
Metrics = Annotated[str, option(RESULT, "", "--metrics", "ADDRESS:PORT", METRICS_HELP)]
ServeMetrics = Annotated[str, option(RESULT, "", "--metrics", "ADDRESS:PORT", SERVE_METRICS_HELP)]
HttpPort = Annotated[str, option(RESULT, "", "--http", "PORT", HTTP_HELP)]
FleetFormat = Annotated[str, option(RESULT, "", "--format", "FORMAT", "What is printed: text, json (default text).")]
Fail = Annotated[Texts, option(RESULT, "", "--fail", "WHEN", FAIL_HELP)]
AbortOn = Annotated[Texts, option(RESULT, "", "--abort-on", "WHEN", ABORT_HELP)]
MaxExternal = Annotated[str, option(RESULT, "", "--max-external-qps", "RATE", MAX_EXTERNAL_HELP)]
MaxQps = Annotated[str, option(RESULT, "", "--max-qps", "RATE", MAX_QPS_HELP)]

SnapshotFiles = Annotated[Texts, option(AUDITED, "", "--snapshot", "FILE", SNAPSHOT_HELP)]
SaveFile = Annotated[str, option(AUDITED, "", "--save", "FILE", SAVE_HELP)]
AuditContext = Annotated[OneText, option(AUDITED, "", "--context", "NAME", CONTEXT_HELP)]
AuditService = Annotated[OneText, option(AUDITED, "", "--service", "NAMESPACE/NAME", SERVICE_HELP)]
ManagementContext = Annotated[OneText, option(AUDITED, "", "--management-context", "NAME", MANAGEMENT_HELP)]
AuditLab = Annotated[bool, flag(AUDITED, "", "--lab", LAB_AUDIT_HELP)]
AuditSettings = Annotated[Texts, option(AUDITED, "", "--set", "PATH=VALUE", "Of the lab: change a value; repeatable.")]
TargetVersion = Annotated[str, option(PLANNED, "", "--target-version", "VERSION", TARGET_HELP)]
Vendor = Annotated[str, option(PLANNED, "", "--vendor", "NAME", VENDOR_HELP)]
Late = Annotated[str, option(PLANNED, "", "--propagation", "TIME", LATE_HELP)]
FromRun = Annotated[str, option(PLANNED, "", "--from-run", "FILE", FROM_RUN_HELP)]
Against = Annotated[Texts, option(PLANNED, "", "--against", "FILE", AGAINST_HELP)]
Only = Annotated[Texts, option(RESULT, "", "--only", "CHECKS", ONLY_HELP)]
Skip = Annotated[Texts, option(RESULT, "", "--skip", "CHECKS", SKIP_HELP)]
ExplainCheck = Annotated[str, option(RESULT, "", "--explain", "CHECK", EXPLAIN_HELP)]
FailOn = Annotated[str, option(RESULT, "", "--fail-on", "SEVERITY", FAIL_ON_HELP)]
Migrate = Annotated[bool, flag(RESULT, "", "--migrate", MIGRATE_HELP)]
AuditFormat = Annotated[str, option(RESULT, "", "--format", "FORMAT", "text, json, junit or markdown (default text).")]

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


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def given(**values: Any) -> dict[str, Any]:
    """Those of them that were typed: what was left out is None."""
    return {name: value for name, value in values.items() if value is not None}


def typed(letter: str, text: str, read: Callable[[str], T]) -> T:
    """What was typed; UsageError names the option."""
    try:
        return read(text)
    except UsageError as problem:
        raise UsageError(f"{letter} {problem}") from None


def command_line() -> str:
    """What was typed in all, for the run file."""
    return shlex.join(["dnsprobe", *sys.argv[1:]])
