"""A scenario's YAML -> a checked plan, or what is wrong with it: file, line, key, value, remedy."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, ValidationError, WithJsonSchema

from probe.clients.asking import CONF_FACT
from probe.cluster.settings import Delay, LabSettings
from probe.cluster.upstream import mode_of
from probe.cluster.zone import HEALTH_PORT, METRICS_PORT, READY_PORT
from probe.errors import ScenarioError, UsageError
from probe.model import NS, Target, TargetKind
from probe.scenario.abort import read_rule
from probe.scenario.clients import ClientKeys, asking_of
from probe.scenario.document import Document, Place, override, parse_document
from probe.scenario.fields import Name, Part, Port, Scalar, Seconds, Text, Truth, field_of, shape_of
from probe.scenario.lane import Around, LaneKeys, PaceKeys, QuestionKeys, RampKeys, lane_of
from probe.scenario.matrix import MatrixKeys
from probe.scenario.plan import ALL_SERVERS, BESIDE_DNS, CLUSTER_TARGETS, Plan, checked_objective
from probe.scenario.quantity import DAY_NS, address_of, duration_ns, port_of, seconds_text, whole
from probe.scenario.steps import Step, read_step, step_schema, waited_ns
from probe.scenario.textfile import read_text

MOST_OCTETS = 256 * 1024


def _version(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?", text):
        return text
    raise UsageError(f"{text!r}: a version is like 1.33")


def _lab_port(text: str) -> int:
    taken = {HEALTH_PORT: "/health", READY_PORT: "/ready", METRICS_PORT: "/metrics"}
    if what := taken.get(port_of(text)):
        raise UsageError(f"{text!r}: there the pods serve {what}; choose another port for DNS, e.g. {_LAB.dns_port}")
    return port_of(text)


def _image(text: str) -> str:
    if text in ("auto", "real", "stand-in") or re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", text):
        return text
    raise UsageError(f"{text!r}: say auto, real, stand-in, or a version of CoreDNS such as 1.9.3")


def _mode(text: str) -> str:
    if text:
        mode_of(text)
    return text


def _delay(value: object) -> Delay:
    """`2s`, `1s to 5s`, `p50 1s p99 8s`."""
    allowed = "a delay is like 2s, `1s to 5s` (evenly between), or `p50 1s p99 8s` (lognormal)"
    if not isinstance(value, str):
        raise ValueError(f"{allowed}, not {shape_of(value)}")
    even = re.fullmatch(r"(\S+) to (\S+)", value.strip())
    skewed = re.fullmatch(r"p50 (\S+) p99 (\S+)", value.strip())
    both = even or skewed
    try:
        ends = [duration_ns(text, most=3600 * NS) / NS for text in (both.groups() if both else (value,))]
    except UsageError:
        raise ValueError(f"{value!r}: {allowed}") from None
    if ends[-1] < ends[0] or (skewed and not ends[0]):
        raise ValueError(f"{value!r}: the first of the two is the lower one, and p50 is above 0")
    return Delay(ends[0], ends[1], bool(skewed)) if both else Delay(ends[0])


def _delays(value: object) -> tuple[Delay, ...]:
    """One for all nodes, or a list with one for each."""
    return tuple(map(_delay, value)) if isinstance(value, list) else (_delay(value),)


Version = Annotated[str, field_of(_version)]


def _step(value: Any) -> Step:
    if isinstance(value, str):
        value = {value: ""}
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("a step is one key and its value: `- wait: 5s`")
    ((word, inner),) = value.items()
    if not isinstance(inner, str):
        raise ValueError(f"{word}: a single value is expected, not {shape_of(inner)}")
    try:
        return read_step(word, inner)
    except UsageError as problem:
        raise ValueError(str(problem)) from None


_LAB = LabSettings()
_Delays = Annotated[tuple[Delay, ...], PlainValidator(_delays, json_schema_input_type=Scalar | list[Scalar])]


class _Lab(Part):
    backend: Literal["loopback", "netns"] = "loopback"
    nodes: Annotated[int, field_of(lambda text: whole(text, 1, 20, "the number of nodes"))] = _LAB.nodes
    ip_family: Literal["ipv4", "ipv6"] = "ipv4"
    replicas: Annotated[int, field_of(lambda text: whole(text, 1, 50, "the number of replicas"))] = _LAB.replicas
    lameduck: Seconds = _LAB.lameduck
    grace_period: Seconds = _LAB.grace_period
    pre_stop: Seconds = _LAB.pre_stop
    readiness: Literal["ready", "health", "none"] = "ready"
    readiness_period: Annotated[float, field_of(lambda text: duration_ns(text, NS // 10, 3600 * NS) / NS)] = (
        _LAB.readiness_period
    )
    readiness_failures: Annotated[int, field_of(lambda text: whole(text, 1, 100, "the number of failures"))] = (
        _LAB.readiness_failures
    )
    propagation: _Delays = _LAB.propagation
    proxy_mode: Literal["iptables", "ipvs"] = "iptables"
    udp_timeout: Seconds | None = _LAB.udp_timeout
    expire_nodest_conn: Truth = _LAB.expire_nodest_conn
    kubernetes: Version = _LAB.kubernetes
    kernel: Version = _LAB.kernel
    coredns: Annotated[str, field_of(_image)] = _LAB.coredns
    max_unavailable: Annotated[int, field_of(lambda text: whole(text, 0, 50, "the number of pods"))] = (
        _LAB.max_unavailable
    )
    max_surge: Annotated[int, field_of(lambda text: whole(text, 0, 50, "the number of pods"))] = _LAB.max_surge
    min_ready_seconds: Seconds = _LAB.min_ready_seconds
    start_delay: Seconds = _LAB.start_delay
    rollout_after: Seconds = _LAB.rollout_after
    configmap_delay: Seconds = _LAB.configmap_delay
    node_grace: Seconds = _LAB.node_grace
    cache: Seconds = _LAB.cache
    upstream: Annotated[str, field_of(_mode)] = _LAB.upstream
    nodelocal: Truth = _LAB.nodelocal
    teardown: Seconds = _LAB.teardown
    port: Annotated[int, field_of(_lab_port)] | None = _LAB.port


class _Server(Part):
    name: Name
    address: Annotated[str, field_of(address_of)]
    port: Port = 53
    kind: Literal["server", "upstream", "nodelocal"] = "server"


class ScenarioKeys(Part):
    """The whole of it."""

    name: Name
    duration: Annotated[int, field_of(lambda text: duration_ns(text, NS, DAY_NS))]
    lab: _Lab = _Lab()
    servers: list[_Server] = Field([])
    lanes: Annotated[list[LaneKeys], Field(min_length=1, max_length=100)]
    steps: list[Annotated[Step, BeforeValidator(_step), WithJsonSchema(step_schema())]] = Field([])
    objectives: list[Text] = Field([])
    abort_on: list[Text] = Field([])
    clients: ClientKeys | None = None
    matrix: MatrixKeys | None = None


def read_scenario(path: str, settings: list[str] | None = None) -> Plan:
    """A file, or a shipped scenario's name, with `PATH=VALUE` settings put in -> a plan; else ScenarioError."""
    file = find_scenario(path)
    text = read_text(str(file), "a scenario in YAML", MOST_OCTETS)
    return read_scenario_text(str(file), text, settings or [])


def read_scenario_text(name: str, text: str, settings: list[str]) -> Plan:
    """read_scenario() from text; `name` stands for the file in errors."""
    return read_document(override(parse_document(name, text), settings), text, settings)


def read_document(document: Document, text: str, settings: list[str]) -> Plan:
    """The plan of a document; its text and the settings that were put into it are kept."""
    try:
        scenario = ScenarioKeys.model_validate(document.tree)
    except ValidationError as problems:
        raise ScenarioError("\n".join(_explained(document, p) for p in _telling(problems)[:10])) from None
    kept = text + "".join(f"# --set {setting}\n" for setting in settings)
    return _plan(scenario, document, kept)


def shipped_scenarios() -> dict[str, Path]:
    """The scenarios that come with dnsprobe: name -> file, by name."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_scenarios", package.parent / "scenarios"):
        if folder.is_dir():
            return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return {}


def find_scenario(path: str) -> Path:
    """The file, or the shipped scenario of that name; UsageError names the nearest."""
    shipped = shipped_scenarios()
    if path in shipped and not Path(path).is_file():
        return shipped[path]
    if Path(path).exists():
        return Path(path)
    nearest = "".join(f"; nearest: {name}" for name in get_close_matches(Path(path).stem, shipped, 1))
    raise UsageError(f"{path}: no such file or shipped scenario{nearest}; `dnsprobe scenarios` lists them")


def _telling(problems: ValidationError) -> list[Any]:
    """All but the keys that are only missing because they are misspelt."""
    errors: list[Any] = list(problems.errors())
    misspelt = {(*e["loc"][:-1], _nearest_key(e["loc"])) for e in errors if e["type"] == "extra_forbidden"}
    return [e for e in errors if e["type"] != "missing" or e["loc"] not in misspelt]


def _nearest_key(place: Place) -> str:
    return get_close_matches(str(place[-1]), _keys_at(place[:-1]), 1, 0.0)[0]


def _explained(document: Document, problem: Any) -> str:
    """A pydantic error as one line: file, line, key, value, what is allowed."""
    place: Place = tuple(problem["loc"])
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        text = f"unknown key; nearest: {_nearest_key(place)}; keys here are {', '.join(_keys_at(place[:-1]))}"
    elif kind == "missing":
        text = "missing; this key must be given"
    elif kind == "value_error":
        text = str(context["error"])
    elif kind == "literal_error":
        text = f"{value!r}: say {context['expected'].replace(chr(39), '')}"
    elif kind == "too_short":
        text = "empty; at least one is needed"
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        text = f"keys and values are expected here, not {shape_of(value)}"
    elif kind == "list_type":
        text = f"a list is expected here (lines that begin with a dash), not {shape_of(value)}"
    else:
        text = str(problem["msg"])
    return document.said(place, text)


def _keys_at(place: Place) -> list[str]:
    """The keys that are allowed at a place."""
    parts: dict[str, type[BaseModel]] = {
        "lab": _Lab,
        "servers": _Server,
        "lanes": LaneKeys,
        "questions": QuestionKeys,
        "ramp": RampKeys,
        "rates": PaceKeys,
        "clients": ClientKeys,
        "matrix": MatrixKeys,
    }
    words = [step for step in place if isinstance(step, str)]
    part = parts[words[-1]] if words else ScenarioKeys
    return [field.alias or name for name, field in part.model_fields.items()]


def _plan(scenario: ScenarioKeys, document: Document, text: str) -> Plan:
    servers = tuple(Target(s.name, TargetKind(s.kind), s.address, s.port) for s in scenario.servers)
    _each_once([s.name for s in servers], "servers", document)
    _each_once([lane.name for lane in scenario.lanes], "lanes", document)
    for i, server in enumerate(servers):
        if server.name in ("service", "pods", *BESIDE_DNS, ALL_SERVERS):
            raise document.error(("servers", i, "name"), f"{server.name!r} has a meaning already; choose another name")
    allowed = [*CLUSTER_TARGETS, *([ALL_SERVERS] if servers else []), *(s.name for s in servers)]
    around = Around(allowed, scenario.duration, bool(scenario.steps))
    lanes = tuple(lane_of(lane, i, around, document) for i, lane in enumerate(scenario.lanes))
    for i, lane in enumerate(lanes):
        if lane.shape.unbounded and len(lanes) > 1:
            raise document.error(("lanes", i, "rate"), "max takes all there is: give it a scenario without other lanes")
    steps = tuple(scenario.steps)
    if waited_ns(steps) >= scenario.duration:
        waited, lasts = seconds_text(waited_ns(steps)), seconds_text(scenario.duration)
        raise document.error(("steps",), f"they wait {waited} in all, but the run lasts {lasts}: make duration longer")
    for i, objective in enumerate(scenario.objectives):
        document.at(("objectives", i), partial(checked_objective, objective, [lane.name for lane in lanes]))
    for i, rule in enumerate(scenario.abort_on):
        document.at(("abort_on", i), partial(read_rule, rule, [lane.name for lane in lanes]))
    dns = [name for name in allowed if name not in BESIDE_DNS]
    clients = asking_of(scenario.clients, dns, document) if scenario.clients else None
    return Plan(
        name=scenario.name,
        scenario=text,
        duration_ns=scenario.duration,
        lanes=lanes,
        servers=servers,
        lab=LabSettings(**dict(scenario.lab)),
        steps=steps,
        objectives=tuple(scenario.objectives),
        abort_on=tuple(scenario.abort_on),
        clients=clients,
        facts={CONF_FACT: clients.told} if clients else {},
        places={lane.name: document.said(("lanes", i), "").removesuffix(": ") for i, lane in enumerate(lanes)},
    )


def _each_once(names: list[str], key: str, document: Document) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise document.error((key, i, "name"), f"{name!r} is there twice")
