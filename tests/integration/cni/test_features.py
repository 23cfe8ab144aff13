"""What pods and configurations may ask for, through the real shim into real namespaces."""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.cni.node import (
    BOTH,
    MTU,
    TestNode,
    add,
    eventually,
    path,
    refused,
    running_with_both,
)
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import wishes
from tortie.cni.delegate import NodeRanges
from tortie.datastore.memory import Fault, MemoryDatastore
from tortie.ipam.allocator import Allocator
from tortie.ipam.request import AddressRequest
from tortie.model.constants import ANNOTATION_CONTAINER_ID, ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.names import veth_name
from tortie.model.policy_natives import Namespace as NamespaceObject
from tortie.model.resources import ClusterInformation, IPPool, IPPoolSpec, Metadata

pytestmark = pytest.mark.root

CNI11 = {"cniVersion": "1.1.0"}
BARE = {"CNI_CONTAINERID": "", "CNI_IFNAME": "", "CNI_NETNS": ""}  # STATUS and GC name no container


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with running_with_both(tmp_path) as made:
        yield made


# --- addresses ---


async def test_dual_stack_pods_reach_each_other_and_leave_nothing(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    given = []
    for number, sandbox in enumerate(sandboxes):
        await node.add_pod(f"web-{number}")
        given.append(await add(node, sandbox, f"web-{number}", config=BOTH))
    (four, six) = given[1]
    assert four.startswith("10.5.")
    assert six.startswith("fd00:5:")
    assert sandboxes[0].reaches(four, size=MTU - 28)
    assert sandboxes[0].reaches(six, size=MTU - 48)
    told = {ANNOTATION_POD_IP: f"{four}/32", ANNOTATION_POD_IPS: f"{four}/32,{six}/128"}
    await node.annotated("web-1", told | {ANNOTATION_CONTAINER_ID: "c-web-1"})
    for number in range(2):
        assert await node.cni("DEL", f"c-web-{number}", pod=f"web-{number}", config=BOTH) == (0, {})
    await eventually(lambda: node.host.devices() == [])
    await node.idle()
    assert await node.allocated() == 0


async def test_a_dual_stack_pod_passes_check_until_something_is_wrong(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    _, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web", config=BOTH | CNI11)
    config = BOTH | CNI11 | {"prevResult": result}
    assert await node.cni("CHECK", netns=path(sandboxes[0]), pod="web", config=config) == (0, {})
    sandboxes[0].ip("-6", "route", "del", "default")
    status, error = await node.cni("CHECK", netns=path(sandboxes[0]), pod="web", config=config)
    assert (status, error["code"]) == (1, 105)
    assert "no route ::/0" in error["msg"]


async def test_one_family_without_an_address_gives_the_other_back(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.datastore.patch(IPPool, "six", {"spec": {"disabled": True}})
    await node.add_pod("web")
    code, _ = await refused(node, sandboxes[0], config=BOTH)
    assert code == 11
    assert await node.allocated() == 0


async def test_families_of_the_annotation_win_over_the_configuration(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web", **{wishes.ANNOTATION_FAMILIES: '["IPv6"]'})
    (address,) = await add(node, sandboxes[0])
    assert address.startswith("fd00:5:")
    assert sandboxes[0].json("route") == []


async def test_pools_of_the_namespace_serve_unless_the_pod_has_its_own(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    for name, cidr in (("of-namespace", "10.77.0.0/24"), ("of-pod", "10.78.0.0/24")):
        spec = IPPoolSpec(cidr=cidr, node_selector="!all()")
        await node.datastore.create(IPPool(metadata=Metadata(name=name), spec=spec))
    annotations = {wishes.ANNOTATION_POOLS[4]: '["of-namespace"]'}
    metadata = Metadata(name="default", annotations=annotations)
    await node.datastore.create(NamespaceObject(metadata=metadata))
    await node.add_pod("plain")
    await node.add_pod("special", **{wishes.ANNOTATION_POOLS[4]: '["10.78.0.0/24"]'})
    assert (await add(node, sandboxes[0], "plain"))[0].startswith("10.77.0.")
    assert (await add(node, sandboxes[1], "special"))[0].startswith("10.78.0.")


async def test_a_restriction_of_one_family_leaves_the_other_free(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web", **{wishes.ANNOTATION_POOLS[4]: '["default-ipv4-ippool"]'})
    four, six = await add(node, sandboxes[0], config=BOTH)
    assert four.startswith("10.5.")
    assert six.startswith("fd00:5:")


async def test_a_pod_gets_the_addresses_that_it_names_and_nobody_else_does(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    for name in ("web", "other"):
        await node.add_pod(name, **{wishes.ANNOTATION_ADDRESSES: '["10.5.7.7","fd00:5::77"]'})
    assert await add(node, sandboxes[0]) == ["10.5.7.7", "fd00:5::77"]
    code, sentence = await refused(node, sandboxes[1], "other")
    assert code == 11
    assert "10.5.7.7" in sentence or "fd00:5::77" in sentence
    await node.add_pod("outside", **{wishes.ANNOTATION_ADDRESSES: '["192.0.2.77"]'})
    code, sentence = await refused(node, sandboxes[1], "outside")
    assert code == 7
    assert "192.0.2.77" in sentence


async def test_addresses_past_address_management_are_used_as_they_are(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web", **{wishes.ANNOTATION_ADDRESSES_NO_IPAM: '["10.99.0.1"]'})
    assert (await refused(node, sandboxes[0]))[0] == 7
    config = {"feature_control": {"ip_addrs_no_ipam": True}}
    assert await add(node, sandboxes[0], config=config) == ["10.99.0.1"]
    assert await node.handles() == []
    assert node.host.reaches("10.99.0.1")
    assert await node.cni("DEL", "c-web", pod="web", config=config) == (0, {})
    await eventually(lambda: node.host.devices() == [])


async def test_the_hardware_address_is_the_annotated_one(node: TestNode, sandboxes: list[Namespace]) -> None:
    await node.add_pod("web", **{wishes.ANNOTATION_MAC: "0A:58:0A:05:00:07"})
    await add(node, sandboxes[0])
    (inner,) = sandboxes[0].json("link", "show", "eth0")
    assert inner["address"] == "0a:58:0a:05:00:07"


async def test_forwarding_in_the_container_is_as_configured(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    config = BOTH | {"container_settings": {"allow_ip_forwarding": True}, "num_queues": 2}
    await add(node, sandboxes[0], config=config)
    assert sandboxes[0].exec("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert sandboxes[0].exec("cat", "/proc/sys/net/ipv6/conf/all/forwarding") == "1\n"
    (outer,) = node.host.json("link", "show", veth_name("default", "web"))
    assert outer["num_tx_queues"] == 2


async def test_a_configuration_for_another_node_is_refused(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    for field in ("nodename", "hostname"):
        code, sentence = await refused(node, sandboxes[0], config={field: "somebody-else"})
        assert code == 7
        assert f"{field} is 'somebody-else'" in sentence
    await add(node, sandboxes[0], config={"nodename": "worker-01", "hostname": "worker-01"})


# --- other plugins ---


def host_local(directory: Path, **ipam: Any) -> dict[str, Any]:
    section = {"type": "host-local", "dataDir": str(directory / "networks")} | ipam
    return {"ipam": section}


async def test_host_local_gives_the_addresses_with_its_own_store(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path
) -> None:
    ranges = [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd00:44::/64"}]]
    config = host_local(tmp_path, ranges=ranges)
    given = []
    for number, sandbox in enumerate(sandboxes):
        await node.add_pod(f"web-{number}")
        given.append(await add(node, sandbox, f"web-{number}", config=config))
    assert sandboxes[0].reaches(given[1][0])
    assert sandboxes[0].reaches(given[1][1])
    assert await node.handles() == []
    store = tmp_path / "networks" / "k8s-pod-network"
    assert {given[0][0], given[1][0]} <= {item.name for item in store.iterdir()}
    for number in range(2):
        assert await node.cni("DEL", f"c-web-{number}", pod=f"web-{number}", config=config) == (0, {})
    held = {item.name for item in store.iterdir()} & {address for pair in given for address in pair}
    assert held == set()
    await eventually(lambda: node.host.devices() == [])


async def test_host_local_routes_replace_the_default_route_unless_it_is_wanted_too(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path
) -> None:
    config = host_local(tmp_path, subnet="10.44.0.0/24", routes=[{"dst": "10.0.0.0/8"}])
    for number, (extra, expected) in enumerate(
        (({}, {"10.0.0.0/8"}), ({"include_default_routes": True}, {"10.0.0.0/8", "default"}))
    ):
        await node.add_pod(f"web-{number}")
        sandbox = sandboxes[number]
        status, result = await node.cni(
            "ADD", f"c{number}", netns=path(sandbox), pod=f"web-{number}", config=config | extra
        )
        assert status == 0, result
        assert {route["dst"] for route in sandbox.json("route")} == expected | {"169.254.1.1"}
        checked = config | extra | {"prevResult": result}
        pod = f"web-{number}"
        assert await node.cni("CHECK", f"c{number}", netns=path(sandbox), pod=pod, config=checked) == (0, {})


async def test_host_local_uses_the_nodes_own_ranges(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path
) -> None:
    await node.add_pod("web")
    config = host_local(tmp_path, subnet="usePodCidr")
    code, sentence = await refused(node, sandboxes[0], config=config)
    assert code == 11
    assert "spec.podCIDRs" in sentence
    ranges = {"spec": {"podCIDR": "10.46.0.0/24", "podCIDRs": ["10.46.0.0/24", "fd00:46::/64"]}}
    await node.datastore.patch(NodeRanges, "worker-01", ranges)
    (address,) = await add(node, sandboxes[0], config=config)
    assert address.startswith("10.46.0.")
    await node.add_pod("six")
    both = host_local(tmp_path, ranges=[[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]])
    four, six = await add(node, sandboxes[1], "six", config=both)
    assert (four.startswith("10.46.0."), six.startswith("fd00:46:")) == (True, True)


async def test_what_host_local_refuses_is_passed_on_and_leaves_nothing(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path
) -> None:
    await node.add_pod("web")
    for section, code, words in (
        ({"subnet": "nonsense"}, 106, "host-local"),
        ({"type": "absent-plugin"}, 7, "absent-plugin"),
        ({"type": "../../bin/sh"}, 7, "name of a plugin"),
    ):
        found = await refused(node, sandboxes[0], config=host_local(tmp_path, **section))
        assert found[0] == code, found
        assert words in found[1]


async def test_a_del_of_host_local_that_waited_for_the_agent_is_carried_out(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path
) -> None:
    config = host_local(tmp_path, subnet="10.44.0.0/24")
    await node.add_pod("web")
    (address,) = await add(node, sandboxes[0], config=config)
    held = tmp_path / "networks" / "k8s-pod-network" / address
    assert held.exists()
    await node.stop()
    assert await node.cni("DEL", "c-web", pod="web", config=config) == (0, {})
    await node.start()
    await eventually(lambda: node.journalled() == [])
    assert not held.exists()


def chained(
    node: TestNode, plugin: str, command: str, environment: dict[str, str], config: dict[str, Any]
) -> Any:
    """Run a Go plugin in the host's namespace, as the runtime does after ours."""
    done = subprocess.run(
        ["ip", "netns", "exec", node.host.name, f"/usr/lib/cni/{plugin}"],
        input=json.dumps(config).encode(),
        env=environment | {"CNI_COMMAND": command, "PATH": os.environ["PATH"], "CNI_PATH": "/usr/lib/cni"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout or b"null")


async def test_portmap_and_bandwidth_work_on_what_add_answers(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    _, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    environment = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": path(sandboxes[0])}
    base = {"cniVersion": "1.0.0", "name": "k8s-pod-network"}
    mappings = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    limits = {"ingressRate": 10_000_000, "ingressBurst": 10_000_000}
    portmap = base | {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": mappings}}
    bandwidth = base | {"type": "bandwidth", "runtimeConfig": {"bandwidth": limits}}
    passed = chained(node, "portmap", "ADD", environment, portmap | {"prevResult": result})
    final = chained(node, "bandwidth", "ADD", environment, bandwidth | {"prevResult": passed})
    assert final["ips"] == result["ips"]
    assert final["interfaces"][:2] == result["interfaces"]
    device = veth_name("default", "web")
    assert "tbf" in node.host.exec("tc", "qdisc", "show", "dev", device)
    # CHECK of the chain gets the last plugin's result.
    checked = await node.cni("CHECK", netns=path(sandboxes[0]), pod="web", config={"prevResult": final})
    assert checked == (0, {})
    for plugin, config in (("bandwidth", bandwidth), ("portmap", portmap)):
        chained(node, plugin, "DEL", environment, config | {"prevResult": final})
    assert await node.cni("DEL", pod="web", config={"prevResult": final}) == (0, {})
    await eventually(lambda: device not in node.host.devices())


# --- STATUS and GC ---


async def test_status_tells_whether_an_add_would_work(node: TestNode) -> None:
    assert await node.cni("STATUS", config=CNI11, **BARE) == (0, {})
    node.limited = "BGP is down; pods reach this node only"
    status, error = await node.cni("STATUS", config=CNI11, **BARE)
    assert (status, error["code"], error["msg"]) == (1, 51, node.limited)
    node.limited = ""
    await node.datastore.patch(ClusterInformation, "default", {"spec": {"datastoreReady": False}})
    status, error = await node.cni("STATUS", config=CNI11, **BARE)
    assert (status, error["code"]) == (1, 50)
    assert isinstance(node.datastore, MemoryDatastore)
    node.datastore.inject = lambda _: Fault.UNAVAILABLE
    assert (await node.cni("STATUS", config=CNI11, **BARE))[1]["code"] == 50
    await node.stop()
    assert (await node.cni("STATUS", config=CNI11, **BARE))[1]["code"] == 50


async def test_gc_removes_what_the_runtime_does_not_know_and_nothing_else(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    with namespaces(1) as (third,):
        for name, sandbox in zip(("kept", "stale", "elsewhere"), (*sandboxes, third), strict=True):
            await node.add_pod(name)
            network = {"name": "another"} if name == "elsewhere" else {}
            await add(node, sandbox, name, config=CNI11 | network)
        # An address without an interface, and one of another node.
        leaked = "k8s-pod-network.leaked"
        await node.allocator.assign(AddressRequest(leaked, {"node": "worker-01"}))
        foreign = Allocator(node.datastore, "worker-02")
        await foreign.assign(AddressRequest("k8s-pod-network.foreign", {"node": "worker-02"}))
        await node.stop()
        await node.start()  # so that no ADD is recent
        config = CNI11 | {"cni.dev/valid-attachments": [{"containerID": "c-kept", "ifname": "eth0"}]}
        assert await node.cni("GC", config=config, **BARE) == (0, {})
        expected = sorted(veth_name("default", name) for name in ("kept", "elsewhere"))
        await eventually(lambda: sorted(node.host.devices()) == expected)
        assert await node.handles() == [
            "another.c-elsewhere",
            "k8s-pod-network.c-kept",
            "k8s-pod-network.foreign",
        ]


async def test_gc_spares_a_container_that_was_added_just_now(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await add(node, sandboxes[0], config=CNI11)
    assert await node.cni("GC", config=CNI11 | {"cni.dev/valid-attachments": []}, **BARE) == (0, {})
    assert await node.handles() == ["k8s-pod-network.c-web"]
    assert node.host.devices() == [veth_name("default", "web")]


# --- cluster ---


async def test_a_del_while_the_datastore_is_locked_waits_in_the_journal(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await add(node, sandboxes[0])
    await node.datastore.patch(ClusterInformation, "default", {"spec": {"datastoreReady": False}})
    assert await node.cni("DEL", "c-web", pod="web") == (0, {})
    assert await node.handles() == ["k8s-pod-network.c-web"]
    await node.datastore.patch(ClusterInformation, "default", {"spec": {"datastoreReady": True}})
    await node.stop()
    await node.start()
    await eventually(lambda: node.journalled() == [])
    assert await node.handles() == []


async def test_readiness_gates_are_waited_for(node: TestNode, sandboxes: list[Namespace]) -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=200 if asked > 2 else 503)

    application = web.Application()
    application.router.add_get("/ready", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 8099).start()
        await node.add_pod("web")
        await add(node, sandboxes[0], config={"readiness_gates": ["http://127.0.0.1:8099/ready"]})
        assert asked == 3
    finally:
        await runner.cleanup()
