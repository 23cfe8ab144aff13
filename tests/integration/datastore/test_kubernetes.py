"""What only a real API server, or a server that misbehaves on purpose, can show."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import ClassVar

import aiohttp.web
import msgspec
import pytest

from tests.components.apiserver import ApiServer
from tests.components.processes import free_ports
from tests.components.proxy import proxy_to
from tortie.datastore.config import ClusterConfig, Token, from_kubeconfig, in_cluster
from tortie.datastore.interface import (
    ConflictError,
    Datastore,
    Event,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from tortie.datastore.kubernetes import KubernetesDatastore, connect
from tortie.ipam import block as blocks
from tortie.model.resources import (
    CRD_GROUP_VERSION,
    IPAMBlock,
    IPAMHandle,
    IPAMHandleSpec,
    IPPool,
    IPPoolSpec,
    Metadata,
    Pod,
    Resource,
    ResourceType,
)


def pool(name: str, **annotations: str) -> IPPool:
    return IPPool(metadata=Metadata(name=name, annotations=annotations), spec=IPPoolSpec(cidr="10.5.0.0/16"))


@asynccontextmanager
async def through(apiserver: ApiServer, port: int) -> AsyncIterator[KubernetesDatastore]:
    config = from_kubeconfig(apiserver.kubeconfig)
    async with KubernetesDatastore(
        ClusterConfig(f"https://127.0.0.1:{port}", config.token, config.tls)
    ) as client:
        yield client


class Names:
    """The names that a watch has reported as added."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._changed = asyncio.Event()

    async def collect(self, client: KubernetesDatastore, version: str) -> None:
        async with aclosing(client.watch(IPPool, version)) as stream:
            async for event in stream:
                self.add(event)

    def add(self, event: Event[IPPool]) -> None:
        if event.type == "added":
            self.seen.append(event.object.metadata.name)
            self._changed.set()

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.seen) < count:
                await self._changed.wait()
                self._changed.clear()


async def follow(client: KubernetesDatastore, version: str, seen: list[tuple[str, str]]) -> None:
    """Watch until it ends, noting type and version of each event."""
    async with asyncio.timeout(30), aclosing(client.watch(IPPool, version)) as stream:
        async for event in stream:
            seen.append((event.type, event.resource_version))


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


# --- watch -------------------------------------------------------------------------------------


async def test_watch_loses_nothing_when_its_connection_is_cut_again_and_again(
    apiserver: ApiServer, datastore: KubernetesDatastore
) -> None:
    version = (await datastore.list(IPPool)).resource_version
    names = Names()
    async with proxy_to(apiserver.port) as proxy, through(apiserver, proxy.port) as client:
        task = asyncio.create_task(names.collect(client, version))
        for number in range(60):
            await datastore.create(pool(f"p{number:02}"))
            if number % 15 == 7:
                await names.reach(number - 2)
                assert proxy.cut() >= 1
        await names.reach(60)
        assert proxy.accepted > 1
        await cancelled(task)
    assert names.seen == [f"p{number:02}" for number in range(60)]


async def test_watch_resumes_when_the_server_was_away(
    apiserver: ApiServer, datastore: KubernetesDatastore
) -> None:
    version = (await datastore.list(IPPool)).resource_version
    names = Names()
    async with proxy_to(apiserver.port) as proxy, through(apiserver, proxy.port) as client:
        task = asyncio.create_task(names.collect(client, version))
        await datastore.create(pool("before"))
        await names.reach(1)
        await proxy.refuse()
        proxy.cut()
        await datastore.create(pool("meanwhile"))
        with pytest.raises(UnavailableError):
            await client.get(IPPool, "before")
        assert names.seen == ["before"]
        await proxy.open()
        await names.reach(2)
        await cancelled(task)
    assert names.seen == ["before", "meanwhile"]


async def test_watch_from_a_version_that_the_server_forgot_is_gone(datastore: KubernetesDatastore) -> None:
    await datastore.create(pool("a"))
    with pytest.raises(GoneError):
        await follow(datastore, "1", [])


async def test_watch_carries_objects_of_any_size(datastore: KubernetesDatastore) -> None:
    version = (await datastore.list(IPPool)).resource_version
    text = "x" * 200_000  # more than the 64 KiB that a line reader takes, less than the API's 256 KiB
    await datastore.create(pool("big", note=text))
    async with asyncio.timeout(30), aclosing(datastore.watch(IPPool, version)) as stream:
        event = await anext(stream)
    assert event.object.metadata.annotations["note"] == text


async def test_watch_that_is_forbidden_says_so(apiserver: ApiServer, datastore: KubernetesDatastore) -> None:
    config = from_kubeconfig(apiserver.kubeconfig)
    async with KubernetesDatastore(ClusterConfig(config.server, Token("wrong"), config.tls)) as stranger:
        with pytest.raises(ForbiddenError):
            await anext(stranger.watch(IPPool, "1"))
    assert (await datastore.list(IPPool)).items == []


# --- listing and kinds -------------------------------------------------------------------------


async def test_list_of_several_pages_has_every_object_once(datastore: KubernetesDatastore) -> None:
    names = [f"h{number:04}" for number in range(1201)]
    gate = asyncio.Semaphore(50)

    async def create(name: str) -> None:
        async with gate:
            await datastore.create(
                IPAMHandle(metadata=Metadata(name=name), spec=IPAMHandleSpec(handle_id=name, block={}))
            )

    await asyncio.gather(*(create(name) for name in names))
    listing = await datastore.list(IPAMHandle)
    assert [item.metadata.name for item in listing.items] == names


async def test_pods_are_selected_by_namespace_and_node(apiserver: ApiServer, datastore: Datastore) -> None:
    for name, node in (("a", "n1"), ("b", "n2")):
        body = {
            "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        }
        await asyncio.to_thread(apiserver.request, "POST", "/api/v1/namespaces/default/pods", body)
    everywhere = await datastore.list(Pod)
    assert [item.metadata.name for item in everywhere.items] == ["a", "b"]
    on_node = await datastore.list(Pod, "default", "spec.nodeName=n2")
    assert [item.metadata.name for item in on_node.items] == ["b"]
    assert (await datastore.list(Pod, "kube-system")).items == []
    annotation = {"metadata": {"annotations": {"cni.projectcalico.org/podIP": "10.5.0.3/32"}}}
    patched = await datastore.patch(Pod, "a", annotation, "default", "status")
    assert patched.metadata.annotations["cni.projectcalico.org/podIP"] == "10.5.0.3/32"


class Unknown(Resource, kw_only=True):
    """A kind without a CRD."""

    resource_type: ClassVar[ResourceType] = ResourceType(CRD_GROUP_VERSION, "Unknown", "unknowns")


async def test_missing_crd_is_not_taken_for_a_missing_object(datastore: KubernetesDatastore) -> None:
    with pytest.raises(UnavailableError, match="are the CRDs installed"):
        await datastore.get(Unknown, "x")
    with pytest.raises(UnavailableError, match="are the CRDs installed"):
        await datastore.list(Unknown)


async def test_object_that_the_server_refuses_is_invalid(datastore: KubernetesDatastore) -> None:
    with pytest.raises(InvalidError, match="UPPER"):
        await datastore.create(pool("UPPER"))


# --- identity ----------------------------------------------------------------------------------


async def service_account(apiserver: ApiServer, name: str, *, reader: bool) -> None:
    create = "/api/v1/namespaces/default/serviceaccounts"
    await asyncio.to_thread(apiserver.request, "POST", create, {"metadata": {"name": name}})
    if reader:
        binding = {
            "metadata": {"name": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        }
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        await asyncio.to_thread(apiserver.request, "POST", path, binding)


async def test_block_is_written_without_account_of_its_fields_and_read_back_whole(
    datastore: KubernetesDatastore, apiserver: ApiServer
) -> None:
    empty = blocks.new_block(ip_network("10.5.0.0/30"), "n1", datetime.now(UTC), 1)
    created = await datastore.create(empty)
    given, _ = blocks.assign(created, 1, "h", {"node": "n1"})
    for expected in (given, blocks.touch(given)):
        sent = msgspec.structs.replace(expected, metadata=created.metadata)
        created = await datastore.update(sent)
        assert created.spec == expected.spec
        assert created == await datastore.get(IPAMBlock, "10-5-0-0-30")
    path = f"/apis/{CRD_GROUP_VERSION}/ipamblocks/10-5-0-0-30"
    assert "managedFields" not in apiserver.request("GET", path)["metadata"]
    with pytest.raises(ConflictError):
        await datastore.update(given)


async def test_handle_is_deleted_in_one_step_and_only_as_it_was_seen(
    datastore: KubernetesDatastore, apiserver: ApiServer
) -> None:
    seen = await datastore.create(
        IPAMHandle(metadata=Metadata(name="h"), spec=IPAMHandleSpec(handle_id="h", block={"10.5.0.0/26": 1}))
    )
    spec = msgspec.structs.replace(seen.spec, block={"10.5.0.0/26": 2})
    newer = await datastore.update(msgspec.structs.replace(seen, spec=spec))
    with pytest.raises(ConflictError):
        await datastore.delete(seen)
    await datastore.delete(newer)
    version = newer.metadata.resource_version
    query = f"watch=true&resourceVersion={version}&timeoutSeconds=1"
    event = apiserver.request("GET", f"/apis/{CRD_GROUP_VERSION}/ipamhandles?{query}")
    assert event["type"] == "DELETED"
    assert not event["object"]["spec"].get("deleted")


async def test_pod_uses_the_token_that_kubelet_puts_into_its_file(
    apiserver: ApiServer, datastore: KubernetesDatastore, tmp_path: Path
) -> None:
    await service_account(apiserver, "rotating", reader=True)
    (tmp_path / "ca.crt").write_bytes(apiserver.ca.read_bytes())
    (tmp_path / "token").write_text("expired")
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(apiserver.port)}
    async with KubernetesDatastore(in_cluster(environment, tmp_path)) as client:
        with pytest.raises(ForbiddenError):
            await client.list(IPPool)
        token, expiry = await datastore.create_token("default", "rotating", 3600)
        (tmp_path / "new").write_text(token)
        (tmp_path / "new").rename(tmp_path / "token")
        assert (await client.list(IPPool)).items == []
    assert timedelta(minutes=50) < expiry - datetime.now(UTC) < timedelta(minutes=70)


async def test_account_without_rights_is_forbidden(
    apiserver: ApiServer, datastore: KubernetesDatastore
) -> None:
    await service_account(apiserver, "nobody", reader=False)
    token, _expiry = await datastore.create_token("default", "nobody", 600)
    config = from_kubeconfig(apiserver.kubeconfig)
    async with KubernetesDatastore(ClusterConfig(config.server, Token(token), config.tls)) as client:
        with pytest.raises(ForbiddenError, match="system:serviceaccount:default:nobody"):
            await client.list(IPPool)


async def test_token_of_an_unknown_account_is_not_found(datastore: KubernetesDatastore) -> None:
    with pytest.raises(NotFoundError):
        await datastore.create_token("default", "absent", 600)


async def test_kubeconfig_with_a_client_certificate_in_it(
    apiserver: ApiServer, datastore: KubernetesDatastore, tmp_path: Path
) -> None:
    client_pair = apiserver.authority.issue("someone", organization="system:masters")

    def encoded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    text = apiserver.kubeconfig.read_text()
    text = re.sub(r"certificate-authority: .*", f"certificate-authority-data: {encoded(apiserver.ca)}", text)
    text = re.sub(
        r"token: .*",
        f"client-certificate-data: {encoded(client_pair.certificate)}\n"
        f"    client-key-data: {encoded(client_pair.key)}",
        text,
    )
    (tmp_path / "config").write_text(text)
    await datastore.create(pool("a"))
    async with await connect(tmp_path / "config") as client:
        assert [item.metadata.name for item in (await client.list(IPPool)).items] == ["a"]


async def test_kubeconfig_named_by_the_environment_is_used(
    apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    async with await connect() as client:
        assert (await client.list(IPPool)).resource_version


# --- a server that misbehaves ------------------------------------------------------------------

Handler = Callable[[aiohttp.web.Request, int], Awaitable[aiohttp.web.StreamResponse]]
POOL = {"metadata": {"name": "p", "resourceVersion": "5", "uid": "u"}, "spec": {"cidr": "10.5.0.0/16"}}


@asynccontextmanager
async def misbehaving(handler: Handler) -> AsyncIterator[tuple[KubernetesDatastore, list[str]]]:
    """A client of such a server, and the methods of the requests that it got."""
    methods: list[str] = []

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        methods.append(request.method)
        return await handler(request, len(methods))

    application = aiohttp.web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = aiohttp.web.AppRunner(application, access_log=None)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        async with KubernetesDatastore(ClusterConfig(f"http://{host}:{port}", Token(), None)) as client:
            yield client, methods
    finally:
        await runner.cleanup()


def failing(times: int, status: int, **headers: str) -> Handler:
    async def handler(_request: aiohttp.web.Request, number: int) -> aiohttp.web.StreamResponse:
        if number <= times:
            return aiohttp.web.Response(status=status, headers=headers, text="busy")
        return aiohttp.web.json_response(POOL)

    return handler


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_read_is_repeated_after_a_passing_failure(status: int) -> None:
    async with misbehaving(failing(2, status)) as (client, methods):
        assert (await client.get(IPPool, "p")).spec.cidr == "10.5.0.0/16"
        assert methods == ["GET"] * 3


async def test_endless_failure_is_reported_after_five_attempts() -> None:
    async with misbehaving(failing(100, 503)) as (client, methods):
        with pytest.raises(UnavailableError, match="HTTP 503"):
            await client.get(IPPool, "p")
        assert methods == ["GET"] * 5


async def test_retry_after_is_honoured() -> None:
    headers = {"Retry-After": "1"}
    async with misbehaving(failing(1, 429, **headers)) as (client, _methods):
        before = asyncio.get_running_loop().time()
        await client.get(IPPool, "p")
        assert asyncio.get_running_loop().time() - before >= 1


async def test_write_that_the_server_turned_away_is_repeated() -> None:
    async with misbehaving(failing(1, 429, **{"Retry-After": "0"})) as (client, methods):
        await client.create(pool("p"))
        assert methods == ["POST"] * 2


@pytest.mark.parametrize("status", [500, 503, 504])
async def test_write_with_an_unknown_outcome_is_not_repeated(status: int) -> None:
    async with misbehaving(failing(1, status)) as (client, methods):
        with pytest.raises(UnavailableError):
            await client.create(pool("p"))
        existing = pool("p")
        existing.metadata.resource_version = "5"
        await client.update(existing)
        assert methods == ["POST", "PUT"]


async def test_create_whose_answer_is_lost_is_not_repeated() -> None:
    async def hang_up(request: aiohttp.web.Request, _number: int) -> aiohttp.web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return aiohttp.web.Response()

    async with misbehaving(hang_up) as (client, methods):
        with pytest.raises(UnavailableError):
            await client.create(pool("p"))
        assert methods == ["POST"]


async def test_server_that_is_not_there_is_unavailable_and_named() -> None:
    (port,) = free_ports(1)
    async with KubernetesDatastore(ClusterConfig(f"http://127.0.0.1:{port}", Token(), None)) as client:
        with pytest.raises(UnavailableError, match=str(port)) as caught:
            await client.create(pool("p"))
        assert caught.value.retryable


async def test_watch_goes_on_after_errors_half_lines_and_objects_that_do_not_fit() -> None:
    line = '{"type": "%s", "object": {"metadata": {"name": "%s", "resourceVersion": "%s"}, "spec": %s}}\n'
    good = '{"cidr": "10.5.0.0/16"}'
    resumed: list[str] = []

    async def handler(request: aiohttp.web.Request, number: int) -> aiohttp.web.StreamResponse:
        resumed.append(request.query["resourceVersion"])
        if number == 2:
            return aiohttp.web.Response(status=500)
        response = aiohttp.web.StreamResponse()
        await response.prepare(request)
        if number == 1:
            lines = line % ("ADDED", "a", "11", good) + line % ("ADDED", "bad", "12", "{}")
            await response.write((lines + (line % ("ADDED", "half", "13", good))[:40]).encode())
        elif number == 3:
            await response.write((line % ("BOOKMARK", "", "20", "{}")).encode())
            await response.write(b'{"type": "ERROR", "object": {"code": 500, "message": "etcd is away"}}\n')
        elif number == 4:
            await response.write((line % ("MODIFIED", "a", "21", good)).encode())
        else:
            await response.write(b'{"type": "ERROR", "object": {"code": 410, "message": "too old"}}\n')
        return response

    seen: list[tuple[str, str]] = []
    async with misbehaving(handler) as (client, _methods):
        with pytest.raises(GoneError, match="too old"):
            await follow(client, "10", seen)
    assert seen == [("added", "11"), ("modified", "21")]
    assert resumed == ["10", "12", "12", "20", "21"]


async def test_list_starts_over_when_a_page_comes_too_late() -> None:
    async def handler(request: aiohttp.web.Request, number: int) -> aiohttp.web.StreamResponse:
        if number == 1:
            page = {"metadata": {"resourceVersion": "5", "continue": "more"}, "items": [POOL]}
            return aiohttp.web.json_response(page)
        if number == 2:
            assert request.query["continue"] == "more"
            return aiohttp.web.json_response({"reason": "Expired", "code": 410}, status=410)
        assert "limit" not in request.query
        return aiohttp.web.json_response({"metadata": {"resourceVersion": "9"}, "items": [POOL]})

    async with misbehaving(handler) as (client, methods):
        listing = await client.list(IPPool)
        assert (len(listing.items), listing.resource_version) == (1, "9")
        assert len(methods) == 3
