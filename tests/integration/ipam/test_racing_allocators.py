"""Allocators of several nodes and processes at work on one real API server."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from tests.components import ipam_audit as audit
from tests.components.apiserver import ApiServer
from tests.components.proxy import proxy_to
from tortie.datastore.config import ClusterConfig, from_kubeconfig
from tortie.datastore.interface import ConflictError, UnavailableError
from tortie.datastore.kubernetes import KubernetesDatastore, connect
from tortie.ipam import block as blocks
from tortie.ipam.allocator import Allocator
from tortie.ipam.claims import Claims
from tortie.ipam.errors import NoAddressError
from tortie.ipam.releases import utc_now
from tortie.ipam.request import Address, AddressRequest
from tortie.model.resources import BlockAffinity, IPAMBlock, IPAMHandle


@pytest.fixture
async def second(apiserver: ApiServer) -> AsyncIterator[KubernetesDatastore]:
    """Another process' connection."""
    async with await connect(apiserver.kubeconfig) as client:
        yield client


async def test_nodes_that_start_together_get_blocks_and_addresses_of_their_own(
    datastore: KubernetesDatastore, second: KubernetesDatastore
) -> None:
    await datastore.create(audit.pool("10.5.0.0/24", 28))
    nodes = [Allocator(store, f"n{n}") for n, store in enumerate([datastore, second] * 3)]
    await asyncio.gather(*(node.reconcile_affinities() for node in nodes))
    wanted = [
        audit.assign(node, f"net.{n}-{number}", {"node": f"n{n}"})
        for number in range(20)
        for n, node in enumerate(nodes)
    ]
    addresses = await asyncio.gather(*wanted)
    assert len(set(addresses)) == 120
    await audit.check(datastore)
    states = {item.spec.state for item in (await datastore.list(BlockAffinity)).items}
    assert states == {"confirmed"}


async def test_two_processes_of_one_node_share_its_blocks(
    datastore: KubernetesDatastore, second: KubernetesDatastore
) -> None:
    await datastore.create(audit.pool("10.5.0.0/24", 28))
    old, new = Allocator(datastore, "n1"), Allocator(second, "n1")
    wanted = [
        audit.assign(allocator, f"net.{n}-{name}")
        for n in range(16)
        for name, allocator in (("old", old), ("new", new))
    ]
    assert len(set(await asyncio.gather(*wanted))) == 32
    await audit.check(datastore)
    owners = [item.spec.affinity for item in (await datastore.list(IPAMBlock)).items]
    assert set(owners) == {"host:n1"}


async def test_small_pool_is_used_to_the_last_address_and_comes_back_whole(
    datastore: KubernetesDatastore, second: KubernetesDatastore
) -> None:
    await datastore.create(audit.pool("10.5.0.0/28", 30))
    nodes = [Allocator(store, f"n{n}") for n, store in enumerate([datastore, second, datastore])]
    wanted = [
        (node, f"net.{n}-{number}") for number in range(6) for n, node in enumerate(nodes)
    ]  # 18 for 16 addresses
    results = await asyncio.gather(
        *(audit.assign(node, handle) for node, handle in wanted), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 2
    assert all(isinstance(error, NoAddressError) for error in refused)
    assert len(set(results) - set(refused)) == 16
    await audit.check(datastore)
    await asyncio.gather(*(node.release_handle(handle) for node, handle in wanted))
    assert await audit.holders(datastore) == {}
    assert (await datastore.list(IPAMHandle)).items == []


async def test_connections_cut_in_mid_request_leak_nothing(
    apiserver: ApiServer, datastore: KubernetesDatastore
) -> None:
    await datastore.create(audit.pool("10.5.0.0/26", 28))
    config = from_kubeconfig(apiserver.kubeconfig)
    async with proxy_to(apiserver.port) as proxy:
        shaky = ClusterConfig(f"https://127.0.0.1:{proxy.port}", config.token, config.tls)
        async with KubernetesDatastore(shaky) as client:
            allocator = Allocator(client, "n1")

            async def cut_now_and_then() -> None:
                while True:
                    await asyncio.sleep(0.013)
                    proxy.cut()

            cutting = asyncio.create_task(cut_now_and_then())
            for number in range(30):
                handle = f"net.{number}"
                try:
                    first = await audit.assign(allocator, handle)
                    assert await audit.assign(allocator, handle) == first
                except UnavailableError:
                    continue
            cutting.cancel()
        assert proxy.accepted > 5
    await audit.check(datastore)
    survivor = Allocator(datastore, "n1")
    await survivor.reconcile_affinities()
    for number in range(30):
        await survivor.release_handle(f"net.{number}")
    assert await audit.holders(datastore) == {}
    assert (await datastore.list(IPAMHandle)).items == []


async def test_fifty_pods_at_once_share_a_few_writes_of_their_block(
    datastore: KubernetesDatastore,
) -> None:
    await datastore.create(audit.pool("10.5.0.0/24", 26))
    allocator = Allocator(datastore, "n1")
    await audit.assign(allocator, "net.0")
    (before,) = (await datastore.list(IPAMBlock)).items
    addresses = await asyncio.gather(*(audit.assign(allocator, f"net.{n}") for n in range(1, 51)))
    assert len(set(addresses)) == 50
    (after,) = (await datastore.list(IPAMBlock)).items
    assert after.spec.sequence_number - before.spec.sequence_number == 50
    await audit.check(datastore)


async def test_both_families_are_assigned_and_released_by_many_at_once(
    datastore: KubernetesDatastore, second: KubernetesDatastore
) -> None:
    await datastore.create(audit.pool("10.5.0.0/24", 28))
    await datastore.create(audit.pool("fd00:5::/64", 124, "six"))
    nodes = [Allocator(store, f"n{n}") for n, store in enumerate([datastore, second])]
    wanted = [
        (node, AddressRequest(f"net.{n}-{number}", {}, families=frozenset({4, 6})))
        for number in range(20)
        for n, node in enumerate(nodes)
    ]
    taken = await asyncio.gather(*(node.assign(request) for node, request in wanted))
    assert len({address for pair in taken for address in pair}) == 80
    await audit.check(datastore)
    await asyncio.gather(*(node.release_handle(request.handle_id) for node, request in wanted))
    assert await audit.holders(datastore) == {}
    assert (await datastore.list(IPAMHandle)).items == []


async def test_blocks_are_given_up_while_nodes_use_them(
    datastore: KubernetesDatastore, second: KubernetesDatastore
) -> None:
    await datastore.create(audit.pool("10.5.0.0/26", 30))
    nodes = [Allocator(store, f"n{n}") for n, store in enumerate([datastore, second])]
    collecting = Claims(second, "", utc_now, random.Random(1))
    answered: set[Address] = set()
    done = asyncio.Event()

    async def give_up_what_is_empty() -> None:
        while not done.is_set():
            for block in (await second.list(IPAMBlock)).items:
                if blocks.is_empty(block):
                    with contextlib.suppress(ConflictError):
                        await collecting.give_up(block)

    async def live(node: Allocator, name: str) -> None:
        for number in range(6):
            address = await audit.assign(node, f"net.{name}-{number}")
            assert address not in answered
            answered.add(address)
            if number % 2:
                answered.discard(address)
                await node.release_handle(f"net.{name}-{number}")

    giving_up = asyncio.create_task(give_up_what_is_empty())
    await asyncio.gather(*(live(node, f"{n}-{k}") for n, node in enumerate(nodes) for k in range(3)))
    done.set()
    await giving_up
    assert set(await audit.holders(datastore)) == answered
    await audit.check(datastore)
