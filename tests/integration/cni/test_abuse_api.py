"""An API server that refuses, dawdles, keeps silent or breaks off: the right code, nothing left, and service
goes on without a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from tests.components import ipam_audit
from tests.components.faulty_api import WRITES, Fault, FaultyApi, in_front_of
from tests.integration.cni.node import NODE, TestNode, eventually, running
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import server
from tortie.datastore import kubernetes
from tortie.datastore.interface import Datastore
from tortie.datastore.kubernetes import connect
from tortie.ipam.allocator import Allocator
from tortie.model.resources import IPAMHandle

pytestmark = pytest.mark.root

# The product's time-outs, shortened alike, so that each fault takes seconds instead of a minute.
ATTEMPT_SECONDS = 1.0
CALL_SECONDS = 3.0
REPLAY_SECONDS = 0.5

FAULTS = {
    "429": Fault("refuse", status=429),
    "500": Fault("refuse", status=500),
    "503": Fault("refuse", status=503),
    "slow": Fault("slow", seconds=1.5 * ATTEMPT_SECONDS),
    "silent": Fault("silent"),
    "half-closed": Fault("half"),
}


@dataclass
class Setting:
    """A node whose agent reaches the API server through the front, and a client that does not."""

    node: TestNode
    front: FaultyApi
    direct: Datastore
    sandbox: Namespace

    async def add(self, container: str) -> tuple[int, dict[str, object]]:
        return await self.node.cni("ADD", container, netns=str(self.sandbox.path), pod="web")

    def devices(self) -> list[str]:
        """Host ends of pods."""
        return [name for name in self.node.host.devices() if name.startswith("cali")]

    async def assert_nothing_is_held(self) -> None:
        await ipam_audit.check(self.direct)
        assert await ipam_audit.holders(self.direct) == {}
        assert (await self.direct.list(IPAMHandle)).items == []
        await eventually(lambda: self.devices() == [])


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs in seconds instead of tens of them."""
    monkeypatch.setattr(kubernetes, "_ATTEMPT_TIMEOUT", aiohttp.ClientTimeout(total=ATTEMPT_SECONDS))
    monkeypatch.setattr(kubernetes, "_CALL_TIMEOUT", CALL_SECONDS)
    monkeypatch.setattr(server, "REPLAY_SECONDS", REPLAY_SECONDS)


@asynccontextmanager
async def behind_front(tmp_path: Path) -> AsyncIterator[Setting]:
    with namespaces(1) as (sandbox,):
        async with running(tmp_path, real_api_server=True) as node:
            assert node.api is not None
            pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            await asyncio.to_thread(node.api.request, "POST", "/api/v1/namespaces/default/pods", pod)
            await node.stop()
            direct = node.datastore
            async with AsyncExitStack() as stack:
                front, kubeconfig = await stack.enter_async_context(in_front_of(node.api, tmp_path))
                through = await stack.enter_async_context(await connect(kubeconfig))
                node.datastore, node.allocator = through, Allocator(through, NODE)
                await node.start()
                stack.push_async_callback(node.stop)
                yield Setting(node, front, direct, sandbox)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("methods", [WRITES | {"GET"}, WRITES], ids=["all requests", "writes"])
async def test_whatever_the_api_server_does_an_add_is_put_off_a_del_succeeds_and_nothing_is_left(
    tmp_path: Path, methods: frozenset[str]
) -> None:
    async with behind_front(tmp_path) as here:
        for number, (name, fault) in enumerate(FAULTS.items()):
            print(f"fault: {name}")
            old, new, after = (f"{word}{number}" for word in ("old", "new", "after"))
            assert (await here.add(old))[0] == 0
            met, here.front.fault = here.front.met, replace(fault, methods=methods)
            assert await here.node.cni("DEL", old, pod="web") == (0, {})
            status, error = await here.add(new)
            assert (status, error.get("code")) == (1, 11), error
            assert here.front.met > met
            await eventually(lambda: here.devices() == [])
            assert await here.node.cni("DEL", new, pod="web") == (0, {})
            assert here.node.journalled() != []
            await here.front.settled()
            here.front.fault = None
            await here.node.idle()
            await here.assert_nothing_is_held()
            assert (await here.add(after))[0] == 0
            assert await here.node.cni("DEL", after, pod="web") == (0, {})
            await here.node.idle()
            await here.assert_nothing_is_held()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("status", [429, 500])
async def test_a_short_burst_of_refusals_is_not_noticed(tmp_path: Path, status: int) -> None:
    """Two refusals in a row; of a write only 429 says that nothing was done, so 500 strikes reads."""
    async with behind_front(tmp_path) as here:
        methods = WRITES | {"GET"} if status == 429 else frozenset({"GET"})
        burst = Fault("refuse", status=status, methods=methods, times=2)
        here.front.fault = burst
        assert (await here.add("c1"))[0] == 0
        assert burst.times == 0
        assert len(here.devices()) == 1
        here.front.fault = again = replace(burst, times=2)
        assert await here.node.cni("DEL", "c1", pod="web") == (0, {})
        await here.node.idle()
        assert again.times == 0
        await here.assert_nothing_is_held()


async def test_with_the_products_own_time_outs_the_shim_still_gets_the_agents_answer(tmp_path: Path) -> None:
    """Not the shim's: the agent gives up first, and says which call was not answered."""
    async with behind_front(tmp_path) as here:
        here.front.fault = Fault("silent")
        status, error = await here.add("c1")
        assert (status, error.get("code")) == (1, 11), error
        assert "clusterinformations" in str(error["msg"])
        here.front.fault = None
        assert (await here.add("c2"))[0] == 0
        assert await here.node.cni("DEL", "c2", pod="web") == (0, {})
        await here.node.idle()
        await here.assert_nothing_is_held()
