"""What start-up writes into a cluster, and what it leaves alone."""

import asyncio
import socket
import stat
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from tortie.agent.settings import DefaultPool, Paths, Settings
from tortie.agent.startup import (
    StartupError,
    annotate,
    announce,
    check_ranges,
    ensure_cluster_information,
    ensure_default_pool,
    node_name,
    own_annotations,
    report_network_available,
    write_atomically,
)
from tortie.datastore.memory import MemoryDatastore
from tortie.model.resources import (
    ClusterInformation,
    ClusterInformationSpec,
    IPPool,
    IPPoolSpec,
    Metadata,
    Node,
    NodeCondition,
    NodeStatus,
)
from tortie.routing.state import HostLink

LINK = HostLink("eth0", 2, 1500, IPv4Interface("10.0.0.1/24"))
SETTINGS = Settings(pool=DefaultPool(cidr=IPv4Network("10.5.0.0/16"), vxlan="Always"))


def node(name: str, **annotations: str) -> Node:
    renamed = {f"projectcalico.org/{key}": value for key, value in annotations.items()}
    return Node(metadata=Metadata(name=name, annotations=renamed))


async def test_agents_of_many_nodes_create_one_default_pool() -> None:
    store = MemoryDatastore()
    await asyncio.gather(*(ensure_default_pool(store, SETTINGS, LINK) for _ in range(5)))
    (pool,) = (await store.list(IPPool)).items
    assert pool.metadata.name == "default-ipv4-ippool"
    assert pool.spec == IPPoolSpec(cidr="10.5.0.0/16", vxlan_mode="Always", nat_outgoing=True)


async def test_default_pool_is_not_created_beside_another() -> None:
    store = MemoryDatastore()
    await store.create(IPPool(metadata=Metadata(name="mine"), spec=IPPoolSpec(cidr="10.9.0.0/16")))
    await ensure_default_pool(store, SETTINGS, LINK)
    assert [pool.metadata.name for pool in (await store.list(IPPool)).items] == ["mine"]


async def test_default_pool_around_the_nodes_address_is_refused() -> None:
    store = MemoryDatastore()
    settings = Settings(pool=DefaultPool(cidr=IPv4Network("10.0.0.0/16")))
    with pytest.raises(
        StartupError, match=r"pool 10\.0\.0\.0/16 contains this node's address 10\.0\.0\.1 \(eth0\)"
    ):
        await ensure_default_pool(store, settings, LINK)
    assert (await store.list(IPPool)).items == []


def test_pool_around_the_service_address_is_refused() -> None:
    settings = Settings(service_host="10.96.0.1")
    with pytest.raises(
        StartupError, match=r"contains 10\.96\.0\.1, the API server's address in the service range"
    ):
        check_ranges(settings, LINK, [IPv4Network("10.96.0.0/12")])
    check_ranges(Settings(service_host="api.example.org"), LINK, [IPv4Network("10.96.0.0/12")])


async def test_cluster_information_is_made_once_and_a_lock_is_respected() -> None:
    store = MemoryDatastore()
    await ensure_cluster_information(store, "k8s,bgp")
    first = await store.get(ClusterInformation, "default")
    assert first.spec.datastore_ready is True
    assert len(first.spec.cluster_guid) == 32
    await store.patch(ClusterInformation, "default", {"spec": {"datastoreReady": False}})
    await ensure_cluster_information(store, "k8s,bgp")
    second = await store.get(ClusterInformation, "default")
    assert (second.spec.datastore_ready, second.spec.cluster_guid) == (False, first.spec.cluster_guid)


async def test_cluster_information_without_readiness_gets_it() -> None:
    store = MemoryDatastore()
    information = ClusterInformation(
        metadata=Metadata(name="default"), spec=ClusterInformationSpec(cluster_guid="x")
    )
    await store.create(information)
    await ensure_cluster_information(store, "k8s,bgp")
    assert (await store.get(ClusterInformation, "default")).spec.datastore_ready is True


async def test_address_is_announced_and_a_persons_as_number_stays() -> None:
    store = MemoryDatastore()
    created = await store.create(node("n1", ASNumber="65001"))
    identity = await announce(store, SETTINGS, created, LINK)
    annotations = (await store.get(Node, "n1")).metadata.annotations
    assert annotations == {
        "projectcalico.org/IPv4Address": "10.0.0.1/24",
        "projectcalico.org/ASNumber": "65001",
    }
    assert identity.node.ipv4 == LINK.address


async def test_as_number_of_the_environment_wins() -> None:
    assert own_annotations(Settings(as_number=65002), LINK)["projectcalico.org/ASNumber"] == "65002"


async def test_address_of_another_node_is_refused() -> None:
    store = MemoryDatastore()
    await store.create(node("n2", IPv4Address="10.0.0.1/16"))
    created = await store.create(node("n1"))
    with pytest.raises(StartupError, match=r"10\.0\.0\.1 \(eth0\) is announced by node n2 as well"):
        await announce(store, SETTINGS, created, LINK)
    assert (await store.get(Node, "n1")).metadata.annotations == {}


async def test_annotations_that_are_right_cause_no_write() -> None:
    store = MemoryDatastore()
    created = await store.create(node("n1", IPv4Address="10.0.0.1/24"))
    await annotate(store, created, {"projectcalico.org/IPv4Address": "10.0.0.1/24", "absent": None})
    assert (await store.get(Node, "n1")).metadata.resource_version == created.metadata.resource_version


async def test_network_condition_is_added_beside_the_others_and_once() -> None:
    store = MemoryDatastore()
    ready = NodeCondition(
        type="Ready", status="True", reason="KubeletReady", last_heartbeat_time="2026-01-31T10:20:30Z"
    )
    await store.create(Node(metadata=Metadata(name="n1"), status=NodeStatus(conditions=[ready])))
    await report_network_available(store, "n1")
    after = await store.get(Node, "n1")
    assert after.status.conditions[0] == ready
    assert [(item.type, item.status) for item in after.status.conditions[1:]] == [
        ("NetworkUnavailable", "False")
    ]
    await report_network_available(store, "n1")
    assert (await store.get(Node, "n1")).metadata.resource_version == after.metadata.resource_version


def test_node_name_is_the_variable_then_the_file_then_the_host(tmp_path: Path) -> None:
    paths = Paths(lib=tmp_path)
    assert node_name(Settings(paths=paths)) == socket.gethostname().lower()
    (tmp_path / "nodename").write_text("stored\n")
    assert node_name(Settings(paths=paths)) == "stored"
    assert node_name(Settings(paths=paths, node_name="given")) == "given"


def test_file_is_replaced_whole_with_its_mode_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mtu"
    assert write_atomically(path, "1440")
    inode = path.stat().st_ino
    assert not write_atomically(path, "1440")
    assert path.stat().st_ino == inode
    assert write_atomically(path, "1450")
    assert path.read_text() == "1450"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [item.name for item in path.parent.iterdir()] == ["mtu"]


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "mtu"
    path.write_text("1440")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "1440"
    assert [item.name for item in tmp_path.iterdir()] == ["mtu"]
