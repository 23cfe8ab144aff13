"""One node for tests: a namespace as host, real server, shim and address allocator; datastore in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.components import apiserver
from tests.components.apiserver import ApiServer
from tests.components.proxy import Proxy, proxy_to
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import installer
from tortie.cni.cluster import Watched
from tortie.cni.guard import EndpointPolicy, FloatingAddresses
from tortie.cni.interfaces import WorkloadDataplane
from tortie.cni.server import CNIServer
from tortie.dataplane import netns
from tortie.datastore.interface import Datastore
from tortie.datastore.kubernetes import connect
from tortie.datastore.memory import MemoryDatastore
from tortie.ipam.allocator import Allocator
from tortie.model.names import veth_name
from tortie.model.resources import (
    ClusterInformation,
    ClusterInformationSpec,
    IPAMBlock,
    IPAMHandle,
    IPPool,
    IPPoolSpec,
    Metadata,
    Node,
    Pod,
    PodSpec,
)

NODE = "worker-01"
ADDRESS = "192.0.2.1"
MTU = 1450
BOTH = {"ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}}
CONFIG: dict[str, Any] = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calico"}


class TestNode:
    """What a test needs of the node. Made by `running`."""

    __test__ = False

    def __init__(self, directory: Path, host: Namespace, datastore: Datastore) -> None:
        self.directory = directory
        self.host = host
        self.datastore = datastore
        self.allocator = Allocator(datastore, NODE)
        self.workloads: WorkloadDataplane | None = None
        self.policy: EndpointPolicy | None = None
        self.floating: FloatingAddresses | None = None
        self.watched: Watched | None = None
        self.limited = ""
        self.mtu = MTU  # of pods, as the agent knows it
        self.journal = directory / "journal"
        self.api: ApiServer | None = None
        self.proxy: Proxy | None = None
        self._server: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the agent's server."""
        server = CNIServer(
            socket_path=self.directory / "cni.sock",
            journal_dir=self.journal,
            node=NODE,
            datastore=self.datastore,
            allocator=self.allocator,
            default_mtu=lambda: self.mtu,
            workloads=self.workloads,
            policy=self.policy,
            floating=self.floating,
            watched=self.watched,
            limited=lambda: self.limited,
            host_root=Path("/"),
        )
        self._server = asyncio.create_task(server.serve())
        async with asyncio.timeout(10):
            await server.listening.wait()

    async def stop(self) -> None:
        """Stop it, as on SIGTERM."""
        if self._server is not None:
            self._server.cancel()
            await asyncio.wait([self._server])
            self._server = None

    async def cni(
        self,
        command: str,
        container: str = "c1",
        *,
        netns: str = "",
        pod: str = "",
        config: dict[str, Any] | bytes | None = None,
        plugin: str = "calico",
        **environment: str,
    ) -> tuple[int, dict[str, Any]]:
        """Call the plugin as the runtime does: exit status and parsed standard output."""
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": netns,
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}" if pod else "",
            "CNI_PATH": "/usr/lib/cni",
            "TORTIE_CNI_SOCKET": str(self.directory / "cni.sock"),
            "TORTIE_CNI_JOURNAL": str(self.journal),
        }
        text = config if isinstance(config, bytes) else json.dumps(CONFIG | (config or {})).encode()
        process = await asyncio.create_subprocess_exec(
            self.directory / "bin" / plugin,
            env=variables | environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(90):
            output, errors = await process.communicate(text)
        assert errors == b""
        return process.returncode or 0, json.loads(output or b"{}")

    async def add_pod(self, name: str, **annotations: str) -> Pod:
        """A pod of this node in the datastore."""
        metadata = Metadata(name=name, namespace="default", annotations=annotations)
        return await self.datastore.create(Pod(metadata=metadata, spec=PodSpec(node_name=NODE)))

    async def handles(self) -> list[str]:
        """Handles that hold addresses."""
        return sorted(item.spec.handle_id for item in (await self.datastore.list(IPAMHandle)).items)

    async def allocated(self) -> int:
        """How many addresses are taken."""
        blocks = (await self.datastore.list(IPAMBlock)).items
        return sum(item is not None for block in blocks for item in block.spec.allocations)

    async def annotated(self, pod: str, expected: dict[str, str]) -> None:
        """Wait until the pod has these annotations, and no others."""
        held: dict[str, str] = {}
        for _ in range(1500):
            held = (await self.datastore.get(Pod, pod, "default")).metadata.annotations
            if held == expected:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"pod {pod} has annotations {held}, not {expected}")

    async def idle(self) -> None:
        """Wait until every DEL that was answered is finished."""
        await eventually(lambda: self.journalled() == [])

    def journalled(self) -> Sequence[str]:
        """Entries of the journal."""
        return sorted(path.name for path in self.journal.glob("*")) if self.journal.exists() else []


async def populate(datastore: Datastore) -> None:
    """What a cluster has before the first pod: this node, a pool, and the datastore declared ready."""
    await datastore.create(Node(metadata=Metadata(name=NODE)))
    await datastore.create(
        ClusterInformation(
            metadata=Metadata(name="default"), spec=ClusterInformationSpec(datastore_ready=True)
        )
    )
    spec = IPPoolSpec(cidr="10.5.0.0/16", vxlan_mode="Always", nat_outgoing=True)
    await datastore.create(IPPool(metadata=Metadata(name="default-ipv4-ippool"), spec=spec))


@asynccontextmanager
async def running(
    directory: Path, *, real_api_server: bool = False, proxied: bool = False, shim: Path = installer.FAST_SHIM
) -> AsyncIterator[TestNode]:
    """A node with its server running; this thread is in the host's namespace meanwhile."""
    async with AsyncExitStack() as stack:
        (host,) = stack.enter_context(namespaces(1))
        host.exec("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        host.ip("link", "set", "lo", "up")
        host.ip("addr", "add", f"{ADDRESS}/32", "dev", "lo")
        stack.enter_context(netns.entered(host.fd))
        store: Datastore = MemoryDatastore()
        api: ApiServer | None = None
        proxy: Proxy | None = None
        if real_api_server:
            (directory / "api").mkdir()
            prefix = ("ip", "netns", "exec", host.name)
            api = stack.enter_context(apiserver.running(directory / "api", address=ADDRESS, prefix=prefix))
            direct = await stack.enter_async_context(await connect(api.kubeconfig))
            await populate(direct)
            kubeconfig = api.kubeconfig
            if proxied:
                proxy = await stack.enter_async_context(proxy_to(api.port, ADDRESS))
                text = kubeconfig.read_text().replace(api.url, f"https://127.0.0.1:{proxy.port}")
                kubeconfig = directory / "kubeconfig"
                kubeconfig.write_text(text)
            store = await stack.enter_async_context(await connect(kubeconfig))
        else:
            await populate(store)
        node = TestNode(directory, host, store)
        node.api, node.proxy = api, proxy
        chosen = installer.Settings(
            bin_dir=directory / "bin", skip_binaries=frozenset(installer.PLUGINS), shim=shim
        )
        installer.install_binaries(chosen)
        await node.start()
        stack.push_async_callback(node.stop)
        yield node


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; fail when it does not for long."""
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come about within 30 seconds")


def path(sandbox: Namespace) -> str:
    """What CNI_NETNS says of a container."""
    return str(sandbox.path)


def address_of(result: dict[str, Any]) -> str:
    """The first address of an ADD's result."""
    return str(result["ips"][0]["address"]).removesuffix("/32")


async def assert_nothing_is_left(node: TestNode) -> None:
    """No interface, route, handle or address."""
    await node.idle()
    await eventually(lambda: node.host.devices() == [])
    assert node.host.json("route") == []
    assert await node.handles() == []
    assert await node.allocated() == 0


def memory(node: TestNode) -> MemoryDatastore:
    """The node's datastore, to which faults can be told."""
    assert isinstance(node.datastore, MemoryDatastore)
    return node.datastore


@asynccontextmanager
async def running_with_both(directory: Path) -> AsyncIterator[TestNode]:
    """A node with a pool of either family, that forwards both."""
    async with running(directory) as made:
        await add_pool(made, "six", "fd00:5::/64", block_size=122)
        made.host.exec("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
        yield made


async def add_pool(node: TestNode, name: str, cidr: str, **spec: Any) -> None:
    """One more pool of addresses."""
    await node.datastore.create(IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, **spec)))


def ipam(**section: Any) -> dict[str, Any]:
    """Configuration with these settings of our address plugin."""
    return {"ipam": {"type": "calico-ipam"} | section}


def addresses(result: dict[str, Any]) -> list[str]:
    """All addresses of an ADD's result."""
    return [item["address"].partition("/")[0] for item in result["ips"]]


async def add(node: TestNode, sandbox: Namespace, pod: str = "web", **options: Any) -> list[str]:
    """ADD must succeed; the addresses."""
    status, result = await node.cni("ADD", f"c-{pod}", netns=path(sandbox), pod=pod, **options)
    assert status == 0, result
    return addresses(result)


async def refused(node: TestNode, sandbox: Namespace, pod: str = "web", **options: Any) -> tuple[int, str]:
    """ADD must fail and leave nothing; code and sentence."""
    status, error = await node.cni("ADD", f"c-{pod}", netns=path(sandbox), pod=pod, **options)
    assert status == 1, error
    await eventually(lambda: veth_name("default", pod) not in node.host.devices())
    assert f"k8s-pod-network.c-{pod}" not in await node.handles()
    return error["code"], error["msg"]
