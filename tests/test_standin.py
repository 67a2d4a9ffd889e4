"""The stand-in against dnspython's resolver code, and against the real CoreDNS on the same questions."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from probe.cluster.images import find_coredns
from probe.cluster.standin import Answers
from probe.cluster.zone import RECORDS, Corefile

PORT = 5391
BLOCK = f"127.54.{os.getpid() % 256}"
"""Other test runs on this machine use other addresses."""
CLUSTER = "svc.cluster.local."
QUESTIONS = [
    *((f"{name}.", qtype) for name, qtype in itertools.product(RECORDS, ("A", "AAAA", "TXT"))),
    (f"KuberNetes.default.{CLUSTER}", "A"),
    (f"missing.default.{CLUSTER}", "A"),
    (f"missing.default.{CLUSTER}", "AAAA"),
    (f"default.{CLUSTER}", "A"),
    (CLUSTER, "AAAA"),
    ("cluster.local.", "A"),
    ("default.svc.cluster.local.cluster.local.", "A"),
    ("example.com.", "A"),
    ("local.", "A"),
    (".", "A"),
]


@pytest.fixture(scope="module")
def standin() -> Iterator[str]:
    """The address of a stand-in that is ready."""
    address = f"{BLOCK}.1"
    process = subprocess.Popen([sys.executable, "-m", "probe.cluster.standin", address, str(PORT), "0", "coredns-1"])
    until_ready(address)
    yield address
    process.terminate()
    assert process.wait(5) == 0


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real CoreDNS with the lab's Corefile."""
    coredns = find_coredns()
    if coredns is None:
        pytest.skip("needs the real CoreDNS: run `make coredns`")
    address = f"{BLOCK}.2"
    corefile = Corefile().write(tmp_path_factory.mktemp("coredns"), "coredns", address, PORT)
    process = subprocess.Popen(
        [coredns, "-conf", corefile], cwd=corefile.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until_ready(address)
    yield address
    process.terminate()
    assert process.wait(5) == 0


def until_ready(address: str) -> None:
    for _ in range(500):
        try:
            if http(f"http://{address}:8181/ready") == "OK":
                return
        except urllib.error.URLError:
            time.sleep(0.01)
    raise AssertionError(f"{address} is not ready")


def http(url: str) -> str:
    with urllib.request.urlopen(url, timeout=2) as page:  # noqa: S310
        return str(page.read(), "utf-8")


def asked(address: str, name: str, qtype: str, tcp: bool = False, edns: bool = False) -> dns.message.Message:
    query = dns.message.make_query(name, qtype, use_edns=edns)
    ask = dns.query.tcp if tcp else dns.query.udp
    return ask(query, address, timeout=2, port=PORT)


def essence(reply: dns.message.Message) -> tuple[str, set[str], list[str], bool, bool]:
    """What a client goes by: rcode, addresses, the SOA's owner if it says no, AA, EDNS."""
    soa = [str(r.name) for r in reply.authority if r.rdtype == dns.rdatatype.SOA]
    return (
        dns.rcode.to_text(reply.rcode()),
        {str(record) for rrset in reply.answer for record in rrset},
        soa,
        bool(reply.flags & dns.flags.AA),
        reply.edns >= 0,
    )


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("edns", [False, True], ids=["plain", "edns"])
def test_the_stand_in_answers_as_coredns_does(standin: str, real: str, tcp: bool, edns: bool) -> None:
    for name, qtype in QUESTIONS:
        ours, theirs = (essence(asked(a, name, qtype, tcp, edns)) for a in (standin, real))
        assert ours == theirs, (name, qtype)


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "addresses"),
    [
        (f"kubernetes.default.{CLUSTER}", "A", "NOERROR", {"10.96.0.1"}),
        (f"kubernetes.default.{CLUSTER}", "AAAA", "NOERROR", set()),
        (f"dual.default.{CLUSTER}", "AAAA", "NOERROR", {"fd00:10:96::54"}),
        (f"headless.default.{CLUSTER}", "A", "NOERROR", {"10.244.0.11", "10.244.0.12", "10.244.0.13"}),
        (f"missing.default.{CLUSTER}", "A", "NXDOMAIN", set()),
        ("example.com.", "A", "NXDOMAIN", set()),
    ],
)
def test_the_zone(standin: str, name: str, qtype: str, rcode: str, addresses: set[str]) -> None:
    assert essence(asked(standin, name, qtype))[:2] == (rcode, addresses)


def test_metrics_count_every_query_in_coredns_form(standin: str) -> None:
    def counted(sample: str) -> int:
        lines = http(f"http://{standin}:9153/metrics").splitlines()
        return next((int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(sample + " ")), 0)

    server = f'server="dns://{standin}:{PORT}"'
    samples = {
        f'coredns_dns_requests_total{{family="1",proto="tcp",{server},type="AAAA",view="",zone="."}}': 3,
        f'coredns_dns_responses_total{{plugin="",rcode="NXDOMAIN",{server},view="",zone="."}}': 3,
    }
    before = {sample: counted(sample) for sample in samples}
    for _ in range(3):
        asked(standin, f"missing.default.{CLUSTER}", "AAAA", tcp=True)
    assert {sample: counted(sample) - before[sample] for sample in samples} == samples


def test_pipelined_queries_on_one_connection(standin: str) -> None:
    queries = [dns.message.make_query(f"kubernetes.default.{CLUSTER}", "A", id=i).to_wire() for i in range(50)]
    with socket.create_connection((standin, PORT), timeout=2) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"".join(len(q).to_bytes(2) + q for q in queries))
        replies = [dns.message.from_wire(stream.read(int.from_bytes(stream.read(2)))) for _ in queries]
    assert [reply.id for reply in replies] == list(range(50))


QUERY = dns.message.make_query(f"kubernetes.default.{CLUSTER}", "A", id=7).to_wire()


@pytest.mark.parametrize(
    ("query", "rcode"),
    [
        (b"", None),
        (QUERY[:11], None),
        (QUERY[:2] + b"\x80" + QUERY[3:], None),  # a reply
        (QUERY[:30], 1),
        (QUERY[:5] + b"\2" + QUERY[6:], 1),  # two questions
        (QUERY[:12] + b"\xc0\x0c" + QUERY[14:], 1),  # a compressed question
        (QUERY[:2] + b"\x28" + QUERY[3:], 4),  # UPDATE
    ],
)
def test_odd_messages(query: bytes, rcode: int | None) -> None:
    replies: list[bytes] = []
    Answers("127.0.0.1:53", "coredns-1").answer(query, "udp", replies.append)
    assert [(reply[:2], reply[3] & 15) for reply in replies] == ([] if rcode is None else [(QUERY[:2], rcode)])


NSID, PADDING = (dns.edns.GenericOption(code, b"") for code in (dns.edns.OptionType.NSID, dns.edns.OptionType.PADDING))


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(
    ("options", "said"),
    [([NSID], b"coredns-1"), ([PADDING, NSID], b"coredns-1"), ([PADDING], None), ([], None)],
    ids=["nsid", "nsid after another option", "another option", "no option"],
)
@pytest.mark.parametrize("name", [f"kubernetes.default.{CLUSTER}", f"missing.default.{CLUSTER}"])
def test_who_asks_for_nsid_gets_the_pods_name(
    standin: str, name: str, options: list[dns.edns.Option], said: bytes | None, tcp: bool
) -> None:
    query = dns.message.make_query(name, "A", use_edns=True, options=options)
    reply = (dns.query.tcp if tcp else dns.query.udp)(query, standin, timeout=2, port=PORT)
    nsid = [option for option in reply.options if option.otype == dns.edns.OptionType.NSID]
    assert [option.to_wire() for option in nsid] == ([] if said is None else [said])
