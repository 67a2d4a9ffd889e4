"""Shards from several nodes, merged -> who saw what: a matrix in text and JSON, and the nodes and zones that lag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from probe.doubts import doubts_of
from probe.model import NS, Series, Slice, TargetKind
from probe.outcome import Outcome
from probe.report.formats import REPORTS
from probe.report.nodes import lagging_zones, nodes_of
from probe.runfile import NODE_FACT, POD_FACT, ZONE_FACT, Run, merge, open_run
from probe.timeline.seen import seen_by
from tests.synthetic import series_of, written


def merged(folder: Path, silent: list[tuple[float, float]], zones: Mapping[str, str] | None = None) -> Run:
    """A prober on each node, whose Service lane is silent from .. to seconds; nobody else loses anything."""
    of = len(silent)
    paths = [folder / f"{k}.db" for k in range(of)]
    for k, (path, (from_s, to_s)) in enumerate(zip(paths, silent, strict=True)):
        series = [
            series_of(0, "vip-udp-fresh", "kube-dns", rate=20 * of, seconds=30),
            series_of(1, "pods", "coredns-668d6bf9bc-abcde", TargetKind.POD, rate=5 * of, seconds=30),
        ]

        def fate(s: Series, due_ns: int, from_ns: float = from_s * NS, to_ns: float = to_s * NS) -> Outcome:
            return Outcome.TIMEOUT if s.index == 0 and from_ns <= due_ns < to_ns else Outcome.ANSWER

        written(
            path, [replace(s, share=Slice(k, of)) for s in series], fate,
            facts={NODE_FACT: f"ip-10-0-{k}-17.eu-west-1.compute.internal", POD_FACT: f"watch-{k}-x7f2p"},
        )  # fmt: skip
    merge(paths, folder / "all.db", "dnsprobe merge", doubts_of, seen_by, zones=zones)
    return open_run(folder / "all.db")


def names(*numbers: int) -> set[str]:
    return {f"ip-10-0-{k}-17.eu-west-1.compute.internal" for k in numbers}


CALM, USUAL = (0.0, 0.0), (10.0, 11.0)


@pytest.mark.parametrize(
    ("silent", "lag"),
    [
        ([USUAL] * 3, set()),
        ([USUAL, USUAL, (10.0, 12.5)], {2}),
        ([USUAL, USUAL, (10.0, 11.9)], set()),
        ([USUAL, USUAL, (14.0, 15.0)], {2}),
        ([CALM, CALM, (10.0, 10.2)], set()),
        ([CALM, CALM, (10.0, 10.3)], {2}),
        ([CALM, (10.0, 12.0)], {1}),
        ([CALM, CALM, CALM], set()),
        ([(10.0, 14.0)] * 4, set()),
        ([(10.0, 14.0), (10.0, 14.0), CALM], set()),
    ],
)
def test_who_lags(silent: list[tuple[float, float]], lag: set[int], tmp_path: Path) -> None:
    """By twice the median's share and five rows, or by the end of the last disruption."""
    nodes = nodes_of(merged(tmp_path, silent))
    assert {node.name for node in nodes if node.lags} == names(*lag)


@pytest.mark.parametrize(
    ("silent", "zones", "lag"),
    [
        ([USUAL, USUAL, USUAL, (10.0, 15.0), (10.0, 16.0)], "aaabb", ["b"]),
        ([USUAL, USUAL, USUAL, (10.0, 15.0), USUAL], "aaabb", []),
        ([USUAL, USUAL, USUAL, (10.0, 15.0), (10.0, 15.0)], "aaaaa", []),
    ],
)
def test_a_zone_lags_where_all_its_nodes_do(
    silent: list[tuple[float, float]], zones: str, lag: list[str], tmp_path: Path
) -> None:
    by_node = dict(zip(sorted(names(*range(5))), zones, strict=True))
    assert lagging_zones(nodes_of(merged(tmp_path, silent, by_node))) == lag


@pytest.mark.parametrize("count", [2, 10, 23])
def test_the_matrix_fits_a_hundred_columns_and_folds(count: int, tmp_path: Path) -> None:
    run = merged(tmp_path, [*[USUAL] * (count - 1), (10.0, 15.0)], dict.fromkeys(names(0), "eu-west-1a"))
    text = REPORTS["text"](run)
    section = text.partition("\nNODES\n")[2].partition("\nDISRUPTIONS\n")[0].splitlines()
    blocks = [line for line in section if line.lstrip().startswith("#") and len(line.split()) == line.count("#")]
    assert sum(line.count("#") for line in blocks) == count
    assert len(blocks) == -(-count // 10)
    told = [line for line in section if line.lstrip().startswith(("#", "node", "lost", "longest", "vip-"))]
    assert max(map(len, told)) <= 100
    lost = [line.split()[1:] for line in section if line.strip().startswith("lost ") and "of" not in line]
    assert sum(map(len, lost)) == count
    assert sum(int(n) for row in lost for n in row) == 20 * (count - 1) + 100
    assert f"ip-10-0-{count - 1}-17.eu-west-1.compute.internal lags: vip-udp-fresh -> kube-dns lost 100 of 600" in text
    assert "no node lost anything of 1 of 2 lanes and targets" in text


def test_json_has_every_node_with_its_windows(tmp_path: Path) -> None:
    run = merged(tmp_path, [USUAL, USUAL, (10.0, 15.0)], {"ip-10-0-2-17.eu-west-1.compute.internal": "b"})
    report = json.loads(REPORTS["json"](run))
    *_, slow = report["nodes"]
    assert (slow["zone"], slow["lost"], slow["planned"]) == ("b", 100, 750)
    assert slow["longest_seconds"] == pytest.approx(5, abs=0.06)
    assert slow["probers"][0] == slow["probers"][0] | {"shard": "2/3", "pod": "watch-2-x7f2p", "source": "run file"}
    (vip,) = [seen for seen in slow["seen"] if seen["lane"] == "vip-udp-fresh"]
    assert [(w["class"], w["lost"]) for w in vip["windows"]] == [("timeout", 100)]
    assert vip["lags"].startswith("lost 100 of 600 (16.7 %; the median 3.33 %)")
    assert report["lagging_zones"] == ["b"]
    assert sum(node["lost"] for node in report["nodes"]) == report["totals"]["lost"]


def test_a_run_of_one_has_no_nodes_and_a_prober_may_say_its_zone(tmp_path: Path) -> None:
    run = written(tmp_path / "run.db", [series_of(seconds=3)], lambda *_: Outcome.ANSWER, facts={NODE_FACT: "a"})
    assert nodes_of(run) == []
    assert "\nNODES\n" not in REPORTS["text"](run)
    assert json.loads(REPORTS["json"](run)).get("nodes") is None
    for k in (0, 1):
        series = [replace(series_of(rate=2, seconds=3), share=Slice(k, 2))]
        written(tmp_path / f"{k}.db", series, lambda *_: Outcome.ANSWER, facts={ZONE_FACT: f"zone-{k}"})
    merge([tmp_path / "0.db", tmp_path / "1.db"], tmp_path / "all.db", "", doubts_of, seen_by)
    assert [(n.name, n.zone) for n in nodes_of(open_run(tmp_path / "all.db"))] == [
        ("shard 0/2", "zone-0"), ("shard 1/2", "zone-1"),
    ]  # fmt: skip
