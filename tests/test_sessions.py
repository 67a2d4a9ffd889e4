"""Packets routed through each proxy mode, with time passed in: drawings of what a client on one source port sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from probe.cluster.endpoints import Endpoint, StaleFlows, era_of, usable
from probe.cluster.sessions import TABLE_MAX, Conntrack, Ipvs, Sessions, sessions_of
from probe.cluster.settings import LabSettings
from probe.errors import UsageError
from probe.model import NS

CLIENT = ("127.0.0.1", 40000)


def slice_of(text: str) -> tuple[Endpoint, ...]:
    """`a b` ready, `b~` terminating and serving, `b!` terminating and no longer serving."""
    return tuple(
        Endpoint(word[0], f"10.0.0.{ord(word[0])}", serving=not word.endswith("!"), terminating=word[-1] in "~!")
        for word in text.split()
    )


def pinned(sessions: Sessions, pod: str) -> Sessions:
    """CLIENT's first packet goes to that pod, at 0 s; then the pod's answer."""
    sessions.program(slice_of(pod))
    assert sessions.route(CLIENT, 0) == pod
    sessions.replied(CLIENT, 0)
    return sessions


def drawing(sessions: Sessions, seconds: range) -> str:
    """CLIENT sends once at each of these seconds: the pod's letter, or x for a packet that was dropped."""
    return "".join(sessions.route(CLIENT, second * NS) or "x" for second in seconds)


@pytest.mark.parametrize(
    ("slices", "kubernetes", "expected"),
    [
        ("a b c", "1.26", "abc"),
        ("a b~ c!", "1.26", "a"),
        ("a~ b~ c!", "1.26", "ab"),
        ("a~ b~", "1.25", ""),
        ("a! b!", "1.26", ""),
        ("", "1.26", ""),
    ],
)
def test_new_flows_go_to_ready_pods_else_to_those_that_serve_and_terminate(
    slices: str, kubernetes: str, expected: str
) -> None:
    assert "".join(usable(slice_of(slices), era_of(kubernetes))) == expected


@pytest.mark.parametrize(
    ("kubernetes", "syncs"),
    [
        # One pod of two ends: its flows go as it is told to, as it serves no more, or whenever there is a sync.
        ("1.25", "a b: all, a~ b: a, a! b: -, b: -"),
        ("1.28", "a b: all, a~ b: a, a! b: -, b: -"),
        ("1.31", "a b: all, a~ b: -, a! b: a, b: -"),
        ("1.33", "a b: -, a~ b: -, a! b: a, b: a"),
        # The only one does, and another comes later.
        ("1.28", "a: all, a~: a, a!: -, : -, c: all"),
        ("1.31", "a: all, a~: -, a!: a, : -, c: all"),
        ("1.33", "a: -, a~: -, a!: -, : -, c: a"),
        ("1.37", "a: -, a~: -, a!: a, : a, c: -"),
    ],
)
def test_whose_flows_a_sync_deletes(kubernetes: str, syncs: str) -> None:
    flows = StaleFlows(era_of(kubernetes))
    for sync in syncs.split(", "):
        slices, _, deleted = sync.partition(":")
        stale = flows.sync(slice_of(slices))
        told = "all" if stale.every else "".join(e.pod for e in stale.of) or "-"
        assert told == deleted.strip(), sync


@pytest.mark.parametrize(
    ("kubernetes", "slices", "expected"),
    [
        # The pod terminates and still serves: kept from 1.29 on.
        ("1.33", "a~ b", "aaaa"),
        ("1.31", "a~ b", "aaaa"),
        ("1.28", "a~ b", "bbbb"),
        # It no longer serves.
        ("1.33", "a! b", "bbbb"),
        ("1.31", "a! b", "bbbb"),
        ("1.31", "b", "bbbb"),
        ("1.33", "b", "bbbb"),
    ],
)
def test_conntrack_keeps_flows_as_the_kube_proxy_of_the_time(kubernetes: str, slices: str, expected: str) -> None:
    sessions = pinned(sessions_of(LabSettings(kubernetes=kubernetes)), "a")
    sessions.program(slice_of(slices))
    assert drawing(sessions, range(1, 5)) == expected


def test_a_flow_in_use_is_never_rerouted_by_time_alone() -> None:
    sessions = pinned(Conntrack(era_of("1.33")), "a")
    sessions.program(slice_of("a~ b"))
    assert set(drawing(sessions, range(1, 1000, 20))) == {"a"}


@pytest.mark.parametrize(
    ("packets", "replies", "pause", "same"),
    [
        ([0], False, 29, True),
        ([0], False, 31, False),
        ([0], True, 31, False),  # replied to, but too young for the stream timeout
        ([0, 1, 3], True, 119, True),
        ([0, 1, 3], True, 121, False),
        ([0, 1, 3], False, 31, False),
    ],
)
def test_conntrack_timeouts_are_30_s_and_120_s_for_streams(
    packets: list[int], replies: bool, pause: int, same: bool
) -> None:
    sessions = Conntrack(era_of("1.33"))
    sessions.program(slice_of("a"))
    for second in packets:
        sessions.route(CLIENT, second * NS)
        if replies:
            sessions.replied(CLIENT, second * NS)
    sessions.program(slice_of("a~ b"))
    assert (sessions.route(CLIENT, (packets[-1] + pause) * NS) == "a") is same


IPVS_CASES = [
    # expire_nodest_conn, kernel >= 5.9, what the client sees each second from 1 s on; the pod is removed at 0 s
    (True, True, "bbbbbbbbbbbbbb"),
    (True, False, "xbbbbbbbbbbbbb"),
    (False, True, "xxxxxxxxxbbbbb"),  # drops do not refresh: dead until 0 s + 10 s
    (False, False, "xxxxxxxxxbbbbb"),
]


@pytest.mark.parametrize(("expire_nodest_conn", "reschedule", "expected"), IPVS_CASES)
def test_ipvs_session_of_a_removed_pod(expire_nodest_conn: bool, reschedule: bool, expected: str) -> None:
    sessions = pinned(Ipvs(era_of("1.33"), expire_nodest_conn, reschedule, timeout=10 * NS), "a")
    sessions.program(slice_of("a~ b"))
    assert drawing(sessions, range(1, 15)) == expected


def test_ipvs_session_lives_on_when_its_pod_is_back_under_the_same_name() -> None:
    sessions = pinned(Ipvs(era_of("1.33"), expire_nodest_conn=False, reschedule=True, timeout=10 * NS), "a")
    sessions.program(slice_of("b"))
    assert drawing(sessions, range(1, 4)) == "xxx"
    sessions.program(slice_of("a b"))
    assert drawing(sessions, range(4, 8)) == "aaaa"


def test_ipvs_default_timeout_is_300_s() -> None:
    sessions = pinned(sessions_of(LabSettings(proxy_mode="ipvs", expire_nodest_conn=False)), "a")
    sessions.program(slice_of("b"))
    assert drawing(sessions, range(299, 302)) == "xbb"


@pytest.mark.parametrize(("kernel", "lost_first"), [("5.4.0-150-generic", 43), ("5.9", 0), ("6.1", 0)])
def test_a_pool_of_128_ports_loses_a_third_of_its_first_packets_on_an_old_kernel(kernel: str, lost_first: int) -> None:
    sessions = sessions_of(LabSettings(proxy_mode="ipvs", kernel=kernel))
    pool = [("127.0.0.1", 50000 + i) for i in range(128)]
    sessions.program(slice_of("a b c"))
    before = [sessions.route(client, 0) for client in pool]
    assert sorted(before.count(pod) for pod in "abc") == [42, 43, 43]
    removed = max("abc", key=before.count)
    sessions.program(tuple(e for e in slice_of("a b c") if e.pod != removed))
    assert [sessions.route(client, NS) for client in pool].count(None) == lost_first
    assert None not in [sessions.route(client, 2 * NS) for client in pool]


def test_ipvs_takes_pods_in_turn_and_iptables_at_random() -> None:
    ipvs, iptables = Ipvs(era_of("1.33"), True, True), Conntrack(era_of("1.33"), seed=1)
    for sessions in (ipvs, iptables):
        sessions.program(slice_of("a b c"))
    turns = "".join(ipvs.choose() or "" for _ in range(9))
    assert turns == turns[:3] * 3
    assert len(set(turns)) == 3
    drawn = [iptables.route(("127.0.0.1", port), 0) for port in range(3000)]
    assert all(900 < drawn.count(pod) < 1100 for pod in "abc")


@pytest.mark.parametrize("make", [lambda: Conntrack(era_of("1.33")), lambda: Ipvs(era_of("1.33"), True, True)])
def test_without_endpoints_nothing_is_routed(make: Callable[[], Sessions]) -> None:
    sessions = make()
    assert sessions.route(CLIENT, 0) is None
    sessions.program(slice_of("a! b!"))
    assert sessions.choose() is None
    assert sessions.route(CLIENT, 0) is None


def test_a_full_table_drops_new_flows_until_old_ones_run_out() -> None:
    sessions, newcomer = Conntrack(era_of("1.33")), ("127.0.9.1", 7)
    sessions.program(slice_of("a"))
    for i in range(TABLE_MAX):
        sessions.route((f"127.0.{i >> 16}.1", i & 0xFFFF), 5 * NS)
    assert sessions.route(newcomer, 6 * NS) is None
    assert sessions.route(("127.0.0.1", 7), 6 * NS) == "a"
    assert sessions.route(newcomer, 40 * NS) == "a"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (LabSettings(proxy_mode="nftables"), "proxy_mode 'nftables': say iptables or ipvs"),
        (LabSettings(kubernetes="latest"), "kubernetes 'latest': say a version such as 1.33"),
        (LabSettings(kernel="old"), "kernel 'old': say a version such as 6.1"),
    ],
)
def test_a_wrong_setting_is_named(settings: LabSettings, text: str) -> None:
    with pytest.raises(UsageError) as raised:
        sessions_of(settings)
    assert str(raised.value) == text
