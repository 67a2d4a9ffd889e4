"""A scenario's YAML -> a checked plan, or what is wrong with it: file, line, key, value, remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from probe.book import by_type, pattern
from probe.cluster.settings import LabSettings
from probe.cluster.zone import HEALTH_PORT, METRICS_PORT, READY_PORT
from probe.errors import ScenarioError, UsageError
from probe.model import NS, Lane, Ports, Question, Target, TargetKind
from probe.scenario.document import Document, Place, override, parse_document
from probe.scenario.load import (
    Load,
    arriving,
    burst_of,
    check_burst,
    check_length,
    check_pair,
    check_ports,
    load_of,
    pausing_rate_of,
    ramp,
    staged,
    window_of,
    within,
)
from probe.scenario.names import MOST_SUFFIXES, NDOTS, Asking, edns_of, edns_size_of, ndots_of, suffix_of
from probe.scenario.plan import ALL_SERVERS, CLUSTER_TARGETS, Plan, checked_objective
from probe.scenario.quantity import DAY_NS, address_of, duration_ns, port_of, rate_of, seconds_text, timeout_of, whole
from probe.scenario.steps import Step, read_step, waited_ns
from probe.scenario.textfile import read_text
from probe.wire import qtype_number

MOST_OCTETS = 256 * 1024
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"
TIMEOUT_NS = 2 * NS

T = TypeVar("T")


def _field(read: Callable[[str], T]) -> PlainValidator:
    """A field that is read from the text typed; what is allowed comes from the reader's UsageError."""

    def checked(value: object) -> T:
        if not isinstance(value, str):
            raise ValueError(f"a single value is expected here, not {_shape(value)}")
        try:
            return read(value)
        except UsageError as problem:
            raise ValueError(str(problem)) from None

    return PlainValidator(checked)


def _shape(value: object) -> str:
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "a text"


def _name(text: str) -> str:
    if re.fullmatch(NAME, text):
        return text
    raise UsageError(f"{text!r}: a name has 1 to 60 letters, digits, dots, dashes and underlines")


def _version(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?", text):
        return text
    raise UsageError(f"{text!r}: a version is like 1.33")


def _lab_port(text: str) -> int:
    taken = {HEALTH_PORT: "/health", READY_PORT: "/ready", METRICS_PORT: "/metrics"}
    if what := taken.get(port_of(text)):
        raise UsageError(f"{text!r}: there the pods serve {what}; choose another port for DNS, e.g. {_LAB.port}")
    return port_of(text)


def _truth(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "false", "no", "off"):
        return text.lower() in ("true", "yes", "on")
    raise UsageError(f"{text!r}: say true or false")


def _seconds(text: str) -> float:
    return duration_ns(text, most=3600 * NS) / NS


Name = Annotated[str, _field(_name)]
Text = Annotated[str, _field(str)]
Seconds = Annotated[float, _field(_seconds)]
Port = Annotated[int, _field(port_of)]
Version = Annotated[str, _field(_version)]
Truth = Annotated[bool, _field(_truth)]


def _step(value: Any) -> Step:
    if isinstance(value, str):
        value = {value: ""}
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("a step is one key and its value: `- wait: 5s`")
    ((word, inner),) = value.items()
    if not isinstance(inner, str):
        raise ValueError(f"{word}: a single value is expected, not {_shape(inner)}")
    try:
        return read_step(word, inner)
    except UsageError as problem:
        raise ValueError(str(problem)) from None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


_LAB = LabSettings()


class _Lab(_Part):
    replicas: Annotated[int, _field(lambda text: whole(text, 1, 50, "the number of replicas"))] = _LAB.replicas
    lameduck: Seconds = _LAB.lameduck
    grace_period: Seconds = _LAB.grace_period
    pre_stop: Seconds = _LAB.pre_stop
    readiness_period: Annotated[float, _field(lambda text: duration_ns(text, NS // 10, 3600 * NS) / NS)] = (
        _LAB.readiness_period
    )
    readiness_failures: Annotated[int, _field(lambda text: whole(text, 1, 100, "the number of failures"))] = (
        _LAB.readiness_failures
    )
    propagation: Seconds = _LAB.propagation
    proxy_mode: Literal["iptables", "ipvs"] = "iptables"
    udp_timeout: Seconds | None = _LAB.udp_timeout
    expire_nodest_conn: Truth = _LAB.expire_nodest_conn
    kubernetes: Version = _LAB.kubernetes
    kernel: Version = _LAB.kernel
    coredns: Literal["auto", "real", "stand-in"] = "auto"
    start_delay: Seconds = _LAB.start_delay
    teardown: Seconds = _LAB.teardown
    port: Annotated[int, _field(_lab_port)] = _LAB.port


class _Server(_Part):
    name: Name
    address: Annotated[str, _field(address_of)]
    port: Port = 53
    kind: Literal["server", "upstream", "nodelocal"] = "server"


class _Question(_Part):
    name: Text
    type: Text = ""
    expect: Text = ""
    weight: Annotated[int, _field(lambda text: whole(text, 1, 1000, "a weight"))] = 1


def _question(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class _Ramp(_Part):
    first: Annotated[Fraction, _field(pausing_rate_of)] = Field(alias="from")
    last: Annotated[Fraction, _field(rate_of)] = Field(alias="to")
    over: Annotated[int, _field(lambda text: duration_ns(text, NS // 10))]


class _Pace(_Part):
    rate: Annotated[Fraction, _field(pausing_rate_of)]
    ns: Annotated[int, _field(lambda text: duration_ns(text, NS // 10))] = Field(alias="for")


class _Lane(_Part):
    name: Name
    target: Text
    transport: Literal["udp", "tcp"] = "udp"
    ports: Text = "fresh"
    rate: Annotated[Load, _field(load_of)] | None = None
    ramp: _Ramp | None = None
    rates: Annotated[list[_Pace], Field(min_length=1)] | None = None
    arrivals: Text = "even"
    max_inflight: Annotated[int, _field(window_of)] | None = None
    pair: Truth = False
    gso: Annotated[int, _field(burst_of)] = 1
    timeout: Annotated[int, _field(timeout_of)] = TIMEOUT_NS
    questions: Annotated[list[Annotated[_Question, BeforeValidator(_question)]], Field(min_length=1)]
    types: Annotated[list[Text], Field(min_length=1)] = ["A", "AAAA"]
    search: Annotated[list[Annotated[str, _field(suffix_of)]], Field(max_length=MOST_SUFFIXES)] = []
    ndots: Annotated[int, _field(ndots_of)] = NDOTS
    edns: Annotated[int, _field(edns_size_of)] | None = None
    dnssec: Truth = False
    nsid: Truth = False
    external: Truth = False


class _Scenario(_Part):
    name: Name
    duration: Annotated[int, _field(lambda text: duration_ns(text, NS, DAY_NS))]
    lab: _Lab = _Lab()
    servers: list[_Server] = []
    lanes: Annotated[list[_Lane], Field(min_length=1, max_length=100)]
    steps: list[Annotated[Step, BeforeValidator(_step)]] = []
    objectives: list[Text] = []


def read_scenario(path: str, settings: list[str] | None = None) -> Plan:
    """A file, or a shipped scenario's name, with `PATH=VALUE` settings put in -> a plan; else ScenarioError."""
    file = find_scenario(path)
    text = read_text(str(file), "a scenario in YAML", MOST_OCTETS)
    return read_scenario_text(str(file), text, settings or [])


def read_scenario_text(name: str, text: str, settings: list[str]) -> Plan:
    """read_scenario() from text; `name` stands for the file in errors."""
    document = override(parse_document(name, text), settings)
    try:
        scenario = _Scenario.model_validate(document.tree)
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
        text = f"keys and values are expected here, not {_shape(value)}"
    elif kind == "list_type":
        text = f"a list is expected here (lines that begin with a dash), not {_shape(value)}"
    else:
        text = str(problem["msg"])
    return document.said(place, text)


def _keys_at(place: Place) -> list[str]:
    """The keys that are allowed at a place."""
    parts: dict[str, type[BaseModel]] = {
        "lab": _Lab,
        "servers": _Server,
        "lanes": _Lane,
        "questions": _Question,
        "ramp": _Ramp,
        "rates": _Pace,
    }
    words = [step for step in place if isinstance(step, str)]
    part = parts[words[-1]] if words else _Scenario
    return [field.alias or name for name, field in part.model_fields.items()]


def _plan(scenario: _Scenario, document: Document, text: str) -> Plan:
    servers = tuple(Target(s.name, TargetKind(s.kind), s.address, s.port) for s in scenario.servers)
    _each_once([s.name for s in servers], "servers", document)
    _each_once([lane.name for lane in scenario.lanes], "lanes", document)
    for i, server in enumerate(servers):
        if server.name in (*CLUSTER_TARGETS, ALL_SERVERS):
            raise document.error(("servers", i, "name"), f"{server.name!r} has a meaning already; choose another name")
    allowed = [*CLUSTER_TARGETS, *([ALL_SERVERS] if servers else []), *(s.name for s in servers)]
    lanes = tuple(_lane(lane, i, allowed, scenario, document) for i, lane in enumerate(scenario.lanes))
    steps = tuple(scenario.steps)
    if waited_ns(steps) >= scenario.duration:
        waited, lasts = seconds_text(waited_ns(steps)), seconds_text(scenario.duration)
        raise document.error(("steps",), f"they wait {waited} in all, but the run lasts {lasts}: make duration longer")
    for i, objective in enumerate(scenario.objectives):
        _at(document, ("objectives", i), partial(checked_objective, objective, [lane.name for lane in lanes]))
    return Plan(
        name=scenario.name,
        scenario=text,
        duration_ns=scenario.duration,
        lanes=lanes,
        servers=servers,
        lab=LabSettings(**scenario.lab.model_dump()),
        steps=steps,
        objectives=tuple(scenario.objectives),
        places={lane.name: document.said(("lanes", i), "").removesuffix(": ") for i, lane in enumerate(lanes)},
    )


def _lane(lane: _Lane, i: int, targets: list[str], scenario: _Scenario, document: Document) -> Lane:
    here: Place = ("lanes", i)
    if lane.target not in targets:
        nearest = get_close_matches(lane.target, targets, 1, 0.0)[0]
        said = f"{lane.target!r}: unknown target; nearest: {nearest}; targets are {', '.join(targets)}"
        raise document.error((*here, "target"), said)
    ports = _at(document, (*here, "ports"), lambda: Ports.parse(lane.ports, lane.transport))
    for k, qtype in enumerate(lane.types):
        _at(document, (*here, "types", k), partial(qtype_number, qtype))
    questions, weights = _questions(lane, here, document)
    load = _load(lane, here, scenario, document)
    shape = load.shape
    _at(document, (*here, "ports"), lambda: check_ports(lane.transport, ports, shape))
    if lane.pair:
        _at(document, (*here, "pair"), lambda: check_pair(lane.transport, shape, questions, weights))
    if lane.gso > 1:
        changes = bool(scenario.steps)
        _at(document, (*here, "gso"), lambda: check_burst(lane.transport, ports, shape, changes))
    return Lane(
        *(lane.name, lane.target, lane.transport, ports, load.rate, lane.timeout, questions, weights),
        *(shape, lane.pair, lane.gso),
    )


def _load(lane: _Lane, here: Place, scenario: _Scenario, document: Document) -> Load:
    """How much a lane asks: exactly one of rate, ramp and rates says it."""
    said = [key for key in ("rate", "ramp", "rates") if getattr(lane, key) is not None]
    if not said:
        raise document.error((*here, "rate"), "missing; this key must be given, or ramp, or rates")
    if len(said) > 1:
        raise document.error((*here, said[1]), f"gives the rate itself: leave out {said[0]}")
    load = lane.rate
    if lane.ramp:
        load = ramp(lane.ramp.first, lane.ramp.last, lane.ramp.over)
    elif lane.rates or not load:
        load = _at(document, (*here, "rates"), lambda: staged([(pace.rate, pace.ns) for pace in lane.rates or []]))
    changing = load
    _at(document, (*here, said[0]), lambda: check_length(changing, scenario.duration))
    load = _at(document, (*here, "arrivals"), lambda: arriving(changing, lane.arrivals))
    if (window := lane.max_inflight) is None:
        return load
    return _at(document, (*here, "max_inflight"), lambda: within(load, window))


def _questions(lane: _Lane, here: Place, document: Document) -> tuple[tuple[Question, ...], tuple[int, ...]]:
    """A lane's questions, and their weights unless all are alike."""
    if "ndots" in lane.model_fields_set and not lane.search:
        raise document.error((*here, "ndots"), "goes with search: without it a name is asked as it stands")
    asking = Asking(edns_of(lane.edns, lane.dnssec, lane.nsid), tuple(lane.search), lane.ndots, lane.external)
    weighed: list[tuple[Question, int]] = []
    for j, asked in enumerate(lane.questions):
        for qtype in [asked.type] if asked.type else lane.types:
            read = partial(asking.questions, asked.name, qtype, asked.expect)
            weighed += [(question, asked.weight) for question in _at(document, (*here, "questions", j), read)]
    questions, weights = tuple(q for q, _ in weighed), tuple(weight for _, weight in weighed)
    if len(set(weights)) == 1:
        return questions, ()
    for qtype in by_type(questions):
        mine = [weight for question, weight in weighed if question.qtype == qtype]
        _at(document, (*here, "questions"), partial(pattern, mine))
    return questions, weights


def _each_once(names: list[str], key: str, document: Document) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise document.error((key, i, "name"), f"{name!r} is there twice")


def _at(document: Document, place: Place, read: Callable[[], T]) -> T:
    """What `read` gives; its UsageError with the place before it."""
    try:
        return read()
    except UsageError as problem:
        raise document.error(place, str(problem)) from None
