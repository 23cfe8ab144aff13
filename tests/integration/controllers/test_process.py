"""The process `tortie-controllers` against a real API server."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.components import ipam_audit as audit
from tests.components.apiserver import ApiServer
from tests.unit.controllers.scene import POOL, Scene
from tortie.datastore.interface import NotFoundError
from tortie.datastore.kubernetes import KubernetesDatastore
from tortie.ipam.request import AddressRequest
from tortie.model.resources import BlockAffinity, IPAMBlock, IPAMHandle, Node


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A running one."""

    def __init__(self, process: asyncio.subprocess.Process, health: int, metrics: int) -> None:
        self.process = process
        self._health, self._metrics = health, metrics

    async def get(self, path: str) -> tuple[int, str]:
        port = self._metrics if path == "/metrics" else self._health
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{path}") as answer,
        ):
            return answer.status, await answer.text()


@asynccontextmanager
async def running(apiserver: ApiServer, **environment: str) -> AsyncIterator[Process]:
    health, metrics = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tortie.controllers.main",
        env={
            **os.environ,
            "KUBECONFIG": str(apiserver.kubeconfig),
            "HEALTH_PORT": str(health),
            "METRICS_PORT": str(metrics),
            **environment,
        },
    )
    try:
        yield Process(process, health, metrics)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.1)


async def is_ready(process: Process) -> bool:
    try:
        status, _text = await process.get("/readiness")
    except aiohttp.ClientConnectionError:
        return False
    return status == 200


@pytest.fixture
async def scene(datastore: KubernetesDatastore) -> AsyncIterator[Scene]:
    await datastore.create(audit.pool(*POOL))
    made = Scene(datastore)
    yield made
    for name in made.allocators:
        try:
            await made.delete_node(name)
        except NotFoundError:
            continue


async def test_leaks_and_deleted_nodes_are_collected_and_counted(
    apiserver: ApiServer, datastore: KubernetesDatastore, scene: Scene
) -> None:
    for node in ("gc-n1", "gc-n2"):
        await scene.add_node(node)
    (kept,) = await scene.allocators["gc-n1"].assign(AddressRequest("net.kept-c1", {"node": "gc-n1"}))
    await scene.attach("gc-n1", "leaked", "c1")
    tunnel = AddressRequest("vxlan-tunnel-addr-gc-n2", {"node": "gc-n2", "type": "vxlanTunnelAddress"})
    await scene.allocators["gc-n2"].assign(tunnel)
    async with running(apiserver, LEAK_GRACE_PERIOD="2s") as process:
        await eventually(lambda: is_ready(process))

        async def leak_is_gone() -> bool:
            return "net.leaked-c1" not in (await scene.holders()).values()

        await eventually(leak_is_gone)
        assert "vxlan-tunnel-addr-gc-n2" in (await scene.holders()).values()
        await datastore.delete(await datastore.get(Node, "gc-n2"))

        async def node_is_gone() -> bool:
            affinities = (await datastore.list(BlockAffinity)).items
            return {item.spec.node for item in affinities} == {"gc-n1"}

        await eventually(node_is_gone)
        assert list(await scene.holders()) == [kept]
        assert {item.spec.affinity for item in (await datastore.list(IPAMBlock)).items} == {"host:gc-n1"}
        handles = [item.spec.handle_id for item in (await datastore.list(IPAMHandle)).items]
        assert handles == ["net.kept-c1"]
        await audit.check(datastore)

        status, text = await process.get("/metrics")
        assert status == 200
        assert 'ipam_allocations_gc_reclamations_total{ippool="default",node="gc-n1"} 1.0' in text
        assert 'ipam_ippool_size{ippool="default"} 256.0' in text
        assert (await process.get("/liveness"))[0] == 200
        process.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.process.wait() == 0


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LEAK_GRACE_PERIOD": "soon"}, b"LEAK_GRACE_PERIOD is 'soon'"),
        # Said before anything is asked of an API server, which may be unknown where etcd is meant.
        ({"DATASTORE_TYPE": "etcdv3", "KUBECONFIG": ""}, b"DATASTORE_TYPE is 'etcdv3'"),
    ],
)
async def test_wrong_setting_ends_the_process_with_a_sentence(
    apiserver: ApiServer, environment: dict[str, str], said: bytes
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tortie.controllers.main",
        env={**os.environ, "KUBECONFIG": str(apiserver.kubeconfig), **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _out, errors = await process.communicate()
    assert process.returncode == 1
    assert said in errors
    assert b"Traceback" not in errors
