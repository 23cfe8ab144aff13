"""What `ipam check` finds, and what its report carries over to `release`."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import pytest

from tests.components import ipam_audit as audit
from tortie.cli.ipam_check import check, document_of, in_all, read_report, text_of
from tortie.controllers.picture import Picture, PodFacts, by_network
from tortie.ipam import block as blocks
from tortie.model.resources import (
    AffinityState,
    BlockAffinity,
    BlockAffinitySpec,
    IPAMBlock,
    IPAMHandle,
    IPAMHandleSpec,
    Metadata,
)

CIDR = "10.5.0.0/28"
ADDRESS = ip_address("10.5.0.0")


def a_block(cidr: str = CIDR) -> IPAMBlock:
    return blocks.new_block(ip_network(cidr), "n1", datetime(2030, 1, 1, tzinfo=UTC), 100)


def held() -> IPAMBlock:
    attributes = {"node": "n1", "namespace": "shop", "pod": "web"}
    return blocks.assign(a_block(), 1, "net.C1", attributes)[0]


def a_handle(name: str = "net.C1", cidr: str = CIDR) -> IPAMHandle:
    return IPAMHandle(
        metadata=Metadata(name=name.lower()), spec=IPAMHandleSpec(handle_id=name, block={cidr: 1})
    )


def an_affinity(cidr: str = CIDR, node: str = "n1", state: AffinityState = "confirmed") -> BlockAffinity:
    return BlockAffinity(
        metadata=Metadata(name=f"{node}-{cidr}"), spec=BlockAffinitySpec(node=node, cidr=cidr, state=state)
    )


HEALTHY = Picture(
    nodes=frozenset({"n1"}),
    pods={("shop", "web"): PodFacts("n1", frozenset({ADDRESS}), over=False)},
    blocks=by_network([held()]),
    affinities=(an_affinity(),),
    handles=(a_handle(),),
    pools=(audit.pool("10.5.0.0/16", 28),),
)


def problems(seen: Picture, **tunnels: str) -> tuple[str, ...]:
    announced = {node: frozenset({ip_address(text)}) for node, text in tunnels.items()}
    return check(seen, announced).problems


def test_healthy_cluster_has_no_problems() -> None:
    report = check(HEALTHY, {})
    assert (report.problems, report.unused) == ((), [])
    assert text_of(report, HEALTHY, True, True) == (
        "1 blocks, 1 handles, 1 pools, 1 nodes, 1 pods.\n"
        "1 addresses are allocated, 0 of them not in use.\n"
        "  10.5.0.0 net.C1: in use\n"
        "Check complete; found 0 problems.\n"
    )


@pytest.mark.parametrize(
    ("pods", "nodes", "reason"),
    [
        ({}, {"n1"}, "pod shop/web does not exist"),
        ({}, set(), "node n1 does not exist"),
        ({("shop", "web"): PodFacts("n1", frozenset(), True)}, {"n1"}, "pod shop/web is over"),
        ({("shop", "web"): PodFacts("n2", frozenset(), False)}, {"n1"}, "is on node n2, not on n1"),
        (
            {("shop", "web"): PodFacts("n1", frozenset({ip_address("10.9.0.1")}), False)},
            {"n1"},
            "pod shop/web has 10.9.0.1",
        ),
    ],
)
def test_address_that_nobody_uses_is_named_with_the_reason(
    pods: dict[tuple[str, str], PodFacts], nodes: set[str], reason: str
) -> None:
    (problem,) = problems(replace(HEALTHY, pods=pods, nodes=frozenset(nodes)))
    assert problem.startswith("10.5.0.0 is allocated but not in use: ")
    assert reason in problem


def test_addresses_in_use_but_not_allocated_or_used_twice_are_named() -> None:
    two = {
        **HEALTHY.pods,
        ("shop", "twin"): PodFacts("n1", frozenset({ADDRESS, ip_address("10.5.0.9")}), over=False),
        ("kube-system", "proxy"): PodFacts("n1", frozenset({ip_address("192.0.2.1")}), over=False),
        ("shop", "done"): PodFacts("n1", frozenset({ip_address("10.5.0.10")}), over=True),
    }
    assert problems(replace(HEALTHY, pods=two), n1="10.5.0.11") == (
        "10.5.0.0 is used more than once: by pod shop/twin and pod shop/web",
        "10.5.0.9 is used by pod shop/twin but not allocated",
        "10.5.0.11 is used by node n1 (tunnel) but not allocated",
    )


def test_handles_and_allocations_that_do_not_fit_each_other_are_named() -> None:
    assert problems(replace(HEALTHY, handles=())) == (
        "10.5.0.0 is held by handle net.C1, which does not exist",
    )
    elsewhere = replace(HEALTHY, handles=(a_handle(cidr="10.5.0.16/28"), a_handle("net.c2")))
    assert problems(elsewhere) == (
        "10.5.0.0 is held by handle net.C1, which does not name block 10.5.0.0/28",
        "handle net.c2 holds no address",
    )


def test_affinities_that_do_not_fit_the_blocks_are_named() -> None:
    assert problems(replace(HEALTHY, affinities=())) == (
        "block 10.5.0.0/28 is n1's, which has no confirmed affinity for it",
    )
    odd = (
        an_affinity(),
        an_affinity(node="n2"),
        an_affinity("10.5.0.16/28"),
        an_affinity("10.5.0.32/28", state="pending"),
    )
    assert problems(replace(HEALTHY, affinities=odd)) == (
        "node n2 claims block 10.5.0.0/28, which is host:n1's",
        "node n1 claims block 10.5.0.16/28, which does not exist",
        "node n1 has claimed block 10.5.0.32/28 in part only (state pending)",
    )


def test_block_outside_every_pool_is_named() -> None:
    assert problems(replace(HEALTHY, pools=(), pods={**HEALTHY.pods})) == (
        "block 10.5.0.0/28 is in no IP pool",
    )


def test_report_names_what_all_reports_call_unused() -> None:
    leaked = check(replace(HEALTHY, pods={}), {})
    text = json.dumps(document_of(leaked, "guid", "2030-01-01T00:00:00Z")).encode()
    first = read_report(text)
    assert (first.cluster, dict(first.unused)) == ("guid", {ADDRESS: 100})
    assert in_all([first, first]) == {ADDRESS: 100}
    healthy = read_report(json.dumps(document_of(check(HEALTHY, {}), "guid", "")).encode())
    assert in_all([first, healthy]) == {}
    assert in_all([first, replace(first, unused={ADDRESS: 101})]) == {}


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"version": 1}', b'{"version": 2, "clusterGUID": "", "allocations": {}}']
)
def test_file_that_is_no_report_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"version|expected|truncated|missing|Expected"):
        read_report(text)
