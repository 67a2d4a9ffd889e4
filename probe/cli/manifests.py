"""A scenario in; the manifests that have it run in a cluster out, for `kubectl apply -f -`."""

from __future__ import annotations

from typing import Any

import typer

from probe.cli import options
from probe.cli.options import asking
from probe.cli.output import say
from probe.cli.run import run
from probe.cli.serve import serve
from probe.cluster.kube import named_service
from probe.errors import UsageError
from probe.scenario.manifests import ENDLESS, HOME, KINDS, MOST_SHARDS, SYSTEM, Wanted
from probe.scenario.manifests import manifests as filled_in
from probe.scenario.quantity import whole

EXAMPLES = options.examples(
    "dnsprobe manifests watch-upgrade --image registry.example.com/dnsprobe:0.1.0 | kubectl apply -f -",
    "dnsprobe manifests my.yaml --image IMAGE --kind indexed-job --shards 8 --max-qps 5000",
    "dnsprobe manifests baseline --image IMAGE --kind cronjob --schedule '17 * * * *' --set duration=60s",
    "dnsprobe manifests every-node --image IMAGE --kind daemonset --pod-monitor --keep 6h",
    "dnsprobe manifests rolling-restart --image IMAGE --cluster 5b1fa2b2-5d3c-4a8f-8a3f-0b9d3c1f7e11",
)
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
_OURS = {
    **dict.fromkeys(("lab", "dry_run"), "a manifest is for a cluster: say it to `dnsprobe run`"),
    "context": "in a cluster there is none: the prober's service account says which it is",
    **dict.fromkeys(("out", "form", "json_file", "metrics"), "the manifest says where results go"),
    **dict.fromkeys(("shard", "start_at"), "say --kind indexed-job, which shares a run out"),
}


def manifests(
    typed: typer.Context,
    scenario: asking.ScenarioName,
    image: asking.ImageName = "",
    kind: asking.Kind = "job",
    name: asking.ObjectName = "",
    namespace: options.Namespace = HOME,
    cluster: asking.ManifestCluster = "",
    shards: asking.Shards = None,
    schedule: asking.Schedule = "",
    host_network: asking.HostNetwork = False,
    pod_monitor: asking.PodMonitor = False,
) -> None:
    """Print what has a scenario run in a cluster, for kubectl apply -f -. Other options are those of its run."""
    if not image:
        raise UsageError("--image: which? Build one with the Dockerfile, push it to your registry, and name it there")
    if kind not in KINDS:
        raise UsageError(f"--kind {kind!r}: say {', '.join(KINDS)}")
    told = _checked(scenario, typed.args, endless=kind in ENDLESS)
    service = told.get("service")
    wanted = Wanted(
        scenario=scenario,
        image=image,
        kind=kind,
        options=tuple(typed.args),
        settings=tuple(told.get("setting") or ()),
        name=name,
        namespace=namespace,
        dns_namespace=options.typed("--service", service, named_service)[0] if service else SYSTEM,
        cluster=cluster,
        shards=options.typed("--shards", shards, lambda text: whole(text, 2, MOST_SHARDS, "shards")) if shards else 0,
        schedule=schedule,
        host_network=host_network,
        pod_monitor=pod_monitor,
    )
    say(filled_in(wanted).rstrip("\n"))


def _checked(scenario: str, words: list[str], *, endless: bool) -> dict[str, Any]:
    """What the options of the run say, read as its command reads them; UsageError for one that has no place here."""
    app = typer.Typer(add_completion=False)
    app.command()(serve if endless else run)
    read = typer.main.get_command(app).make_context(f"dnsprobe {'serve' if endless else 'run'}", [scenario, *words])
    given = {}
    for option in read.command.params:
        source = read.get_parameter_source(option.name)
        if source and source.name == "COMMANDLINE":
            given[option.name] = read.params[option.name]
            ad_hoc = set(option.opts) & set(asking.LETTERS.values())
            if why := "not with a scenario" if ad_hoc else _OURS.get(option.name):
                raise UsageError(f"{option.opts[-1]}: {why}")
    return given
