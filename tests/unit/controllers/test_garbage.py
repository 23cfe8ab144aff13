"""What is garbage, and when: decisions on pictures."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.components import ipam_audit as audit
from tortie.controllers.garbage import Decision, Memory, decide
from tortie.controllers.picture import Allocation, Picture, PodFacts, by_network, judge
from tortie.ipam import block as blocks
from tortie.model.resources import (
    AffinityState,
    BlockAffinity,
    BlockAffinitySpec,
    IPAMBlock,
    IPAMHandle,
    IPAMHandleSpec,
    Metadata,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
GRACE = 900.0
CIDR = ip_network("10.5.0.0/28")
ADDRESS = ip_address("10.5.0.0")
POD = ("default", "web")


def a_block(cidr: str = "10.5.0.0/28", node: str = "n1") -> IPAMBlock:
    return blocks.new_block(ip_network(cidr), node, NOW, 100)


def holding(block: IPAMBlock, handle: str = "net.c1", **attributes: str) -> IPAMBlock:
    changed, _ = blocks.assign(block, 1, handle, attributes)
    return changed


def of_pod(block: IPAMBlock, handle: str = "net.c1", node: str = "n1") -> IPAMBlock:
    return holding(block, handle, node=node, namespace=POD[0], pod=POD[1])


def pod(*addresses: str, node: str = "n1", over: bool = False) -> dict[tuple[str, str], PodFacts]:
    return {POD: PodFacts(node, frozenset(map(ip_address, addresses)), over)}


def picture(*listed: IPAMBlock, **changes: Any) -> Picture:
    plain = Picture(frozenset({"n1"}), {}, by_network(listed), pools=(audit.pool("10.5.0.0/16", 28),))
    return replace(plain, **changes)


def scans(seen: Picture, *times: float) -> list[Decision]:
    memory, found = Memory(), []
    for seconds in times:
        decision, memory = decide(seen, memory, NOW, seconds, GRACE)
        found.append(decision)
    return found


# --- one address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "pods", "nodes", "verdict"),
    [
        ({}, pod("10.5.0.0"), {"n1"}, "valid"),
        ({}, pod(), {"n1"}, "valid"),  # it has none yet
        ({}, pod("10.5.0.1"), {"n1"}, "unowned"),  # it has another one
        ({}, pod("10.5.0.0", node="n2"), {"n1"}, "unowned"),
        ({}, pod("10.5.0.0", over=True), {"n1"}, "unowned"),
        ({}, {}, {"n1"}, "unowned"),
        ({}, {}, set(), "orphaned"),
        ({}, pod("10.5.0.0"), set(), "valid"),
        ({"pod": None}, {}, {"n1"}, "valid"),  # a container that Kubernetes did not start
        ({"pod": None}, {}, set(), "orphaned"),
        ({"node": None}, {}, set(), "valid"),  # says nothing about its owner
        ({"pod": None, "type": "vxlanTunnelAddress"}, {}, {"n1"}, "valid"),
        ({"pod": None, "type": "vxlanTunnelAddress"}, {}, set(), "orphaned"),
        ({"pod": None, "type": "wireguardV6TunnelAddress"}, {}, set(), "orphaned"),
        ({"pod": None, "type": "somethingElse"}, {}, set(), "valid"),
    ],
)
def test_verdict(
    changes: dict[str, Any], pods: dict[tuple[str, str], PodFacts], nodes: set[str], verdict: str
) -> None:
    plain = Allocation(ADDRESS, CIDR, "net.c1", 100, "n1", POD, None)
    allocation = replace(plain, **changes)
    assert judge(allocation, allocation.node in nodes, pods.get(POD)) == verdict


def test_pod_owns_what_status_or_annotations_say() -> None:
    annotations = {
        "cni.projectcalico.org/podIP": "10.5.0.1/32",
        "cni.projectcalico.org/podIPs": "10.5.0.1/32,fd00::1/128",
    }
    status = PodStatus(phase="Running", pod_ip="10.5.0.2", pod_ips=[PodIP(ip="10.5.0.2"), PodIP(ip="x")])
    meta = Metadata(name="web", namespace="default", annotations=annotations)
    facts = PodFacts.of(Pod(metadata=meta, spec=PodSpec(node_name="n1"), status=status))
    assert facts == PodFacts(
        "n1", frozenset(map(ip_address, ("10.5.0.1", "10.5.0.2", "fd00::1"))), over=False
    )


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_finished_pod_owns_nothing(phase: str) -> None:
    assert PodFacts.of(Pod(status=PodStatus(phase=phase, pod_ip="10.5.0.1"))).over


def test_pod_on_the_hosts_network_and_one_that_gave_its_address_back_own_nothing() -> None:
    assert PodFacts.of(Pod(spec=PodSpec(host_network=True))).over
    gone = Metadata(
        deletion_timestamp="2030-01-01T00:00:00Z", annotations={"cni.projectcalico.org/podIP": ""}
    )
    assert PodFacts.of(Pod(metadata=gone)).over
    assert not PodFacts.of(Pod(metadata=Metadata(deletion_timestamp="2030-01-01T00:00:00Z"))).over


# --- leaks --------------------------------------------------------------------------------------------------


def test_address_without_a_pod_is_garbage_after_the_grace_period() -> None:
    first, second, third = scans(picture(of_pod(a_block())), 0, 450, 900)
    assert (first.leaks, second.leaks) == ((), ())
    assert [item.address for item in second.suspects] == [ADDRESS]
    (leak,) = third.leaks
    assert leak.handle_id == "net.c1"
    assert leak.sequences() == {CIDR: {ADDRESS: 100}}
    assert not leak.orphaned


def test_address_whose_owner_was_seen_in_between_starts_over() -> None:
    lonely, owned = picture(of_pod(a_block())), picture(of_pod(a_block()), pods=pod("10.5.0.0"))
    memory = Memory()
    for seen, seconds in ((lonely, 0.0), (owned, 450.0), (lonely, 900.0), (lonely, 1799.0)):
        decision, memory = decide(seen, memory, NOW, seconds, GRACE)
        assert decision.leaks == ()
    decision, _ = decide(lonely, memory, NOW, 1800.0, GRACE)
    assert len(decision.leaks) == 1


def test_address_that_was_assigned_anew_starts_over() -> None:
    before = of_pod(a_block())
    freed, _ = blocks.release_handle(before, "net.c1")
    anew = blocks.assign_address(freed, ADDRESS, "net.c1", {"node": "n1", "namespace": "x", "pod": "y"})
    _, memory = decide(picture(before), Memory(), NOW, 0.0, GRACE)
    decision, _ = decide(picture(anew), memory, NOW, GRACE, GRACE)
    assert decision.leaks == ()


def test_all_addresses_of_a_handle_are_garbage_or_none() -> None:
    block = blocks.assign_address(of_pod(a_block()), ip_address("10.5.0.9"), "net.c1", {})
    assert all(decision.leaks == () for decision in scans(picture(block), 0, GRACE, 2 * GRACE))
    six = of_pod(a_block("fd00:5::/126"))
    _, last = scans(picture(of_pod(a_block()), six), 0, GRACE)
    (leak,) = last.leaks
    assert set(leak.sequences()) == {CIDR, ip_network("fd00:5::/126")}


def test_what_belonged_to_a_deleted_node_is_garbage_at_once() -> None:
    tunnel = holding(of_pod(a_block()), "vxlan-tunnel-addr-n1", node="n1", type="vxlanTunnelAddress")
    (decision,) = scans(picture(tunnel, nodes=frozenset()), 0)
    assert {leak.handle_id for leak in decision.leaks} == {"net.c1", "vxlan-tunnel-addr-n1"}
    assert all(leak.orphaned for leak in decision.leaks)


def test_address_that_cools_down_is_nobodys_and_is_freed_in_time() -> None:
    cooling, _ = blocks.release_handle(of_pod(a_block()), "net.c1", NOW)
    seen = picture(cooling)
    early, _ = decide(seen, Memory(), NOW, 0.0, GRACE, timedelta(seconds=60))
    assert (early.leaks, early.cooled, early.suspects) == ((), (), ())
    late, _ = decide(seen, Memory(), NOW + timedelta(seconds=60), 0.0, GRACE, timedelta(seconds=60))
    assert late.cooled == (CIDR,)


# --- handles, blocks, affinities ----------------------------------------------------------------------------


def a_handle(handle_id: str = "net.C2", version: str = "1") -> IPAMHandle:
    spec = IPAMHandleSpec(handle_id=handle_id, block={"10.5.0.0/28": 1})
    return IPAMHandle(metadata=Metadata(name=handle_id.lower(), resource_version=version), spec=spec)


def test_handle_that_holds_nothing_is_garbage_once_nobody_wrote_it_for_the_grace_period() -> None:
    seen = picture(of_pod(a_block()), handles=(a_handle("net.c1"), a_handle()), pods=pod())
    first, second = scans(seen, 0, GRACE)
    assert first.idle_handles == ()
    assert [item.metadata.name for item in second.idle_handles] == ["net.c2"]
    _, memory = decide(seen, Memory(), NOW, 0.0, GRACE)
    written = replace(seen, handles=(a_handle(version="2"),))
    decision, _ = decide(written, memory, NOW, GRACE, GRACE)
    assert decision.idle_handles == ()


def test_empty_block_is_garbage_when_seen_twice_and_not_the_nodes_last() -> None:
    used, empty = of_pod(a_block()), a_block("10.5.0.16/28")
    first, second = scans(picture(used, empty, pods=pod()), 0, 1)
    assert first.empty_blocks == ()
    assert second.empty_blocks == (empty,)
    assert scans(picture(empty), 0, 1)[1].empty_blocks == ()
    both = scans(picture(empty, a_block()), 0, 1)[1].empty_blocks
    assert len(both) == 1


def test_empty_block_that_was_written_in_between_is_kept() -> None:
    used, empty = of_pod(a_block()), a_block("10.5.0.16/28")
    _, memory = decide(picture(used, empty), Memory(), NOW, 0.0, GRACE)
    decision, _ = decide(picture(used, blocks.touch(empty)), memory, NOW, 1.0, GRACE)
    assert decision.empty_blocks == ()


def test_each_family_keeps_its_last_block() -> None:
    seen = picture(a_block(), a_block("fd00:5::/126"))
    pools = (*seen.pools, audit.pool("fd00:5::/64", 126, "six"))
    assert scans(replace(seen, pools=pools), 0, 1)[1].empty_blocks == ()


def test_last_block_goes_when_no_pool_contains_it() -> None:
    empty = a_block("10.9.0.0/28")
    assert scans(picture(empty), 0, 1)[1].empty_blocks == (empty,)


def test_empty_block_of_a_deleted_node_goes_at_once_and_a_load_balancers_never() -> None:
    empty, balancer = a_block(), a_block("10.5.0.16/28")
    balancer.spec.affinity = "virtual:load-balancer"
    decisions = scans(picture(empty, balancer, nodes=frozenset()), 0, 1)
    assert [decision.empty_blocks for decision in decisions] == [(empty,), (empty,)]


def an_affinity(
    cidr: str = "10.5.0.0/28", node: str = "n1", state: AffinityState = "confirmed", kind: str = "host"
) -> BlockAffinity:
    spec = BlockAffinitySpec(node=node, cidr=cidr, state=state, type=kind)
    return BlockAffinity(metadata=Metadata(name=f"{node}-{cidr}"), spec=spec)


@pytest.mark.parametrize(
    "odd",
    [
        an_affinity(state="pending"),
        an_affinity(state="pendingDeletion"),
        an_affinity("10.5.0.32/28"),
        an_affinity("10.5.0.16/28"),
        an_affinity("nonsense"),
    ],
)
def test_affinity_that_is_unconfirmed_or_without_its_block_is_looked_at_after_the_grace_period(
    odd: BlockAffinity,
) -> None:
    seen = picture(a_block(), a_block("10.5.0.16/28", "n2"), affinities=(odd,), nodes=frozenset({"n1", "n2"}))
    first, second = scans(seen, 0, GRACE)
    assert (first.affinities, second.affinities) == ((), (odd,))


def test_affinity_of_a_deleted_node_goes_at_once_and_confirmed_ones_stay() -> None:
    gone = an_affinity("10.5.0.16/28", "n9")
    other = an_affinity("10.5.0.32/28", "load-balancer", kind="virtual")
    (decision,) = scans(picture(a_block(), affinities=(an_affinity(), gone, other)), 0)
    assert decision.affinities == (gone,)
