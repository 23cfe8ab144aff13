"""Assigns that are written together, while others tidy up and release the same handles, in every order."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.components import ipam_audit as audit
from tests.unit.ipam.turns import Act, Actor, play
from tortie.datastore.memory import MemoryDatastore
from tortie.ipam.allocator import Allocator
from tortie.ipam.releases import Releases
from tortie.ipam.request import Address, AddressRequest

HANDLES = ("net.1", "net.2", "net.3")

orders = st.lists(st.integers(0, 2), min_size=20, max_size=60)


async def _assign(actor: Actor) -> list[tuple[Address, ...]]:
    node = Allocator(actor, "n1", rng=audit.Eager(1))
    await node.assign(AddressRequest("net.0", {}))
    return await asyncio.gather(*(node.assign(AddressRequest(handle, {})) for handle in HANDLES))


async def _tidy(actor: Actor) -> None:
    """What garbage collection does with handles that seem to hold nothing."""
    for handle in HANDLES:
        await Releases(actor, rng=audit.Eager(2)).tidy(handle)


async def _release(actor: Actor) -> None:
    releases = Releases(actor, rng=audit.Eager(3))
    await asyncio.gather(*(releases.release_handle(handle) for handle in HANDLES))


@pytest.mark.parametrize(
    "acts",
    [
        pytest.param((_assign, _tidy, _tidy), id="tidied-twice"),
        pytest.param((_assign, _tidy, _release), id="tidied-and-released"),
        pytest.param((_assign, _assign, _release), id="two-processes-of-one-node"),
    ],
)
def test_every_address_is_reachable_from_its_handle_at_any_time(acts: Sequence[Act]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(orders)
    def in_any_order(order: list[int]) -> None:
        async def scenario() -> None:
            store = MemoryDatastore()
            await store.create(audit.pool("10.5.0.0/26", 29))
            outcomes = await play(store, acts, order, lambda: audit.check(store.snapshot()))
            assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            if _release not in acts:
                assert {"net.0", *HANDLES} == set((await audit.holders(store)).values())

        asyncio.run(scenario())

    in_any_order()
