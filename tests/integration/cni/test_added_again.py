"""An ADD of a container and interface whose DEL was answered a moment ago keeps what it makes."""

import asyncio

import pytest

from tests.integration.cni.node import TestNode, addresses, eventually, memory, path
from tests.integration.dataplane.namespaces import Namespace
from tortie.cni.unfinished import FINISH_AFTER_SECONDS
from tortie.datastore.memory import Fault

pytestmark = pytest.mark.root

HANDLE = "k8s-pod-network.c1"
ENTRY = "c1.eth0.calico.del"


async def assert_it_stays(node: TestNode, sandbox: Namespace, wanted: list[str]) -> None:
    """Nothing of the earlier DEL comes after the ADD."""
    await asyncio.sleep(5 * FINISH_AFTER_SECONDS)
    await node.idle()
    assert [str(item) for item in await node.allocator.held(HANDLE)] == wanted
    assert sandbox.devices() == ["eth0"]
    assert node.host.reaches(wanted[0])


async def test_an_add_at_once_after_the_del_keeps_its_address(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    for _round in range(5):
        status, result = await node.cni("ADD", netns=path(sandboxes[0]))
        assert status == 0, result
        assert await node.cni("DEL", netns=path(sandboxes[0])) == (0, {})
    status, result = await node.cni("ADD", netns=path(sandboxes[0]))
    assert status == 0, result
    await assert_it_stays(node, sandboxes[0], addresses(result))
    assert await node.cni("DEL") == (0, {})
    await node.idle()
    assert await node.allocated() == 0


async def test_an_add_before_the_journal_is_replayed_keeps_its_address(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.cni("ADD", netns=path(sandboxes[0]))
    memory(node).inject = lambda _: Fault.UNAVAILABLE
    assert await node.cni("DEL", netns=path(sandboxes[0])) == (0, {})
    await asyncio.sleep(5 * FINISH_AFTER_SECONDS)
    status, answer = await node.cni("ADD", netns=path(sandboxes[0]))
    assert (status, answer["code"]) == (1, 11)
    assert node.journalled() == [ENTRY]
    memory(node).inject = None
    status, result = await node.cni("ADD", netns=path(sandboxes[0]))
    assert status == 0, result
    assert node.journalled() == []
    await node.stop()
    await node.start()
    await assert_it_stays(node, sandboxes[0], addresses(result))


async def test_a_del_of_another_interface_of_the_container_is_left_to_the_journal(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    other = {"cniVersion": "1.0.0", "name": "other-network"}
    await node.cni("ADD", netns=path(sandboxes[0]), config=other, CNI_IFNAME="eth1")
    memory(node).inject = lambda _: Fault.UNAVAILABLE
    await node.cni("DEL", netns=path(sandboxes[0]), config=other, CNI_IFNAME="eth1")
    await asyncio.sleep(5 * FINISH_AFTER_SECONDS)
    memory(node).inject = None
    status, result = await node.cni("ADD", netns=path(sandboxes[0]))
    assert status == 0, result
    assert node.journalled() == ["c1.eth1.calico.del"]
    await node.stop()
    await node.start()
    await eventually(lambda: node.journalled() == [])
    await assert_it_stays(node, sandboxes[0], addresses(result))


async def test_an_add_while_a_new_agent_replays_the_journal_keeps_its_address(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    for _round in range(4):
        status, result = await any_node.cni("ADD", netns=path(sandboxes[0]))
        assert status == 0, result
        await any_node.stop()
        assert await any_node.cni("DEL", netns=path(sandboxes[0])) == (0, {})
        assert any_node.journalled() == [ENTRY]
        (status, result), _ = await asyncio.gather(
            any_node.cni("ADD", netns=path(sandboxes[0])), any_node.start()
        )
        assert status == 0, result
        await assert_it_stays(any_node, sandboxes[0], addresses(result))
        assert await any_node.cni("DEL", netns=path(sandboxes[0])) == (0, {})
        await any_node.idle()
