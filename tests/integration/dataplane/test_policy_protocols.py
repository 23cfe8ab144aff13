"""Policy by protocol, port, ICMP type and code, with real packets: SCTP, UDPLite and ICMP among them.

The packets are made by hand and seen by a raw socket at the other end: the kernel needs no SCTP of its own.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pytest

from tests.integration.dataplane.policy_lab import GRACE_SECONDS, LONGEST_WAIT_SECONDS, PolicyLab, policy_lab
from tests.integration.dataplane.policy_states import ALLOW_ALL, OPEN, open_state, workload
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane
from tortie.policy.state import ICMP, Action, Peer, PolicyKey, PolicyRules, Rule

pytestmark = pytest.mark.root

ICMP_PROTOCOL, SCTP, UDPLITE = 1, 132, 136  # IANA
SERVED, OTHER, CLIENT = 7001, 7002, 33000
POLICY = PolicyKey("NetworkPolicy", "protocols", "ns")
INIT, INIT_ACK = 1, 2  # RFC 9260, section 3.2
ECHO, TIMESTAMP, ADDRESS_MASK = 8, 13, 17  # requests: RFC 792, RFC 950
IPV4_HEADER = 20  # bytes, without options
_CASTAGNOLI = 0x82F63B78  # CRC32c's polynomial, reflected (RFC 9260, appendix A)


@dataclass(frozen=True)
class Packet:
    """What the test sends. `ports` are source and destination; or `icmp` is type and code."""

    protocol: int
    ports: tuple[int, int] = (0, 0)
    icmp: tuple[int, int] = (0, 0)
    chunk: int = INIT

    def encode(self, source: str, destination: str) -> bytes:
        """The transport's bytes."""
        if self.protocol == SCTP:
            return _sctp(*self.ports, self.chunk)
        if self.protocol == UDPLITE:
            return _udplite(*self.ports, source, destination)
        body = struct.pack("!BBHHH4s", *self.icmp, 0, CLIENT, 1, b"ping")
        return body[:2] + struct.pack("!H", _checksum(body)) + body[4:]


def decode(packet: bytes) -> Packet:
    """What a raw socket received, IPv4's header before it."""
    protocol, body = packet[9], packet[IPV4_HEADER:]
    if protocol == ICMP_PROTOCOL:
        return Packet(protocol, icmp=(body[0], body[1]))
    chunk = body[12] if protocol == SCTP else INIT
    return Packet(protocol, struct.unpack("!HH", body[:4]), chunk=chunk)


def _sctp(source: int, destination: int, chunk: int) -> bytes:
    """A packet with an INIT or INIT ACK chunk: initiate tag, window, streams out and in, first TSN. An INIT
    goes with verification tag 0, its answer with the tag that the INIT named."""
    tag = 0 if chunk == INIT else CLIENT
    parameters = struct.pack("!IIHHI", CLIENT, 65536, 1, 1, 1)
    content = struct.pack("!BBH", chunk, 0, 4 + len(parameters)) + parameters
    head = struct.pack("!HHI", source, destination, tag)
    return head + struct.pack("<I", _crc32c(head + bytes(4) + content)) + content


def _udplite(source: int, destination: int, *addresses: str) -> bytes:
    """RFC 3828: a coverage of 0 stands for the whole datagram; the pseudo header has its length."""
    payload = b"lite"
    head = struct.pack("!HHHH", source, destination, 0, 0)
    pseudo = b"".join(socket.inet_aton(item) for item in addresses)
    pseudo += struct.pack("!HH", UDPLITE, len(head) + len(payload))
    return head[:6] + struct.pack("!H", _checksum(pseudo + head + payload)) + payload


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc32c(data: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (_CASTAGNOLI if remainder & 1 else 0)
    return ~remainder & 0xFFFFFFFF


def sctp(port: int) -> Packet:
    return Packet(SCTP, (CLIENT, port))


def udplite(port: int) -> Packet:
    return Packet(UDPLITE, (CLIENT, port))


def icmp(kind: int, code: int = 0) -> Packet:
    return Packet(ICMP_PROTOCOL, icmp=(kind, code))


EVERYTHING = frozenset(
    {sctp(SERVED), sctp(OTHER), udplite(SERVED), udplite(OTHER)}
    | {icmp(ECHO), icmp(ECHO, 5), icmp(TIMESTAMP), icmp(ADDRESS_MASK)}
)


@pytest.fixture(scope="module")
def lab() -> Iterator[PolicyLab]:
    with policy_lab(("a", "b")) as made, made.on_node:
        # Linux checks a UDPLite datagram with UDP's protocol number in the pseudo header (udplite_error in
        # nf_conntrack_proto_udp.c): a correct one is invalid to connection tracking, and would be dropped.
        made.node.exec("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_checksum=0")
        for pod in made.pods.values():  # else the kernel answers echo requests, which are not ours to count
            pod.namespace.exec("sysctl", "-q", "-w", "net.ipv4.icmp_echo_ignore_all=1")
        yield made


def load(lab: PolicyLab, *rules: Rule, destination: str = "a") -> PolicyDataplane:
    """Only these rules let something into the pod; everything else is open. No connection is known."""
    state = open_state(lab)
    pod = lab.pods[destination]
    dataplane = PolicyDataplane()
    dataplane.sync(
        replace(
            state,
            policies={OPEN: ALLOW_ALL, POLICY: PolicyRules(ingress=rules)},
            workloads={**state.workloads, pod.interface: workload(pod, POLICY)},
        )
    )
    lab.node.exec("conntrack", "-F")
    assert dataplane.check() == []
    return dataplane


def arrived(
    lab: PolicyLab,
    packets: Iterable[Packet],
    expected: frozenset[Packet],
    source: str = "b",
    destination: str = "a",
) -> frozenset[Packet]:
    """Send the packets at once; return those that arrive, as soon as all that are expected did and nothing
    else came for a while."""
    sender, receiver = lab.pods[source], lab.pods[destination]
    with contextlib.ExitStack() as stack:
        sockets = {}
        for pod in (sender, receiver):
            for protocol in (ICMP_PROTOCOL, SCTP, UDPLITE):
                with netns.entered(pod.namespace.fd):
                    made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
                sockets[pod.name, protocol] = made
        for packet in packets:
            body = packet.encode(sender.address, receiver.address)
            sockets[source, packet.protocol].sendto(body, (receiver.address, 0))
        listening = [made for (name, _), made in sockets.items() if name == destination]
        found: set[Packet] = set()
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select(listening, [], [], GRACE_SECONDS)
            for made in ready:
                data, (address, _) = made.recvfrom(2048)
                if address == sender.address:
                    found.add(decode(data))
            if not ready and expected <= found:
                break
        return frozenset(found)


def to_port(protocol: int, port: int, action: Action = Action.ALLOW) -> Rule:
    return Rule(action, protocol=protocol, destination=Peer(ports=((port, port),)))


def of_type(kind: int, code: int | None = None, action: Action = Action.ALLOW) -> Rule:
    return Rule(action, ip_version=4, protocol=ICMP_PROTOCOL, icmp=ICMP(kind, code))


ALLOW = Rule(Action.ALLOW)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((ALLOW,), EVERYTHING),
        ((), frozenset[Packet]()),
        ((Rule(Action.ALLOW, protocol=SCTP),), {sctp(SERVED), sctp(OTHER)}),
        ((to_port(SCTP, SERVED),), {sctp(SERVED)}),
        ((to_port(SCTP, SERVED, Action.DENY), ALLOW), EVERYTHING - {sctp(SERVED)}),
        (
            (Rule(Action.ALLOW, protocol=SCTP, source=Peer(ports=((CLIENT + 1, CLIENT + 9),))),),
            frozenset[Packet](),
        ),
        (
            (Rule(Action.ALLOW, protocol=SCTP, destination=Peer(not_ports=((SERVED, SERVED),))),),
            {sctp(OTHER)},
        ),
        ((Rule(Action.ALLOW, protocol=UDPLITE),), {udplite(SERVED), udplite(OTHER)}),
        ((to_port(UDPLITE, SERVED),), {udplite(SERVED)}),
        (
            (Rule(Action.DENY, protocol=UDPLITE), ALLOW),
            EVERYTHING - {udplite(SERVED), udplite(OTHER)},
        ),
        ((Rule(Action.ALLOW, not_protocol=SCTP),), EVERYTHING - {sctp(SERVED), sctp(OTHER)}),
        ((to_port(17, SERVED), to_port(6, SERVED)), frozenset[Packet]()),  # other protocols' ports
        ((of_type(ECHO),), {icmp(ECHO), icmp(ECHO, 5)}),
        ((of_type(ECHO, 0),), {icmp(ECHO)}),
        ((of_type(ECHO, 5),), {icmp(ECHO, 5)}),
        ((of_type(TIMESTAMP),), {icmp(TIMESTAMP)}),
        ((of_type(ECHO, 5, Action.DENY), ALLOW), EVERYTHING - {icmp(ECHO, 5)}),
        (
            (Rule(Action.ALLOW, ip_version=4, protocol=ICMP_PROTOCOL, not_icmp=ICMP(ECHO)),),
            {icmp(TIMESTAMP), icmp(ADDRESS_MASK)},
        ),
        (
            (Rule(Action.ALLOW, ip_version=4, protocol=ICMP_PROTOCOL, not_icmp=ICMP(ECHO, 0)),),
            {icmp(ECHO, 5), icmp(TIMESTAMP), icmp(ADDRESS_MASK)},
        ),
        ((Rule(Action.ALLOW, ip_version=6),), frozenset[Packet]()),
    ],
)
def test_packets_arrive_as_the_rules_say(
    lab: PolicyLab, rules: tuple[Rule, ...], expected: frozenset[Packet]
) -> None:
    load(lab, *rules)
    assert arrived(lab, EVERYTHING, frozenset(expected)) == expected


def test_the_answer_of_an_allowed_sctp_association_passes_and_a_stray_one_does_not(lab: PolicyLab) -> None:
    # Here checksums count: what is no proper packet would be dropped, whatever the rules say.
    lab.node.exec("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_checksum=1")
    load(lab, destination="b")  # nothing may start a connection to b
    answer = Packet(SCTP, (SERVED, CLIENT), chunk=INIT_ACK)
    stray = Packet(SCTP, (OTHER, CLIENT), chunk=INIT_ACK)
    assert arrived(lab, [sctp(SERVED)], frozenset({sctp(SERVED)})) == {sctp(SERVED)}
    found = arrived(lab, [stray, answer], frozenset({answer}), source="a", destination="b")
    lab.node.exec("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_checksum=0")
    assert found == {answer}
