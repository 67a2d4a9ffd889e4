"""The options of commands that say what to change: audit, recommend, explain."""

from __future__ import annotations

from typing import Annotated

import typer

from probe.advice import PLATFORMS
from probe.cli.options import CONTEXT_HELP, RESULT, SERVICE_HELP, OneText, Texts, flag, option

PROPAGATION = "How late nodes learn of a pod's end"
AUDITED, PLANNED = "What is audited", "What is planned"
QUERY_LOG_HELP = "Lines of CoreDNS's query log (plugin log): lost queries are looked for in it, by source port and id."
PLATFORM_HELP = f"Who keeps CoreDNS's settings: {', '.join(PLATFORMS)} (default kubeadm)."
DELETIONS_HELP = "Delete so many pods, one after the other; the longest counts (default 1)."
KNOWN_HELP = "Delete no pod: nodes learn of its end so late, at the longest."
ADVICE_FILE_HELP = "Write the recommendation as JSON, too; - is stdout."
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
PlatformName = Annotated[str, option(PROPAGATION, "", "--platform", "NAME", PLATFORM_HELP)]
Deletions = Annotated[str, option(PROPAGATION, "", "--repeats", "N", DELETIONS_HELP)]
Known = Annotated[str, option(PROPAGATION, "", "--propagation", "TIME", KNOWN_HELP)]
ExplainedFile = Annotated[str, typer.Argument(help="What `dnsprobe run` wrote.", show_default=False)]
ErrorText = Annotated[str, option(RESULT, "", "--error", "TEXT", "Instead of a run: what a client's message means.")]
Took = Annotated[str, option(RESULT, "", "--took", "TIME", "How long that client's lookup took: 5s.")]
QueryLog = Annotated[str, option(RESULT, "", "--log", "FILE", QUERY_LOG_HELP)]
AdviceFile = Annotated[str, option(RESULT, "", "--json", "FILE", ADVICE_FILE_HELP)]
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
