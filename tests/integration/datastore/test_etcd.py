"""What only a real etcd can show: Calico's keys and JSON, TLS, users, fail-over, compaction, cuts."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.components import etcd as components
from tests.components.certificates import Authority
from tests.components.etcd import Etcd
from tests.components.processes import free_ports
from tests.components.proxy import proxy_to
from tortie.datastore.etcd import EtcdDatastore
from tortie.datastore.etcd_client import EtcdConfig, etcd_config
from tortie.datastore.informer import Informer
from tortie.datastore.interface import (
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from tortie.model.names import affinity_labels, affinity_name, cidr_name
from tortie.model.resources import (
    BlockAffinity,
    BlockAffinitySpec,
    IPAMBlock,
    IPAMBlockSpec,
    IPAMConfig,
    IPAMConfigSpec,
    IPAMHandle,
    IPAMHandleSpec,
    IPPool,
    IPPoolSpec,
    Metadata,
    Node,
    Pod,
)


def pool(name: str) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr="10.5.0.0/16"))


def read(etcd: Etcd, key: str) -> dict[str, Any]:
    answer = etcd.request("kv/range", {"key": base64.b64encode(key.encode()).decode()})
    (item,) = answer["kvs"]
    value: dict[str, Any] = json.loads(base64.b64decode(item["value"]))
    return value


def write(etcd: Etcd, key: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    etcd.request(
        "kv/put",
        {
            "key": base64.b64encode(key.encode()).decode(),
            "value": base64.b64encode(text.encode()).decode(),
        },
    )


# --- keys and JSON -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cidr", "key"),
    [
        ("10.5.0.64/26", "/calico/ipam/v2/assignment/ipv4/block/10.5.0.64-26"),
        ("fd00:10:5::40/122", "/calico/ipam/v2/assignment/ipv6/block/fd00:10:5::40-122"),
    ],
)
async def test_block_stands_where_calico_looks_for_it(
    etcd: Etcd, etcd_store: EtcdDatastore, cidr: str, key: str
) -> None:
    spec = IPAMBlockSpec(
        cidr=cidr,
        affinity="host:n1",
        affinity_claim_time="2026-01-01T00:00:00Z",
        allocations=[None] * 64,
        unallocated=list(range(64)),
        attributes=[],
        sequence_number=7,
    )
    created = await etcd_store.create(IPAMBlock(metadata=Metadata(name=cidr_name(cidr)), spec=spec))
    assert created.spec == spec
    assert await etcd_store.get(IPAMBlock, cidr_name(cidr)) == created
    value = read(etcd, key)
    assert value["affinity_claim_time"] == "2026-01-01T00:00:00Z"
    assert value["deleted"] is False
    assert value["sequenceNumber"] == 7
    assert not {"strictAffinity", "metadata", "kind"} & set(value)


@pytest.mark.parametrize(("cidr", "family"), [("10.5.0.0/26", "ipv4"), ("fd00::/122", "ipv6")])
async def test_affinity_stands_below_its_node(
    etcd: Etcd, etcd_store: EtcdDatastore, cidr: str, family: str
) -> None:
    name = affinity_name("node-1", cidr)
    labels = affinity_labels("node-1", cidr)
    spec = BlockAffinitySpec(node="node-1", cidr=cidr, state="confirmed")
    await etcd_store.create(BlockAffinity(metadata=Metadata(name=name, labels=labels), spec=spec))
    key = f"/calico/ipam/v2/host/node-1/{family}/block/{cidr.replace('/', '-')}"
    assert read(etcd, key) == {"state": "confirmed", "deleted": False}
    stored = await etcd_store.get(BlockAffinity, name)
    assert (stored.spec, stored.metadata.labels) == (spec, labels)
    assert [item.metadata.name for item in (await etcd_store.list(BlockAffinity)).items] == [name]


async def test_what_calico_wrote_is_read(etcd: Etcd, etcd_store: EtcdDatastore) -> None:
    write(etcd, "/calico/ipam/v2/host/n1/ipv4/block/10.5.0.0-26", {"state": "pending", "deleted": False})
    write(etcd, "/calico/ipam/v2/handle/Net.ABC", {"block": {"10.5.0.0/26": 1}, "deleted": False})
    write(etcd, "/calico/ipam/v2/config", {"strict_affinity": True, "maxBlocksPerHost": 4})
    bgp = {"ipv4Address": "10.30.200.1/24", "asNumber": 64513, "ipv4IPIPTunnelAddr": "10.5.0.1"}
    node = {
        "kind": "Node",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "n1"},
        "spec": {"bgp": bgp, "interfaces": [{"name": "eth0"}]},
    }
    write(etcd, "/calico/resources/v3/projectcalico.org/nodes/n1", node)

    affinity = await etcd_store.get(BlockAffinity, affinity_name("n1", "10.5.0.0/26"))
    assert (affinity.spec.node, affinity.spec.state, affinity.spec.deleted) == ("n1", "pending", "false")
    assert affinity.metadata.labels == affinity_labels("n1", "10.5.0.0/26")
    handle = await etcd_store.get(IPAMHandle, "net.abc")
    assert handle.spec == IPAMHandleSpec(handle_id="Net.ABC", block={"10.5.0.0/26": 1})
    config = (await etcd_store.get(IPAMConfig, "default")).spec
    assert config == IPAMConfigSpec(strict_affinity=True, auto_allocate_blocks=False, max_blocks_per_host=4)
    stored = await etcd_store.get(Node, "n1")
    assert stored.metadata.annotations["projectcalico.org/IPv4Address"] == "10.30.200.1/24"
    assert stored.metadata.annotations["projectcalico.org/ASNumber"] == "64513"

    patch = {"metadata": {"annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "10.5.0.2"}}}
    await etcd_store.patch(Node, "n1", patch, subresource="status")
    after = read(etcd, "/calico/resources/v3/projectcalico.org/nodes/n1")["spec"]
    assert after["bgp"] == bgp
    assert after["ipv4VXLANTunnelAddr"] == "10.5.0.2"
    assert after["interfaces"] == [{"name": "eth0"}]


async def test_resource_is_written_in_calicos_v3_form(etcd: Etcd, etcd_store: EtcdDatastore) -> None:
    await etcd_store.create(pool("p"))
    value = read(etcd, "/calico/resources/v3/projectcalico.org/ippools/p")
    assert (value["apiVersion"], value["kind"]) == ("projectcalico.org/v3", "IPPool")
    assert value["spec"]["cidr"] == "10.5.0.0/16"
    assert {"uid", "creationTimestamp", "name"} == set(value["metadata"])


async def test_value_that_is_no_json_is_left_out(
    etcd: Etcd, etcd_store: EtcdDatastore, caplog: pytest.LogCaptureFixture
) -> None:
    await etcd_store.create(pool("good"))
    write(etcd, "/calico/resources/v3/projectcalico.org/ippools/bad", "{")
    assert [item.metadata.name for item in (await etcd_store.list(IPPool)).items] == ["good"]
    assert "ippools/bad" in caplog.text


async def test_kubernetes_own_kinds_are_refused(etcd_store: EtcdDatastore) -> None:
    with pytest.raises(InvalidError, match="API server"):
        await etcd_store.list(Pod)


async def test_second_ipam_config_is_refused(etcd_store: EtcdDatastore) -> None:
    with pytest.raises(InvalidError, match="default"):
        await etcd_store.create(IPAMConfig(metadata=Metadata(name="other"), spec=IPAMConfigSpec()))


# --- identity --------------------------------------------------------------------------------------


async def test_client_certificate_opens_the_door_and_its_absence_does_not(tmp_path: Path) -> None:
    with components.running(tmp_path, Authority(tmp_path)) as server:
        assert server.client is not None
        environment = {
            "ETCD_ENDPOINTS": server.url,
            "ETCD_CA_CERT_FILE": str(server.ca),
            "ETCD_CERT_FILE": str(server.client.certificate),
            "ETCD_KEY_FILE": str(server.client.key),
        }
        async with EtcdDatastore(etcd_config(environment)) as client:
            await client.create(pool("p"))
            assert (await client.get(IPPool, "p")).spec.cidr == "10.5.0.0/16"
        stranger = {key: environment[key] for key in ("ETCD_ENDPOINTS", "ETCD_CA_CERT_FILE")}
        async with EtcdDatastore(etcd_config(stranger)) as client:
            with pytest.raises(UnavailableError):
                await client.get(IPPool, "p")


async def test_user_must_have_password_and_rights(tmp_path: Path) -> None:
    with components.running(tmp_path) as server:
        for user, role in (("root", "root"), ("calico", "calico")):
            server.request("auth/user/add", {"name": user, "password": f"{user}-pw"})
            server.request("auth/role/add", {"name": role})
            server.request("auth/user/grant", {"user": user, "role": role})
        below = {
            "permType": "READWRITE",
            "key": base64.b64encode(b"/calico/").decode(),
            "range_end": base64.b64encode(b"/calico0").decode(),
        }
        server.request("auth/role/grant", {"name": "calico", "perm": below})
        server.request("auth/enable", {})
        right = EtcdConfig((server.url,), username="calico", password="calico-pw")
        async with EtcdDatastore(right) as client:
            await client.create(pool("p"))
            client._client._token = "expired.1"  # what a token is after five idle minutes
            assert (await client.get(IPPool, "p")).metadata.name == "p"
        async with EtcdDatastore(EtcdConfig((server.url,), username="calico", password="wrong")) as client:
            with pytest.raises(ForbiddenError, match="calico"):
                await client.get(IPPool, "p")
        async with EtcdDatastore(EtcdConfig((server.url,))) as client:
            with pytest.raises(ForbiddenError):
                await client.get(IPPool, "p")


# --- availability ------------------------------------------------------------------------------------


async def test_other_endpoint_is_used_when_one_is_away(etcd: Etcd, etcd_store: EtcdDatastore) -> None:
    (dead,) = free_ports(1)
    await etcd_store.create(pool("p"))
    async with EtcdDatastore(EtcdConfig((f"http://127.0.0.1:{dead}", etcd.url))) as client:
        assert (await client.get(IPPool, "p")).metadata.name == "p"
        await client.create(pool("q"))
        version = (await client.list(IPPool)).resource_version
        await etcd_store.create(pool("r"))
        async with asyncio.timeout(30), aclosing(client.watch(IPPool, version)) as stream:
            assert (await anext(stream)).object.metadata.name == "r"


async def test_watch_begins_although_its_endpoint_is_away(etcd: Etcd, etcd_store: EtcdDatastore) -> None:
    (dead,) = free_ports(1)
    version = (await etcd_store.list(IPPool)).resource_version
    await etcd_store.create(pool("p"))
    async with (
        asyncio.timeout(30),
        EtcdDatastore(EtcdConfig((f"http://127.0.0.1:{dead}", etcd.url))) as client,
        aclosing(client.watch(IPPool, version)) as stream,
    ):
        assert (await anext(stream)).object.metadata.name == "p"


async def test_etcd_that_is_not_there_is_unavailable_and_named() -> None:
    (port,) = free_ports(1)
    async with EtcdDatastore(EtcdConfig((f"http://127.0.0.1:{port}",))) as client:
        with pytest.raises(UnavailableError, match=str(port)) as caught:
            await client.create(pool("p"))
        assert caught.value.retryable


def reached(names: list[str], count: int) -> bool:
    return len(names) >= count


@asynccontextmanager
async def following(client: EtcdDatastore) -> AsyncIterator[Informer[IPPool]]:
    informer = Informer(client, IPPool)
    task = asyncio.create_task(informer.run())
    try:
        yield informer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    for _try in range(3000):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not come true within a minute")


async def test_watch_loses_nothing_when_its_connection_is_cut_again_and_again(
    etcd: Etcd, etcd_store: EtcdDatastore
) -> None:
    version = (await etcd_store.list(IPPool)).resource_version
    names: list[str] = []

    async def collect(client: EtcdDatastore) -> None:
        async with aclosing(client.watch(IPPool, version)) as stream:
            async for event in stream:
                names.append(event.object.metadata.name)

    async with (
        proxy_to(etcd.port) as proxy,
        EtcdDatastore(EtcdConfig((f"http://127.0.0.1:{proxy.port}",))) as client,
    ):
        task = asyncio.create_task(collect(client))
        for number in range(40):
            await etcd_store.create(pool(f"p{number:02}"))
            if number % 10 == 7:
                await until(partial(reached, names, number - 2))
                assert proxy.cut() >= 1
        await until(partial(reached, names, 40))
        assert proxy.accepted > 1
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert names == [f"p{number:02}" for number in range(40)]


async def test_watch_from_a_compacted_revision_is_gone(etcd: Etcd, etcd_store: EtcdDatastore) -> None:
    await etcd_store.create(pool("a"))
    version = (await etcd_store.list(IPPool)).resource_version
    await etcd_store.create(pool("b"))
    await etcd_store.create(pool("c"))
    await asyncio.to_thread(etcd.compact)
    with pytest.raises(GoneError):
        async with asyncio.timeout(30), aclosing(etcd_store.watch(IPPool, version)) as stream:
            await anext(stream)


async def test_informer_is_current_again_after_a_compaction_while_it_was_cut_off(
    etcd: Etcd, etcd_store: EtcdDatastore
) -> None:
    await etcd_store.create(pool("a"))
    async with (
        proxy_to(etcd.port) as proxy,
        EtcdDatastore(EtcdConfig((f"http://127.0.0.1:{proxy.port}",))) as client,
        following(client) as informer,
    ):
        await until(lambda: ("", "a") in informer.items)
        await proxy.refuse()
        proxy.cut()
        await etcd_store.delete(await etcd_store.get(IPPool, "a"))
        await etcd_store.create(pool("b"))
        await asyncio.to_thread(etcd.compact)
        await proxy.open()
        await until(lambda: set(informer.items) == {("", "b")})


async def test_missing_object_is_not_found_whatever_its_kind(etcd_store: EtcdDatastore) -> None:
    for kind, name in (
        (IPAMBlock, "10-5-0-0-26"),
        (BlockAffinity, "n-10-5-0-0-26"),
        (BlockAffinity, "odd"),
        (IPAMHandle, "h"),
        (IPAMConfig, "default"),
        (Node, "n"),
    ):
        with pytest.raises(NotFoundError):
            await etcd_store.get(kind, name)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "ETCD_ENDPOINTS is not set"),
        ({"ETCD_ENDPOINTS": "10.0.0.1:2379"}, "http://"),
        ({"ETCD_ENDPOINTS": "https://h:2379", "ETCD_CERT_FILE": "/c"}, "ETCD_KEY_FILE"),
    ],
)
def test_wrong_configuration_is_named(environment: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        etcd_config(environment)
