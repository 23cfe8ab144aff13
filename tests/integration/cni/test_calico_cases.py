"""Cases of Calico's CNI tests that no other test is about: through the real shim into real namespaces."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.cni.node import (
    MTU,
    TestNode,
    add_pool,
    addresses,
    eventually,
    ipam,
    path,
    running_with_both,
)
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import wishes
from tortie.cni.delegate import NodeRanges
from tortie.model.constants import ANNOTATION_CONTAINER_ID, ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.endpoints import EndpointPort, WorkloadEndpoint
from tortie.model.names import veth_name
from tortie.model.resources import ClusterInformation, Pod

pytestmark = pytest.mark.root

HANDLE = "k8s-pod-network.c1"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with running_with_both(tmp_path) as made:
        yield made


# --- a container outside Kubernetes, and what stands in its way ---


async def test_a_container_outside_kubernetes_is_networked_with_host_locals_address(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path
) -> None:
    config = host_local(tmp_path, subnet="10.0.0.0/8")
    status, result = await node.cni("ADD", "abc123", netns=path(sandboxes[0]), config=config)
    assert status == 0, result
    (address,) = addresses(result)
    (outer,) = node.host.json("link", "show", "caliabc123")
    assert (outer["address"], outer["mtu"], outer["operstate"]) == ("ee:ee:ee:ee:ee:ee", MTU, "UP")
    for setting, value in (
        ("conf/caliabc123/proxy_arp", 1),
        ("conf/caliabc123/forwarding", 1),
        ("conf/caliabc123/route_localnet", 1),
        ("neigh/caliabc123/proxy_delay", 0),
    ):
        assert node.host.exec("cat", f"/proc/sys/net/ipv4/{setting}") == f"{value}\n"
    assert node.host.exec("cat", "/proc/sys/net/ipv6/conf/caliabc123/accept_ra") == "0\n"
    assert sandboxes[0].exec("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    (route,) = node.host.json("route")
    assert (route["dst"], route["dev"], route["scope"]) == (address, "caliabc123", "link")
    (inner,) = sandboxes[0].json("addr", "show", "eth0")
    assert (inner["operstate"], inner["addr_info"][0]["local"]) == ("UP", address)
    routes = {item["dst"]: item for item in sandboxes[0].json("route")}
    assert routes.keys() == {"default", "169.254.1.1"}
    assert routes["default"]["gateway"] == "169.254.1.1"
    assert routes["169.254.1.1"]["scope"] == "link"
    assert await node.cni("DEL", "abc123", netns=path(sandboxes[0]), config=config) == (0, {})
    await eventually(lambda: node.host.devices() == [] and sandboxes[0].devices() == [])


@pytest.mark.parametrize("pod", ["web", ""], ids=["pod", "container"])
async def test_a_host_end_of_its_name_that_nobody_marked_gives_way(
    node: TestNode, sandboxes: list[Namespace], pod: str
) -> None:
    await node.add_pod("web")
    name = veth_name("default", pod) if pod else "calic1"
    node.host.ip("link", "add", name, "type", "veth", "peer", "name", "left0")
    status, result = await node.cni("ADD", netns=path(sandboxes[0]), pod=pod)
    assert status == 0, result
    assert node.host.devices() == [name]
    assert node.host.reaches(addresses(result)[0])
    assert await node.cni("DEL", netns=path(sandboxes[0]), pod=pod) == (0, {})
    await eventually(lambda: node.host.devices() == [])


@pytest.mark.parametrize("there", [True, False])
async def test_a_del_of_what_was_never_added_succeeds_with_and_without_a_namespace(
    node: TestNode, sandboxes: list[Namespace], there: bool
) -> None:
    netns = path(sandboxes[0]) if there else "/not/there"
    assert await node.cni("DEL", "never", netns=netns) == (0, {})
    await node.idle()
    assert await node.allocated() == 0


async def test_a_del_in_a_cluster_that_is_not_set_up_any_more_releases_the_address(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    status, result = await node.cni("ADD", netns=path(sandboxes[0]))
    assert status == 0, result
    await node.datastore.delete(await node.datastore.get(ClusterInformation, "default"))
    assert await node.cni("DEL") == (0, {})
    await node.idle()
    assert await node.allocated() == 0


async def test_the_mtu_of_a_pod_is_the_agents_unless_the_configuration_has_one(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    node.mtu = 3000
    with namespaces(1) as (third,):
        configured = (0, 2000, 4000)
        for number, (sandbox, mtu) in enumerate(zip((third, *sandboxes), configured, strict=True)):
            await node.add_pod(f"web-{number}")
            container, pod = f"c{number}", f"web-{number}"
            status, result = await node.cni(
                "ADD", container, netns=path(sandbox), pod=pod, config={"mtu": mtu}
            )
            assert status == 0, result
            (inner,) = sandbox.json("link", "show", "eth0")
            assert inner["mtu"] == (mtu or 3000)


async def test_without_an_mtu_add_asks_to_try_again_and_says_what_to_do(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    node.mtu = 0
    await node.add_pod("web")
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 11)
    assert "wait for the agent, or set mtu" in error["msg"]
    assert await node.handles() == []


@pytest.mark.parametrize("config", [{}, {"device_type": ""}, {"device_type": "veth"}])
async def test_the_device_is_a_veth_pair(
    node: TestNode, sandboxes: list[Namespace], config: dict[str, Any]
) -> None:
    status, result = await node.cni("ADD", netns=path(sandboxes[0]), config=config)
    assert status == 0, result
    (outer,) = node.host.json("link", "show", "calic1")
    assert outer["linkinfo"]["info_kind"] == "veth"


# --- ADD once more ---


async def test_an_add_of_the_pods_next_container_gets_another_address_and_spares_the_first_ones(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    _, first = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    status, second = await node.cni("ADD", "next", netns=path(sandboxes[0]), pod="web")
    assert status == 0, second
    assert addresses(second) != addresses(first)
    assert [item["name"] for item in second["interfaces"]] == [item["name"] for item in first["interfaces"]]
    assert await node.handles() == [HANDLE, "k8s-pod-network.next"]
    assert list(map(str, await node.allocator.held(HANDLE))) == addresses(first)
    assert node.host.reaches(addresses(second)[0])


@pytest.mark.parametrize("container", ["next", "c1"])
async def test_an_add_that_finds_the_containers_interface_under_another_name_is_refused(
    node: TestNode, sandboxes: list[Namespace], container: str
) -> None:
    await node.add_pod("web")
    await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    name = veth_name("default", "web")
    node.host.ip("link", "set", name, "down")
    node.host.ip("link", "set", name, "name", "sali0", "up")
    status, error = await node.cni("ADD", container, netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 104)
    # Another container's allocation stays; a failed ADD takes back its own container's.
    assert await node.handles() == ([HANDLE] if container == "next" else [])


async def test_a_refused_second_interface_leaves_the_first_its_address(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await node.add_pod("web-1")
    _, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    # A second interface, as a runtime with several networks asks for it; its DEL follows.
    again: dict[str, Any] = {"netns": path(sandboxes[0]), "pod": "web", "CNI_IFNAME": "eth1"}
    status, error = await node.cni("ADD", **again)
    assert (status, error["code"]) == (1, 104)
    assert await node.cni("DEL", **again) == (0, {})
    assert node.journalled() == []
    await node.stop()
    assert await node.cni("DEL", **again) == (0, {})  # one that waits for the agent, too
    await node.start()
    await eventually(lambda: node.journalled() == [])
    assert list(map(str, await node.allocator.held(HANDLE))) == addresses(result)
    assert node.host.reaches(addresses(result)[0])
    # A pod of a similar name has its own.
    status, other = await node.cni("ADD", "c2", netns=path(sandboxes[1]), pod="web-1")
    assert status == 0, other
    assert await node.handles() == [HANDLE, "k8s-pod-network.c2"]
    assert sorted(node.host.devices()) == sorted(veth_name("default", name) for name in ("web", "web-1"))
    assert await node.cni("DEL", pod="web") == (0, {})
    await node.idle()
    assert await node.handles() == ["k8s-pod-network.c2"]


async def test_a_refused_second_interface_gives_back_what_another_plugin_gave_to_it(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path
) -> None:
    config = host_local(tmp_path, subnet="10.44.0.0/24")
    await node.add_pod("web")
    call: dict[str, Any] = {"netns": path(sandboxes[0]), "pod": "web", "config": config}
    status, result = await node.cni("ADD", **call)
    assert status == 0, result
    (address,) = addresses(result)
    told = {ANNOTATION_POD_IP: f"{address}/32", ANNOTATION_POD_IPS: f"{address}/32"}
    await node.annotated("web", told | {ANNOTATION_CONTAINER_ID: "c1"})
    assert (await node.cni("ADD", CNI_IFNAME="eth1", **call))[1]["code"] == 104
    assert await node.cni("DEL", CNI_IFNAME="eth1", **call) == (0, {})
    store = tmp_path / "networks" / "k8s-pod-network"
    assert [item.name for item in store.glob("10.*")] == [address]
    await node.annotated("web", told | {ANNOTATION_CONTAINER_ID: "c1"})
    assert node.host.reaches(address)


async def test_an_add_for_another_network_takes_the_interface_over_and_both_dels_leave_nothing(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    call: dict[str, Any] = {"netns": path(sandboxes[0]), "pod": "web"}
    await node.cni("ADD", **call)
    status, result = await node.cni("ADD", config={"name": "net2"}, **call)
    assert status == 0, result
    assert node.host.devices() == [veth_name("default", "web")]
    (address,) = addresses(result)
    assert node.host.reaches(address)
    told = {ANNOTATION_POD_IP: f"{address}/32", ANNOTATION_POD_IPS: f"{address}/32"}
    await node.annotated("web", told | {ANNOTATION_CONTAINER_ID: "c1"})
    assert await node.cni("DEL", **call) == (0, {})
    await node.idle()
    assert await node.handles() == ["net2.c1"]
    assert node.host.reaches(address)
    await node.annotated("web", told | {ANNOTATION_CONTAINER_ID: "c1"})
    assert await node.cni("DEL", config={"name": "net2"}, **call) == (0, {})
    await node.idle()
    await eventually(lambda: node.host.devices() == [])
    assert await node.allocated() == 0


# --- host-local ---


def host_local(directory: Path, **section: Any) -> dict[str, Any]:
    return {"ipam": {"type": "host-local", "dataDir": str(directory / "networks")} | section}


FOUR, SECOND, SIX = {"subnet": "usePodCidr"}, {"subnet": "10.100.0.0/24"}, {"subnet": "fd00:46::/96"}
ROUTES = [{"dst": "10.123.0.0/16", "gw": "10.123.0.1"}, {"dst": "10.124.0.0/16"}, {"dst": "fd00:46::/96"}]
PLAIN4, PLAIN6 = {"default", "169.254.1.1"}, {"default", "fe80::/64"}
GIVEN4, GIVEN6 = {"10.123.0.0/16", "10.124.0.0/16", "169.254.1.1"}, {"fd00:46::/96", "fe80::/64"}
ONE, TWO = {"podCIDR": "10.46.0.0/24"}, {"podCIDRs": ["10.46.0.0/24", "fd00:46::/96"]}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int, set[str], set[str]]] = {
    "subnet": ({"subnet": "usePodCidr"}, {}, 1, 0, PLAIN4, set()),
    "ranges": ({"ranges": [[FOUR], [SIX]]}, {}, 1, 1, PLAIN4, PLAIN6),
    "node-ranges": ({"ranges": [[FOUR], [{"subnet": "usePodCidrIPv6"}]]}, {}, 1, 1, PLAIN4, PLAIN6),
    "routes": ({"ranges": [[FOUR], [SECOND], [SIX]], "routes": ROUTES}, {}, 2, 1, GIVEN4, GIVEN6),
    "routes-and-defaults": (
        {"ranges": [[FOUR], [SECOND], [SIX]], "routes": ROUTES},
        {"include_default_routes": True},
        2,
        1,
        GIVEN4 | {"default"},
        GIVEN6 | {"default"},
    ),
}


@pytest.mark.parametrize(
    ("ranges", "shape"),
    [
        pytest.param(ranges, shape, id=f"{number}-{shape}")
        for number, ranges in ((1, ONE), (2, TWO))
        for shape in SHAPES
        if ranges is TWO or shape != "node-ranges"
    ],
)
async def test_host_local_gives_a_certain_address_again_and_the_routes_that_it_is_told(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path, ranges: dict[str, Any], shape: str
) -> None:
    section, extra, four, six, routes, routes6 = SHAPES[shape]
    await node.datastore.patch(NodeRanges, "worker-01", {"spec": ranges})
    config = {"cniVersion": "0.3.1"} | host_local(tmp_path, **section) | extra
    for number, sandbox in enumerate(sandboxes):
        await node.add_pod(f"web-{number}")
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-{number};IP=10.46.0.42"
        status, result = await node.cni("ADD", netns=path(sandbox), config=config, CNI_ARGS=arguments)
        assert status == 0, result
        assert addresses(result)[0] == "10.46.0.42"
        families = [":" in address for address in addresses(result)]
        assert families == [False] * four + [True] * six
        assert {item["dst"] for item in sandbox.json("route")} == routes
        gateways = {item.get("gateway") for item in sandbox.json("route")}
        assert gateways == {None, "169.254.1.1"}
        if six:
            # The kernel's own for the pod's address stands beside those.
            found = {item["dst"]: item.get("gateway") for item in sandbox.json("-6", "route")}
            assert found.keys() == routes6 | {addresses(result)[-1]}
            assert {found[item] for item in routes6} == {None, "fe80::ecee:eeff:feee:eeee"}
            assert sandbox.exec("cat", "/proc/sys/net/ipv6/conf/eth0/accept_dad") == "0\n"
        (inner,) = sandbox.json("addr", "show", "eth0")
        held = [item for item in inner["addr_info"] if item["scope"] == "global"]
        assert sorted(item["local"] for item in held) == sorted(addresses(result))
        assert not any(item.get("tentative") for item in held)
        if "default" in routes:  # the node's address is behind it
            assert all(node.host.reaches(address) for address in addresses(result))
        assert await node.cni("DEL", netns=path(sandbox), config=config, CNI_ARGS=arguments) == (0, {})
    await eventually(lambda: node.host.devices() == [])
    store = tmp_path / "networks" / "k8s-pod-network"
    assert not [item for item in store.iterdir() if item.name[0].isdigit() or ":" in item.name]


# --- the endpoint that policy gets ---


class Endpoints:
    """Keeps what policy is told."""

    def __init__(self) -> None:
        self.ready: list[WorkloadEndpoint] = []

    async def endpoint_ready(self, endpoint: WorkloadEndpoint) -> None:
        self.ready.append(endpoint)

    async def endpoint_gone(self, interface: str) -> None:
        assert interface == veth_name("default", "web")
        self.ready.clear()


async def test_policy_is_told_account_named_ports_and_addresses_of_the_pod(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    told = Endpoints()
    await node.stop()
    node.policy = told
    await node.start()
    body = {
        "metadata": {"name": "web", "namespace": "default", "generateName": "we"},
        "spec": {
            "nodeName": "worker-01",
            "serviceAccountName": "builder",
            "containers": [{"name": "c", "ports": [{"containerPort": 555, "name": "anamedport"}]}],
        },
    }
    await node.datastore.create(msgspec.convert(body, Pod))
    status, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert status == 0, result
    (endpoint,) = told.ready
    assert endpoint.metadata.labels == {
        "projectcalico.org/namespace": "default",
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": "builder",
    }
    assert endpoint.spec.profiles == ["kns.default", "ksa.default.builder"]
    assert endpoint.spec.service_account_name == "builder"
    assert endpoint.spec.ports == [EndpointPort(name="anamedport", port=555)]
    assert endpoint.spec.ip_networks == [item["address"] for item in result["ips"]]
    assert endpoint.spec.interface_name == result["interfaces"][0]["name"]
    assert (endpoint.spec.endpoint, endpoint.spec.container_id) == ("eth0", "c1")
    assert await node.cni("DEL", netns=path(sandboxes[0]), pod="web") == (0, {})
    assert told.ready == []
    await eventually(lambda: node.host.devices() == [] and sandboxes[0].devices() == [])


# --- CNI 1.1 ---


@pytest.mark.parametrize("plugin", ["calico", "calico-ipam"])
async def test_status_and_gc_answer_with_nothing_when_all_is_well(node: TestNode, plugin: str) -> None:
    bare = {"CNI_CONTAINERID": "", "CNI_IFNAME": "", "CNI_NETNS": ""}
    for command, fields in (
        ("STATUS", {}),
        ("GC", {"cni.dev/valid-attachments": [{"containerID": "other", "ifname": "eth0"}]}),
    ):
        config = {"cniVersion": "1.1.0"} | fields
        assert await node.cni(command, plugin=plugin, config=config, **bare) == (0, {})


async def test_check_needs_the_answer_of_add(node: TestNode, sandboxes: list[Namespace]) -> None:
    config = {"cniVersion": "1.1.0"}
    status, result = await node.cni("ADD", netns=path(sandboxes[0]), config=config)
    assert status == 0, result
    status, error = await node.cni("CHECK", netns=path(sandboxes[0]), config=config)
    assert (status, error["code"]) == (1, 7)
    assert "prevResult" in error["msg"]
    checked = config | {"prevResult": result}
    assert await node.cni("CHECK", netns=path(sandboxes[0]), config=checked) == (0, {})
    assert await node.cni("DEL", config=config) == (0, {})


@pytest.mark.parametrize("families", [(4,), (4, 6)], ids=["ipv4", "both"])
async def test_every_address_of_the_answer_is_of_the_containers_interface(
    node: TestNode, sandboxes: list[Namespace], families: tuple[int, ...]
) -> None:
    await add_pool(node, "four", "10.80.0.0/16")
    await add_pool(node, "sixth", "fd00:50::/96", block_size=122)
    wanted = {4: '["10.80.0.0/16"]', 6: '["fd00:50::/96"]'}
    await node.add_pod("web", **{wishes.ANNOTATION_POOLS[family]: wanted[family] for family in families})
    config = ipam(assign_ipv6="true") if 6 in families else {}
    status, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web", config=config)
    assert status == 0, result
    four, *six = addresses(result)
    assert four.startswith("10.80.")
    assert [address.startswith("fd00:50:") for address in six] == [True] * (len(families) - 1)
    (inner,) = sandboxes[0].json("link", "show", "eth0")
    assert len(result["interfaces"]) == 2
    for item in result["ips"]:
        interface = result["interfaces"][item["interface"]]
        assert interface == {"name": "eth0", "mac": inner["address"], "sandbox": path(sandboxes[0])}


async def test_several_addresses_of_a_family_are_told_to_policy_and_checked(
    node: TestNode, sandboxes: list[Namespace], tmp_path: Path
) -> None:
    told = Endpoints()
    await node.stop()
    node.policy = told
    await node.start()
    await node.add_pod("web")
    config = host_local(tmp_path, ranges=[[{"subnet": "10.44.0.0/24"}], [SECOND]])
    call: dict[str, Any] = {"netns": path(sandboxes[0]), "pod": "web"}
    status, result = await node.cni("ADD", config=config, **call)
    assert status == 0, result
    assert len(result["ips"]) == 2
    assert told.ready[0].spec.ip_networks == [item["address"] for item in result["ips"]]
    checked = config | {"prevResult": result}
    assert await node.cni("CHECK", config=checked, **call) == (0, {})
    second = addresses(result)[1]
    node.host.ip("route", "del", second)
    status, error = await node.cni("CHECK", config=checked, **call)
    assert (status, error["code"]) == (1, 105)
    assert f"no route {second}/32" in error["msg"]
