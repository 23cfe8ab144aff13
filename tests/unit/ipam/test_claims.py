"""Claiming and giving up the same block at the same time, in every order of the calls."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.components import ipam_audit as audit
from tests.unit.ipam.turns import Act, Actor, play
from tortie.datastore.interface import DatastoreError
from tortie.datastore.memory import MemoryDatastore
from tortie.ipam import block as blocks
from tortie.ipam.claims import Claims
from tortie.model.names import affinity_name
from tortie.model.resources import AffinityState, BlockAffinity, BlockAffinitySpec, IPAMBlock, Metadata

CIDR = ip_network("10.5.0.0/28")
NOW = datetime(2030, 1, 1, tzinfo=UTC)

STATES: tuple[AffinityState, ...] = ("pending", "confirmed", "pendingDeletion")

orders = st.lists(st.integers(0, 2), min_size=10, max_size=40)


def claims(actor: Actor | MemoryDatastore, node: str) -> Claims:
    return Claims(actor, node, lambda: NOW, audit.Eager(1))


def claim(node: str) -> Act:
    return lambda actor: claims(actor, node).claim(CIDR)


async def _give_up(actor: Actor) -> bool:
    stored = (await actor.list(IPAMBlock)).items
    return bool(stored) and blocks.is_empty(stored[0]) and await claims(actor, "").give_up(stored[0])


async def _repair(actor: Actor) -> None:
    for affinity in (await actor.list(BlockAffinity)).items:
        await claims(actor, "").repair(affinity)


async def _assign(actor: Actor) -> None:
    """What an allocator of n1 does that knows the block."""
    for block in (await actor.list(IPAMBlock)).items:
        if blocks.belongs_to(block, "n1"):
            await actor.update(blocks.assign(block, 1, "net.c1", {})[0])


async def begun(state: AffinityState) -> MemoryDatastore:
    """A block of n1 whose affinity is in `state`."""
    store = MemoryDatastore()
    store.put(blocks.new_block(CIDR, "n1", NOW, 1))
    spec = BlockAffinitySpec(node="n1", cidr=str(CIDR), state=state)
    store.put(BlockAffinity(metadata=Metadata(name=affinity_name("n1", str(CIDR))), spec=spec))
    return store


async def check_owners(store: MemoryDatastore) -> None:
    snapshot = store.snapshot()
    stored = {item.spec.cidr: item.spec.affinity for item in (await snapshot.list(IPAMBlock)).items}
    confirmed = [
        item.spec.node
        for item in (await snapshot.list(BlockAffinity)).items
        if item.spec.state == "confirmed"
    ]
    assert len(confirmed) <= 1, f"the block has the owners {confirmed}"
    assert [stored.get(str(CIDR))] == [f"host:{node}" for node in confirmed] or not confirmed


@pytest.mark.parametrize(
    "acts",
    [
        pytest.param((claim("n1"), _give_up, claim("n2")), id="claimed-again-given-up-claimed-by-another"),
        pytest.param((_give_up, _give_up, claim("n2")), id="given-up-twice-claimed-by-another"),
        pytest.param((_repair, _give_up, claim("n2")), id="repaired-given-up-claimed-by-another"),
        pytest.param((_assign, _give_up, _repair), id="assigned-given-up-repaired"),
    ],
)
def test_confirmed_affinity_always_has_its_block(acts: Sequence[Act]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(STATES), orders)
    def in_any_order(state: AffinityState, order: list[int]) -> None:
        async def scenario() -> None:
            store = await begun(state)
            outcomes = await play(store, acts, order, lambda: check_owners(store))
            for outcome in outcomes:
                assert not isinstance(outcome, BaseException) or isinstance(outcome, DatastoreError)

        asyncio.run(scenario())

    in_any_order()


async def test_block_that_was_used_meanwhile_is_kept_and_its_affinity_confirmed_again() -> None:
    store = await begun("confirmed")
    (block,) = (await store.list(IPAMBlock)).items
    store.put(blocks.assign(block, 1, "net.c1", {})[0])
    assert not await claims(store, "").give_up(block)
    assert [item.spec.state for item in (await store.list(BlockAffinity)).items] == ["confirmed"]
    assert len(await audit.holders(store)) == 1


async def test_block_without_an_affinity_is_given_up_too() -> None:
    store = await begun("confirmed")
    (affinity,) = (await store.list(BlockAffinity)).items
    await store.delete(affinity)
    (block,) = (await store.list(IPAMBlock)).items
    assert await claims(store, "").give_up(block)
    assert (await store.list(IPAMBlock)).items == []
