"""Cases of Calico's tests of addresses and pools that no other test is about, through the real shim."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cni.node import TestNode, add_pool, addresses, ipam, path, running_with_both
from tests.integration.dataplane.namespaces import Namespace
from tortie.cni import wishes
from tortie.ipam.request import AddressRequest
from tortie.model.policy_natives import Namespace as NamespaceObject
from tortie.model.resources import IPPool, Metadata

pytestmark = pytest.mark.root

SANDBOX = "/proc/self/ns/net"  # a path that exists: the address plugin enters no namespace


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with running_with_both(tmp_path) as made:
        yield made


async def assign(
    node: TestNode, container: str = "c1", arguments: str = "", **section: Any
) -> tuple[int, dict[str, Any]]:
    """ADD of the address plugin alone."""
    config = ipam(**section)
    return await node.cni(
        "ADD", container, netns=SANDBOX, plugin="calico-ipam", config=config, CNI_ARGS=arguments
    )


async def assigned(node: TestNode, container: str = "c1", arguments: str = "", **section: Any) -> list[str]:
    """It must succeed; the addresses."""
    status, result = await assign(node, container, arguments, **section)
    assert status == 0, result
    return addresses(result)


async def released(node: TestNode, container: str = "c1") -> None:
    """DEL of the address plugin alone must succeed, and be finished."""
    assert await node.cni("DEL", container, plugin="calico-ipam") == (0, {})
    await node.idle()


# --- the address plugin ---


@pytest.mark.parametrize(
    ("section", "networks"),
    [
        ({}, ["10.5."]),
        ({"assign_ipv4": "true"}, ["10.5."]),
        ({"assign_ipv4": "false", "assign_ipv6": "true"}, ["fd00:5:"]),
        ({"assign_ipv4": "true", "assign_ipv6": "true"}, ["10.5.", "fd00:5:"]),
    ],
    ids=["nothing", "ipv4", "ipv6", "both"],
)
async def test_the_address_plugin_assigns_the_families_that_are_asked_for(
    node: TestNode, section: dict[str, str], networks: list[str]
) -> None:
    given = await assigned(node, **section)
    assert len(given) == len(networks)
    assert all(address.startswith(network) for address, network in zip(given, networks, strict=True))
    await released(node)
    assert await node.allocated() == 0


@pytest.mark.parametrize("absent", ["default-ipv4-ippool", "six"])
async def test_without_a_pool_of_one_family_there_is_no_address_of_the_other(
    node: TestNode, absent: str
) -> None:
    await node.datastore.delete(await node.datastore.get(IPPool, absent))
    for _ in range(2):
        status, error = await assign(node, assign_ipv4="true", assign_ipv6="true")
        assert (status, error["code"]) == (1, 11)
        assert (await node.allocated(), await node.handles()) == (0, [])
    await released(node)


@pytest.mark.parametrize("pools", [["10.5.0.0/16"], ["10.77.0.0/24", "10.5.0.0/16"], ["second"]])
async def test_an_address_is_of_a_pool_that_the_configuration_names(node: TestNode, pools: list[str]) -> None:
    await add_pool(node, "second", "10.77.0.0/24")
    (address,) = await assigned(node, ipv4_pools=pools)
    assert address.startswith("10.5." if len(pools[0]) == 11 else "10.77.0.")


async def test_a_disabled_pool_serves_nobody_any_more(node: TestNode) -> None:
    assert (await assigned(node))[0].startswith("10.5.")
    await node.datastore.patch(IPPool, "default-ipv4-ippool", {"spec": {"disabled": True}})
    await add_pool(node, "second", "10.77.0.0/24")
    # The allocator's view of the pools is at most a second old.
    for number in range(1500):
        (address,) = await assigned(node, f"c-{number}")
        if not address.startswith("10.5."):
            break
        await asyncio.sleep(0.02)
    assert address.startswith("10.77.0.")
    assert (await assigned(node, "last"))[0].startswith("10.77.0.")


@pytest.mark.parametrize("pools", [["10.5.0.0/16", "10.99.0.0/24"], ["10.99.0.0/24", "10.5.0.0/16"]])
async def test_one_unknown_pool_among_those_of_the_configuration_is_named(
    node: TestNode, pools: list[str]
) -> None:
    status, error = await assign(node, ipv4_pools=pools)
    assert (status, error["code"]) == (1, 7)
    assert "10.99.0.0/24" in error["msg"]
    assert await node.allocated() == 0


async def test_a_certain_address_is_given_again_after_del_and_never_to_two(node: TestNode) -> None:
    wanted = "IP=10.5.123.123"
    status, result = await assign(node, arguments=wanted)
    assert (status, result["ips"]) == (0, [{"address": "10.5.123.123/32"}])
    status, error = await assign(node, "c2", wanted)
    assert (status, error["code"]) == (1, 11)
    assert "10.5.123.123" in error["msg"]
    await released(node)
    assert await assigned(node, arguments=wanted) == ["10.5.123.123"]
    # The same container asks again: it is answered the same.
    assert await assigned(node, arguments=wanted) == ["10.5.123.123"]


async def test_del_releases_what_somebody_else_accounted_to_the_container(node: TestNode) -> None:
    await released(node, "unknown")
    await node.allocator.assign(AddressRequest("k8s-pod-network.c1", {"node": "worker-01"}))
    assert await node.allocated() == 1
    await released(node)
    assert (await node.allocated(), await node.handles()) == (0, [])


# --- pools of the namespace ---


async def in_namespace(node: TestNode, pools: str) -> None:
    """Two pools of 16 addresses; the namespace asks for `pools`."""
    for name, cidr in (("first", "10.60.0.0/28"), ("second", "10.70.0.0/28")):
        await add_pool(node, name, cidr, block_size=29)
    metadata = Metadata(name="default", annotations={wishes.ANNOTATION_POOLS[4]: pools})
    await node.datastore.create(NamespaceObject(metadata=metadata))
    await node.add_pod("web")


async def fill(node: TestNode, pool: str) -> None:
    """Take all of its 16 addresses."""
    for number in range(16):
        await node.allocator.assign(AddressRequest(f"full.{number}", {"node": "worker-01"}, pools=(pool,)))


@pytest.mark.parametrize(
    ("pools", "full", "code", "network"),
    [
        ('["10.60.0.0/28"]', False, 0, "10.60.0."),
        ('["100.0.0.0/16"]', False, 7, "100.0.0.0/16"),
        ('["10.60.0.0/28"]', True, 11, "first"),
        ('["10.60.0.0/28","10.70.0.0/28"]', True, 0, "10.70.0."),
    ],
    ids=["one", "unknown", "full", "the-next"],
)
async def test_pools_of_the_namespace_that_serve_are_unknown_or_full(
    node: TestNode, sandboxes: list[Namespace], pools: str, full: bool, code: int, network: str
) -> None:
    await in_namespace(node, pools)
    if full:
        await fill(node, "first")
    status, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    if code:
        assert (status, result["code"]) == (1, code)
        assert network in result["msg"]
    else:
        assert status == 0, result
        assert addresses(result)[0].startswith(network)
    assert await node.cni("DEL", netns=path(sandboxes[0]), pod="web") == (0, {})
    await node.idle()
    assert await node.allocated() == (16 if full else 0)
