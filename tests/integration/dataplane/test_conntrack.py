"""Connections as the kernel tracks them."""

import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address

import pytest

from tests.integration.dataplane.policy_lab import PORTS, TCP, UDP, PolicyLab, policy_lab
from tortie.dataplane import conntrack
from tortie.dataplane.conntrack import Connection
from tortie.dataplane.netlink import NetlinkError
from tortie.dataplane.nfnetlink import Netfilter
from tortie.policy.state import Address

pytestmark = pytest.mark.root

MANY = frozenset(IPv4Address("10.99.0.1") + number for number in range(5))


@pytest.fixture(scope="module")
def lab() -> Iterator[PolicyLab]:
    with policy_lab(("a", "b", "c")) as made, made.on_node:
        # Connections are tracked in a namespace only once somebody asks for it.
        made.node.exec(
            "nft", "add table ip t; add chain ip t pre { type nat hook prerouting priority dstnat; }"
        )
        target = f"{made.pods['b'].address}:{PORTS[0]}"
        made.node.exec("nft", f"add rule ip t pre ip daddr 10.96.0.10 tcp dport 80 dnat to {target}")
        yield made


def address(lab: PolicyLab, name: str) -> Address:
    return ip_address(lab.pods[name].address)


def found(*addresses: Address) -> list[Connection]:
    with Netfilter() as kernel:
        return list(conntrack.connections(kernel, frozenset(addresses)))


def test_a_connection_is_seen_after_translation_from_both_its_ends(lab: PolicyLab) -> None:
    with lab.pods["a"].socket(socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(("10.96.0.10", 80))
        for who in ("a", "b"):
            (seen,) = [item for item in found(address(lab, who)) if item.protocol == TCP]
            assert (seen.source, seen.destination) == (address(lab, "a"), address(lab, "b"))
            assert (seen.source_port, seen.destination_port) == (client.getsockname()[1], PORTS[0])
        assert [item for item in found(address(lab, "c")) if item.protocol == TCP] == []


@pytest.mark.parametrize("buckets", [0, 1 << 40])
def test_the_whole_table_and_the_kernels_filter_find_the_same(
    lab: PolicyLab, monkeypatch: pytest.MonkeyPatch, buckets: int
) -> None:
    monkeypatch.setattr(conntrack, "BUCKETS_PER_CONNECTION", buckets)  # 0: the table, however full it is
    with lab.pods["c"].socket(socket.SOCK_DGRAM) as sender:
        sender.sendto(b"0 0", (lab.pods["a"].address, PORTS[1]))
        port = sender.getsockname()[1]
        (one,) = [item for item in found(address(lab, "c")) if item.source_port == port]
        assert (one.protocol, one.source) == (UDP, address(lab, "c"))
        assert [item for item in found(address(lab, "c"), *MANY) if item.source_port == port] == [one]
        assert found(*MANY) == []


def test_icmp_has_type_and_code_and_no_ports(lab: PolicyLab) -> None:
    assert lab.pods["a"].namespace.reaches(lab.pods["c"].address)
    (ping,) = [item for item in found(address(lab, "a")) if item.icmp is not None]
    assert (ping.icmp, ping.source_port, ping.destination_port) == ((8, 0), 0, 0)


def test_a_mark_changes_only_the_bits_of_its_mask_and_a_forgotten_connection_is_gone(lab: PolicyLab) -> None:
    with lab.pods["b"].socket(socket.SOCK_DGRAM) as sender, Netfilter() as kernel:
        sender.sendto(b"0 0", (lab.pods["c"].address, PORTS[0]))

        def only() -> list[Connection]:
            return [item for item in found(address(lab, "b")) if item.destination == address(lab, "c")]

        (seen,) = only()
        conntrack.send(kernel, [conntrack.mark(seen, 0x7, 0x7)], tolerated=0)
        conntrack.send(kernel, [conntrack.mark(seen, 0x40000, 0x40001)], tolerated=0)
        assert only()[0].mark == 0x40006
        conntrack.send(kernel, [conntrack.forget(seen)], tolerated=0)
        assert only() == []
        with pytest.raises(NetlinkError, match=r"forget the connection.*ENOENT"):
            conntrack.send(kernel, [conntrack.forget(seen)], tolerated=0)
        conntrack.send(kernel, [conntrack.forget(seen)] * 500, tolerated=errno.ENOENT)
