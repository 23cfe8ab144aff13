"""ADD, DEL and CHECK through the real shim and server, into real namespaces."""

import asyncio
from pathlib import Path

import pytest

from tests.integration.cni.node import (
    MTU,
    TestNode,
    address_of,
    assert_nothing_is_left,
    path,
    running,
)
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import shim
from tortie.datastore.interface import ConflictError, InvalidError
from tortie.model.constants import ANNOTATION_CONTAINER_ID, ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.names import veth_name
from tortie.model.resources import Pod

pytestmark = pytest.mark.root


async def test_add_connects_two_pods_and_del_leaves_nothing(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    addresses = []
    for number, sandbox in enumerate(sandboxes):
        await any_node.add_pod(f"web-{number}")
        status, result = await any_node.cni("ADD", f"c{number}", netns=path(sandbox), pod=f"web-{number}")
        assert status == 0, result
        addresses.append(address_of(result))
    assert sandboxes[0].reaches(addresses[1], size=MTU - 28)
    assert sandboxes[1].reaches(addresses[0])
    assert sorted(any_node.host.devices()) == sorted(
        veth_name("default", f"web-{number}") for number in (0, 1)
    )
    for number, sandbox in enumerate(sandboxes):
        assert await any_node.cni("DEL", f"c{number}", netns=path(sandbox), pod=f"web-{number}") == (0, {})
    await assert_nothing_is_left(any_node)


@pytest.mark.parametrize("version", shim.VERSIONS)
async def test_the_result_describes_both_ends(
    node: TestNode, sandboxes: list[Namespace], version: str
) -> None:
    await node.add_pod("web")
    status, result = await node.cni(
        "ADD", netns=path(sandboxes[0]), pod="web", config={"cniVersion": version, "mtu": 1400}
    )
    assert status == 0, result
    (inner,) = sandboxes[0].json("link", "show", "eth0")
    assert inner["mtu"] == 1400
    assert result["cniVersion"] == version
    mtu = {"mtu": 1400} if version == "1.1.0" else {}
    assert result["interfaces"] == [
        {"name": veth_name("default", "web"), "mac": "ee:ee:ee:ee:ee:ee"} | mtu,
        {"name": "eth0", "mac": inner["address"], "sandbox": path(sandboxes[0])} | mtu,
    ]
    assert result["ips"][0]["interface"] == 1
    assert result["ips"][0].get("version") == ("4" if version < "1.0.0" else None)


async def test_the_pod_carries_its_address_as_annotations_until_del(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    _, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    address = f"{address_of(result)}/32"
    expected = {ANNOTATION_POD_IP: address, ANNOTATION_POD_IPS: address, ANNOTATION_CONTAINER_ID: "c1"}
    await node.annotated("web", expected)
    await node.cni("DEL", pod="web")
    await node.annotated("web", expected | {ANNOTATION_POD_IP: "", ANNOTATION_POD_IPS: ""})


async def test_a_second_add_answers_the_same(any_node: TestNode, sandboxes: list[Namespace]) -> None:
    await any_node.add_pod("web")
    first = await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web") == first
    assert await any_node.allocated() == 1


async def test_a_container_that_kubernetes_does_not_know_gets_an_interface_too(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    status, result = await node.cni("ADD", "0123456789abcdef", netns=path(sandboxes[0]))
    assert status == 0, result
    assert node.host.devices() == ["cali0123456789a"]
    assert await node.cni("DEL", "0123456789abcdef") == (0, {})
    await assert_nothing_is_left(node)


async def test_del_works_without_namespace_and_without_pod_and_twice(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    await any_node.datastore.delete(await any_node.datastore.get(Pod, "web", "default"))
    for _ in range(2):
        assert await any_node.cni("DEL", netns="/run/netns/gone", pod="web") == (0, {})
    await assert_nothing_is_left(any_node)


async def test_a_late_del_of_an_old_sandbox_spares_the_new_one(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await node.cni("ADD", "old", netns=path(sandboxes[0]), pod="web")
    status, result = await node.cni("ADD", "new", netns=path(sandboxes[1]), pod="web")
    assert status == 0, result
    assert await node.cni("DEL", "old", pod="web") == (0, {})
    assert node.host.devices() == [veth_name("default", "web")]
    assert sandboxes[1].devices() == ["eth0"]
    await node.idle()
    assert await node.handles() == ["k8s-pod-network.new"]
    address = f"{address_of(result)}/32"
    told = {ANNOTATION_POD_IP: address, ANNOTATION_POD_IPS: address, ANNOTATION_CONTAINER_ID: "new"}
    await node.annotated("web", told)


async def test_check_passes_and_then_names_what_is_wrong(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    _, result = await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    config = {"prevResult": result}
    assert await any_node.cni("CHECK", netns=path(sandboxes[0]), pod="web", config=config) == (0, {})
    sandboxes[0].ip("route", "del", "default")
    any_node.host.ip("route", "del", f"{address_of(result)}/32")
    await any_node.allocator.release_handle("k8s-pod-network.c1")
    status, error = await any_node.cni("CHECK", netns=path(sandboxes[0]), pod="web", config=config)
    assert (status, error["code"]) == (1, 105)
    for words in ("no handle k8s-pod-network.c1", "no route 0.0.0.0/0", f"no route {address_of(result)}/32"):
        assert words in error["msg"]


async def test_the_address_plugin_assigns_checks_and_releases(any_node: TestNode) -> None:
    status, result = await any_node.cni("ADD", netns="/proc/self/ns/net", plugin="calico-ipam")
    assert status == 0, result
    assert result.keys() == {"cniVersion", "ips", "dns"}
    assert await any_node.handles() == ["k8s-pod-network.c1"]
    config = {"prevResult": result}
    arguments = {"netns": "/proc/self/ns/net", "plugin": "calico-ipam"}
    assert await any_node.cni("CHECK", config=config, **arguments) == (0, {})
    assert await any_node.cni("DEL", plugin="calico-ipam") == (0, {})
    await any_node.idle()
    assert (await any_node.cni("CHECK", config=config, **arguments))[1]["code"] == 105
    await assert_nothing_is_left(any_node)


async def test_pods_of_one_node_are_added_and_removed_at_the_same_time(node: TestNode) -> None:
    with namespaces(12) as made:
        names = [f"web-{number}" for number in range(len(made))]
        for name in names:
            await node.add_pod(name)
        added = await asyncio.gather(
            *(
                node.cni("ADD", f"c-{name}", netns=path(sandbox), pod=name)
                for name, sandbox in zip(names, made, strict=True)
            )
        )
        assert {status for status, _ in added} == {0}
        assert len({address_of(result) for _, result in added}) == len(made)
        removed = await asyncio.gather(*(node.cni("DEL", f"c-{name}", pod=name) for name in names))
        assert {status for status, _ in removed} == {0}
    await assert_nothing_is_left(node)


async def test_add_and_del_on_a_real_api_server(tmp_path: Path, sandboxes: list[Namespace]) -> None:
    async with running(tmp_path, real_api_server=True) as node:
        assert node.api is not None
        pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        await asyncio.to_thread(node.api.request, "POST", "/api/v1/namespaces/default/pods", pod)
        status, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
        assert status == 0, result
        address = result["ips"][0]["address"]
        told = {ANNOTATION_POD_IP: address, ANNOTATION_POD_IPS: address, ANNOTATION_CONTAINER_ID: "c1"}
        await node.annotated("web", told)
        # What ADD relies on: annotations meant for a pod that was replaced do not reach its successor.
        patch = {"metadata": {"uid": "of-another", "annotations": {ANNOTATION_POD_IP: "10.9.9.9/32"}}}
        with pytest.raises((ConflictError, InvalidError)):
            await node.datastore.patch(Pod, "web", patch, "default", "status")
        assert await node.cni("DEL", pod="web") == (0, {})
        await node.idle()
        stored = await node.datastore.get(Pod, "web", "default")
        assert stored.metadata.annotations[ANNOTATION_POD_IP] == ""
        await assert_nothing_is_left(node)
