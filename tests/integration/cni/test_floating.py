"""Floating addresses from ADD to DEL: the real shim, server and agent's half, real namespaces."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cni.node import (
    BOTH,
    NODE,
    TestNode,
    add,
    eventually,
    path,
    refused,
    running_with_both,
)
from tests.integration.dataplane.namespaces import Namespace
from tortie.agent.floating import FloatingAgent
from tortie.agent.sources import Source
from tortie.cni import wishes
from tortie.cni.cluster import Watched
from tortie.dataplane.floating import Applied, FloatingDataplane
from tortie.dataplane.floating_table import TABLE
from tortie.dataplane.netlink import DataplaneError
from tortie.model.constants import ANNOTATION_FLOATING
from tortie.model.names import veth_name
from tortie.model.resources import Pod
from tortie.routing.floating import FloatingDemand

pytestmark = pytest.mark.root

FLOATING = "203.0.113.9"
PERMITTED: dict[str, Any] = {"cniVersion": "1.1.0", "feature_control": {"floating_ips": True}}
WEB = veth_name("default", "web")


@asynccontextmanager
async def following(
    node: TestNode,
    dataplane: FloatingDataplane | None = None,
    *,
    allowed: bool = True,
    repairing: bool = True,
) -> AsyncIterator[FloatingAgent]:
    """The agent's half on the node, as the CNI server is told of it; `repairing`: its loop runs too."""
    pods = Source(node.datastore, Pod)
    agent = FloatingAgent(node=NODE, pods=pods, dataplane=dataplane or FloatingDataplane())
    agent.configure(allowed)
    tasks = [asyncio.create_task(pods.run())]
    if repairing:
        tasks.append(asyncio.create_task(agent.run()))
    async with asyncio.timeout(10):
        await pods.settled.wait()
    await node.stop()
    node.floating = agent
    node.watched = Watched(pod=lambda namespace, name: pods.items.get((namespace, name)))
    await node.start()
    try:
        yield agent
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with running_with_both(tmp_path) as made:
        yield made


def floats(*addresses: str) -> dict[str, str]:
    """The pod's annotation."""
    return {ANNOTATION_FLOATING: str(list(addresses)).replace("'", '"')}


def table(node: TestNode) -> str:
    return node.host.exec("nft", "list", "ruleset")


def routed(node: TestNode, address: str = FLOATING) -> str:
    """The device that the node routes the address to."""
    family = "-6" if ":" in address else "-4"
    return "".join(item["dev"] for item in node.host.json(family, "route") if item["dst"] == address)


async def annotate(node: TestNode, pod: str, value: str | None) -> None:
    patch = {"metadata": {"annotations": {ANNOTATION_FLOATING: value}}}
    await node.datastore.patch(Pod, pod, patch, "default")


async def test_a_pod_is_reached_by_its_floating_address_until_del(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    async with following(node):
        await node.add_pod("web", **floats(FLOATING))
        await node.add_pod("client")
        (own,) = await add(node, sandboxes[0], config=PERMITTED)
        await add(node, sandboxes[1], "client", config=PERMITTED)
        for caller in (*sandboxes, node.host):
            assert caller.reaches(FLOATING)
        assert f"{FLOATING} : {own}" in table(node)
        assert await node.cni("DEL", "c-web", pod="web", config=PERMITTED) == (0, {})
        # At once: before the address can be another pod's.
        assert TABLE not in table(node)
        assert routed(node) == ""
        await node.idle()


async def test_a_dual_stack_pod_floats_in_both_families(node: TestNode, sandboxes: list[Namespace]) -> None:
    async with following(node):
        await node.add_pod("web", **floats(FLOATING, "2001:db8:9::9"))
        await add(node, sandboxes[0], config=PERMITTED | BOTH)
        for address in (FLOATING, "2001:db8:9::9"):
            assert sandboxes[0].reaches(address)
            assert node.host.reaches(address)
            assert routed(node, address) == WEB


async def test_check_names_what_somebody_took_away(node: TestNode, sandboxes: list[Namespace]) -> None:
    async with following(node, repairing=False):
        await node.add_pod("web", **floats(FLOATING))
        place = path(sandboxes[0])
        _, answer = await node.cni("ADD", "c-web", netns=place, pod="web", config=PERMITTED)
        config = PERMITTED | {"prevResult": answer}
        assert await node.cni("CHECK", "c-web", netns=place, pod="web", config=config) == (0, {})
        node.host.exec("nft", "delete", "element", "inet", TABLE, "external4", f"{{ {FLOATING} }}")
        status, error = await node.cni("CHECK", "c-web", netns=place, pod="web", config=config)
        assert (status, error["code"]) == (1, 105)
        assert f"floating address {FLOATING} is not translated" in error["msg"]


async def test_what_somebody_took_away_is_put_back(node: TestNode, sandboxes: list[Namespace]) -> None:
    async with following(node):
        await node.add_pod("web", **floats(FLOATING))
        await add(node, sandboxes[0], config=PERMITTED)
        before = table(node)
        node.host.exec("nft", "delete", "table", "inet", TABLE)
        node.host.ip("route", "del", FLOATING)
        await eventually(lambda: table(node) == before and routed(node) == WEB)


async def test_a_floating_address_that_the_configuration_does_not_permit_is_refused(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    async with following(node):
        await node.add_pod("web", **floats(FLOATING))
        code, sentence = await refused(node, sandboxes[0])
        assert code == 7
        assert "feature_control.floating_ips" in sentence


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ('["2001:db8:9::9"]', "the pod has no IPv6 address"),
        ('["10.5.77.7"]', "which is the pod's own address"),
        ('["10.5.0.200"]', "is the address of pod default/other"),
        ('["192.0.2.1"]', "is the address of the node itself"),
        ('["203.0.113.9","203.0.113.9"]', "stands in it twice"),
        ("203.0.113.9", "must be a JSON list of addresses"),
    ],
)
async def test_a_floating_address_that_the_pod_cannot_have_is_refused_and_nothing_is_left(
    node: TestNode, sandboxes: list[Namespace], annotation: str, words: str
) -> None:
    async with following(node):
        await node.add_pod("other", **{wishes.ANNOTATION_ADDRESSES: '["10.5.0.200"]'})
        await add(node, sandboxes[1], "other", config=PERMITTED)
        before = table(node), node.host.ip("route")
        mine = {wishes.ANNOTATION_ADDRESSES: '["10.5.77.7"]', ANNOTATION_FLOATING: annotation}
        await node.add_pod("web", **mine)
        code, sentence = await refused(node, sandboxes[0], config=PERMITTED)
        assert code == 7
        assert words in sentence
        assert (table(node), node.host.ip("route")) == before


async def test_an_address_that_floats_here_becomes_a_new_pods_own(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    async with following(node):
        await node.add_pod("web", **floats("10.5.0.200"))
        await add(node, sandboxes[0], config=PERMITTED)
        assert routed(node, "10.5.0.200") == WEB
        await node.add_pod("heir", **{wishes.ANNOTATION_ADDRESSES: '["10.5.0.200"]'})
        await add(node, sandboxes[1], "heir", config=PERMITTED)
        assert TABLE not in table(node)  # when the ADD is answered
        assert routed(node, "10.5.0.200") == veth_name("default", "heir")
        assert sandboxes[0].reaches("10.5.0.200")


async def test_felix_configuration_switches_them_on_and_off(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    async with following(node, allowed=False) as agent:
        await node.add_pod("web", **floats(FLOATING))
        await add(node, sandboxes[0], config=PERMITTED)
        assert TABLE not in table(node)
        assert routed(node) == ""
        agent.configure(True)
        await eventually(lambda: TABLE in table(node) and routed(node) == WEB)
        agent.configure(False)
        await eventually(lambda: TABLE not in table(node) and routed(node) == "")


async def test_a_changed_annotation_counts_for_the_running_pod(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    async with following(node):
        await node.add_pod("web")
        await add(node, sandboxes[0], config=PERMITTED)
        await annotate(node, "web", f'["{FLOATING}"]')
        await eventually(lambda: routed(node) == WEB and f"{FLOATING} : " in table(node))
        await annotate(node, "web", '["203.0.113.10"]')
        await eventually(lambda: routed(node, "203.0.113.10") == WEB and f"{FLOATING} : " not in table(node))
        assert routed(node) == ""
        await annotate(node, "web", "nonsense")
        await eventually(lambda: TABLE not in table(node))


async def test_another_agent_keeps_what_is_in_force_and_a_del_meanwhile_counts(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    async with following(node):
        for number, sandbox in enumerate(sandboxes):
            await node.add_pod(f"web-{number}", **floats(f"203.0.113.{number}"))
            await add(node, sandbox, f"web-{number}", config=PERMITTED)
        before = table(node)
    await node.stop()
    assert table(node) == before
    assert sandboxes[1].reaches("203.0.113.0")
    # The agent is away: the shim writes it down, and the API keeps telling of the pod.
    assert await node.cni("DEL", "c-web-0", pod="web-0", config=PERMITTED) == (0, {})
    async with following(node):
        await eventually(lambda: "203.0.113.0 : " not in table(node))
        assert routed(node, "203.0.113.0") == ""
        assert "203.0.113.1 : " in table(node)
        assert routed(node, "203.0.113.1") == veth_name("default", "web-1")
        assert node.host.reaches("203.0.113.1")


class Refusing(FloatingDataplane):
    """A kernel that refuses while it is told to."""

    refuses = True

    def apply(self, demand: FloatingDemand) -> Applied:
        if self.refuses and demand.pods:
            raise DataplaneError("no room for another translation")
        return super().apply(demand)


async def test_a_pod_whose_floating_address_the_kernel_refuses_does_not_start(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    dataplane = Refusing()
    async with following(node, dataplane):
        await node.add_pod("web", **floats(FLOATING))
        code, sentence = await refused(node, sandboxes[0], config=PERMITTED)
        assert (code, sentence) == (103, "no room for another translation")
        dataplane.refuses = False
        await add(node, sandboxes[0], config=PERMITTED)
        assert node.host.reaches(FLOATING)
