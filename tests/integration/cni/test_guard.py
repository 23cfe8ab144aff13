"""Policy is in force before a pod starts, and what the agent watches answers for the API server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cni.node import BOTH, TestNode, add, path, refused, running_with_both
from tests.integration.dataplane.namespaces import Namespace
from tortie.cni.cluster import Watched
from tortie.dataplane.netlink import DataplaneError
from tortie.datastore.memory import Call, MemoryDatastore
from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.names import veth_name
from tortie.model.policy_natives import Namespace as NamespaceObject
from tortie.model.resources import ClusterInformation, Metadata, Pod

pytestmark = pytest.mark.root


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with running_with_both(tmp_path) as made:
        yield made


class Policy:
    """Records what is asked of it; refuses or lingers on demand."""

    def __init__(self) -> None:
        self.ready: list[WorkloadEndpoint] = []
        self.gone: list[str] = []
        self.refusal: Exception | None = None
        self.seconds = 0.0

    async def endpoint_ready(self, endpoint: WorkloadEndpoint) -> None:
        await asyncio.sleep(self.seconds)
        if self.refusal:
            raise self.refusal
        self.ready.append(endpoint)

    async def endpoint_gone(self, interface: str) -> None:
        self.gone.append(interface)


@pytest.fixture
async def guarded(node: TestNode) -> tuple[TestNode, Policy]:
    policy = Policy()
    await node.stop()
    node.policy = policy
    await node.start()
    return node, policy


async def test_policy_is_in_force_before_add_is_answered_and_goes_with_del(
    guarded: tuple[TestNode, Policy], sandboxes: list[Namespace]
) -> None:
    node, policy = guarded
    await node.add_pod("web")
    given = await add(node, sandboxes[0], config=BOTH)
    (endpoint,) = policy.ready
    assert endpoint.spec.interface_name == veth_name("default", "web")
    assert [item.partition("/")[0] for item in endpoint.spec.ip_networks] == given
    assert endpoint.spec.container_id == "c-web"
    # A late DEL of an older sandbox must not take the rules of its successor.
    assert await node.cni("DEL", "older", pod="web") == (0, {})
    assert policy.gone == []
    assert await node.cni("DEL", "c-web", pod="web") == (0, {})
    assert policy.gone == [veth_name("default", "web")]


async def test_a_pod_whose_policy_cannot_be_programmed_does_not_start(
    guarded: tuple[TestNode, Policy], sandboxes: list[Namespace]
) -> None:
    node, policy = guarded
    await node.add_pod("web")
    policy.refusal = DataplaneError("load policy: EINVAL")
    assert (await refused(node, sandboxes[0]))[0] == 103
    policy.refusal, policy.seconds = None, 30.0
    code, sentence = await refused(node, sandboxes[0], config={"policy_setup_timeout_seconds": 0.2})
    assert code == 11
    assert "policy_setup_timeout_seconds" in sentence


async def test_policy_keeps_to_the_addresses_of_the_interface_that_stays(
    guarded: tuple[TestNode, Policy], sandboxes: list[Namespace]
) -> None:
    node, policy = guarded
    await node.add_pod("web")
    call: dict[str, Any] = {"netns": path(sandboxes[0]), "pod": "web"}
    assert (await node.cni("ADD", **call))[0] == 0
    asked = list(policy.ready)
    assert len(asked) == 1
    status, error = await node.cni("ADD", CNI_IFNAME="eth1", **call)
    assert (status, error["code"]) == (1, 104)
    assert (policy.ready, policy.gone) == (asked, [])
    assert (await node.cni("ADD", **call))[0] == 0  # the same once more
    assert policy.ready == asked * 2


async def test_what_the_agent_watches_is_not_asked_for_again(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    pod = await node.add_pod("web")
    information = await node.datastore.get(ClusterInformation, "default")
    reads: list[str] = []

    def record(call: Call) -> None:
        if call.verb == "get" and call.kind in (Pod, ClusterInformation, NamespaceObject):
            reads.append(call.kind.__name__)

    assert isinstance(node.datastore, MemoryDatastore)
    node.datastore.inject = record
    await node.stop()
    node.watched = Watched(
        pod=lambda namespace, name: pod if (namespace, name) == ("default", "web") else None,
        namespace=lambda name: NamespaceObject(metadata=Metadata(name=name)),
        information=lambda: information,
    )
    await node.start()
    arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID="
    status, _ = await node.cni("ADD", netns=path(sandboxes[0]), CNI_ARGS=arguments + pod.metadata.uid)
    assert (status, reads) == (0, [])
    # Without the same uid the watch may be behind: the API server decides.
    status, error = await node.cni("ADD", "c2", netns=path(sandboxes[1]), CNI_ARGS=arguments + "other")
    assert (status, error["code"], reads) == (1, 101, ["Pod"])
