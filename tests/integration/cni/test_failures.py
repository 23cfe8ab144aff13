"""What is refused, what fails in the middle, and what is carried out later: nothing is left half made."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.integration.cni.node import (
    TestNode,
    address_of,
    assert_nothing_is_left,
    eventually,
    memory,
    path,
)
from tests.integration.dataplane.namespaces import Namespace
from tortie.cni.annotations import Annotations
from tortie.cni.cluster import ANNOTATION_MIRROR
from tortie.cni.wishes import ANNOTATION_POOLS
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.workload import Workloads
from tortie.dataplane.workload_link import BegunLink, Departure, WorkloadEnds, WorkloadLink
from tortie.datastore.interface import R
from tortie.datastore.memory import Call, Fault, MemoryDatastore
from tortie.model.constants import ANNOTATION_CONTAINER_ID, ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.names import veth_name
from tortie.model.resources import ClusterInformation, IPPool, IPPoolSpec, Metadata, Pod

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        (b"{", 6, "not JSON"),
        (b"[]", 7, "not an object"),
        (b"{}", 7, "lacks cniVersion and name and type"),
        (b'{"cniVersion": "9.9.9", "name": "n", "type": "calico"}', 1, "9.9.9"),
    ],
)
async def test_a_bad_configuration_is_refused_by_code(
    any_node: TestNode, sandboxes: list[Namespace], config: bytes, code: int, words: str
) -> None:
    status, error = await any_node.cni("ADD", netns=path(sandboxes[0]), config=config)
    assert (status, error["code"]) == (1, code), error
    assert words in error["msg"]
    await assert_nothing_is_left(any_node)


@pytest.mark.parametrize("netns", ["/dev/null", "/proc/self/ns/net", "/proc/self/ns/uts"])
async def test_what_is_not_a_containers_namespace_is_refused(any_node: TestNode, netns: str) -> None:
    await any_node.add_pod("web")
    status, error = await any_node.cni("ADD", netns=netns, pod="web")
    assert (status, error["code"]) == (1, 4)
    assert f"CNI_NETNS is {netns!r}" in error["msg"]
    await assert_nothing_is_left(any_node)


async def test_a_pod_that_does_not_exist_is_named(node: TestNode, sandboxes: list[Namespace]) -> None:
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="ghost")
    assert (status, error["code"], error["msg"]) == (1, 101, "pod default/ghost does not exist (any more)")
    await assert_nothing_is_left(node)


async def test_a_pod_that_was_replaced_under_its_name_is_named(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=of-old"
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), CNI_ARGS=arguments)
    assert (status, error["code"]) == (1, 101)
    assert "was replaced" in error["msg"]
    await node.add_pod("mirror", **{ANNOTATION_MIRROR: "of-old"})
    arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=mirror;K8S_POD_UID=of-old"
    assert (await node.cni("ADD", netns=path(sandboxes[0]), CNI_ARGS=arguments))[0] == 0


async def test_a_locked_datastore_asks_to_try_again(node: TestNode, sandboxes: list[Namespace]) -> None:
    lock = {"spec": {"datastoreReady": False}}
    await node.datastore.patch(ClusterInformation, "default", lock)
    await node.add_pod("web")
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 11)
    assert "datastoreReady false" in error["msg"]
    await node.datastore.delete(await node.datastore.get(ClusterInformation, "default"))
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[1]["code"] == 11
    await assert_nothing_is_left(node)


async def test_exhausted_pools_ask_to_try_again_and_say_which(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.datastore.patch(IPPool, "default-ipv4-ippool", {"spec": {"disabled": True}})
    await node.add_pod("web")
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 11)
    assert "default-ipv4-ippool" in error["msg"]
    await assert_nothing_is_left(node)


async def test_a_pod_gets_its_address_from_the_pool_that_it_asks_for(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    spec = IPPoolSpec(cidr="10.77.0.0/24", node_selector="!all()")
    await node.datastore.create(IPPool(metadata=Metadata(name="special"), spec=spec))
    await node.add_pod("web", **{ANNOTATION_POOLS[4]: '["special"]'})
    status, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert status == 0, result
    assert address_of(result).startswith("10.77.0.")
    for annotation in ('["10.99.0.0/16"]', "special", '{"a": 1}'):
        await node.add_pod(f"bad-{len(annotation)}", **{ANNOTATION_POOLS[4]: annotation})
        status, error = await node.cni("ADD", "c2", netns=path(sandboxes[1]), pod=f"bad-{len(annotation)}")
        assert (status, error["code"]) == (1, 7), error


async def test_a_name_that_is_taken_in_the_container_is_refused_without_a_leak(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    sandboxes[0].ip("link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    await node.add_pod("web")
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 104)
    assert "interface named eth0 already" in error["msg"]
    await assert_nothing_is_left(node)


@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        ("get", Fault.UNAVAILABLE),
        ("create", Fault.UNAVAILABLE),
        ("update", Fault.UNAVAILABLE),
        ("update", Fault.LOST_RESPONSE),
    ],
)
async def test_a_datastore_that_fails_in_the_middle_of_add_costs_neither_interface_nor_address(
    node: TestNode, sandboxes: list[Namespace], verb: str, fault: Fault
) -> None:
    await node.add_pod("web")
    failing = True

    def inject(call: Call) -> Fault | None:
        return fault if failing and call.verb == verb else None

    memory(node).inject = inject
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 11), error
    # It may have been made while the datastore was asked; then it is out of service, and deleted soon.
    await eventually(lambda: node.host.devices() == [] and sandboxes[0].devices() == [])
    failing = False
    # What could not be released at once is in the journal, and goes when the agent starts again.
    await node.stop()
    await node.start()
    await eventually(lambda: node.journalled() == [])
    assert await node.handles() == []
    assert await node.allocated() == 0
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[0] == 0


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.CONFLICT, Fault.LOST_RESPONSE])
async def test_annotations_that_cannot_be_written_do_not_fail_an_add_nor_a_del(
    node: TestNode, sandboxes: list[Namespace], fault: Fault
) -> None:
    await node.add_pod("web")
    memory(node).inject = lambda call: fault if call.verb == "patch" and call.kind is Pod else None
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[0] == 0
    assert await node.cni("DEL", pod="web") == (0, {})
    await assert_nothing_is_left(node)


async def test_a_slow_annotation_of_add_does_not_come_after_that_of_del(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    slow = Slow(memory(node))
    await node.stop()
    node.datastore = slow
    await node.start()
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[0] == 0
    await eventually(lambda: slow.begun == 1)
    assert await node.cni("DEL", pod="web") == (0, {})
    await node.idle()
    expected = {ANNOTATION_POD_IP: "", ANNOTATION_POD_IPS: "", ANNOTATION_CONTAINER_ID: "c1"}
    await node.annotated("web", expected)
    assert slow.patched == 2


async def test_annotations_that_a_killed_agent_did_not_write_are_written_by_the_next_one(
    any_node: TestNode, sandboxes: list[Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("web", "gone"):
        await any_node.add_pod(name)
    with monkeypatch.context() as patch:
        patch.setattr(Annotations, "write", lambda *_: None)  # as when it is killed before it comes to it
        status, result = await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
        assert status == 0
    await any_node.stop()
    await any_node.start()
    address = f"{address_of(result)}/32"
    told = {ANNOTATION_POD_IP: address, ANNOTATION_POD_IPS: address, ANNOTATION_CONTAINER_ID: "c1"}
    await any_node.annotated("web", told)
    await any_node.annotated("gone", {})
    assert await any_node.cni("DEL", pod="web") == (0, {})
    await any_node.idle()
    await any_node.stop()
    await any_node.start()
    await any_node.annotated("web", {**told, ANNOTATION_POD_IP: "", ANNOTATION_POD_IPS: ""})


async def test_a_del_before_the_annotations_were_written_leaves_the_pod_as_it_was(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    patched: list[Call] = []

    def note(call: Call) -> None:
        if call.verb == "patch":
            patched.append(call)

    memory(node).inject = note
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[0] == 0
    assert await node.cni("DEL", pod="web") == (0, {})
    await node.idle()
    await node.stop()
    assert patched == []
    await assert_nothing_is_left(node)


async def test_del_while_the_datastore_is_away_succeeds_and_is_carried_out_later(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    memory(node).inject = lambda _: Fault.UNAVAILABLE
    assert await node.cni("DEL", pod="web") == (0, {})
    await eventually(lambda: node.host.devices() == [])
    assert node.journalled() == ["c1.eth0.calico.del"]
    memory(node).inject = None
    await node.stop()
    await node.start()
    await eventually(lambda: node.journalled() == [])
    await assert_nothing_is_left(node)


async def test_del_while_the_agent_is_away_is_carried_out_when_it_starts(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    await any_node.stop()
    assert await any_node.cni("DEL", netns=path(sandboxes[0]), pod="web") == (0, {})
    assert any_node.journalled() == ["c1.eth0.calico.del"]
    (any_node.journal / "nonsense.del").write_bytes(b"nonsense")
    await any_node.start()
    await eventually(lambda: any_node.journalled() == [])
    await assert_nothing_is_left(any_node)


async def test_add_waits_for_an_agent_that_is_restarting(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    await any_node.stop()
    call = asyncio.create_task(any_node.cni("ADD", netns=path(sandboxes[0]), pod="web"))
    await asyncio.sleep(0.3)
    assert not call.done()
    await any_node.start()
    assert (await call)[0] == 0


class Slow(MemoryDatastore):
    """Patches only after a while, the first one after a long while; the rest is that of another datastore."""

    def __init__(self, other: MemoryDatastore) -> None:
        vars(self).update(vars(other))
        self.begun = self.patched = 0

    async def patch(
        self, kind: type[R], name: str, patch: dict[str, Any], namespace: str = "", subresource: str = ""
    ) -> R:
        self.begun += 1
        await asyncio.sleep(0.1 if self.patched else 0.5)
        self.patched += 1
        return await super().patch(kind, name, patch, namespace, subresource)


class Lingering(Workloads):
    """Makes the interface and says so, but stays busy a while longer, in which the agent is stopped."""

    def __init__(self, made: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        self._made, self._loop = made, loop

    def add(self, link: WorkloadLink, begun: BegunLink | None = None) -> WorkloadEnds:
        ends = super().add(link, begun)
        self._loop.call_soon_threadsafe(self._made.set)
        time.sleep(0.5)
        return ends


async def test_an_agent_that_is_stopped_in_the_middle_of_add_takes_it_back(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    await any_node.stop()
    made = asyncio.Event()
    any_node.workloads = Lingering(made, asyncio.get_running_loop())
    await any_node.start()
    call = asyncio.create_task(any_node.cni("ADD", netns=path(sandboxes[0]), pod="web"))
    async with asyncio.timeout(30):
        await made.wait()
    assert any_node.host.devices() == [veth_name("default", "web")]
    await any_node.stop()
    status, error = await call
    assert (status, error["code"]) == (1, 11)
    await assert_nothing_is_left(any_node)


class Refusing(Workloads):
    """A kernel that refuses to remove."""

    def detach(self, departures: Sequence[Departure]) -> set[str]:
        raise DataplaneError(f"set device {departures[0].host_name}: EPERM")


async def test_an_interface_that_cannot_be_removed_keeps_its_address(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await node.stop()
    node.workloads = Refusing()
    await node.start()
    await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    status, error = await node.cni("DEL", pod="web")
    assert (status, error["code"]) == (1, 103)
    assert await node.handles() == ["k8s-pod-network.c1"]
