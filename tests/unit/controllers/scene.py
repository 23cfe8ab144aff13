"""A small cluster for tests of garbage collection: pods, nodes, and addresses in the datastore."""

from ipaddress import ip_network

from tests.components import ipam_audit as audit
from tortie.datastore.interface import Datastore, NotFoundError
from tortie.ipam import block as blocks
from tortie.ipam.allocator import Allocator
from tortie.ipam.request import Address, AddressRequest
from tortie.model.resources import IPAMBlock, Metadata, Node, Pod, PodSpec, PodStatus

POOL = ("10.5.0.0/24", 28)


class Scene:
    """Acts as kubelet and agents."""

    def __init__(self, store: Datastore) -> None:
        self.store = store
        self.allocators: dict[str, Allocator] = {}

    async def add_node(self, name: str) -> None:
        await self.store.create(Node(metadata=Metadata(name=name)))
        await self.add_allocator(name)

    async def add_allocator(self, node: str) -> None:
        """The node's agent is started (again)."""
        self.allocators[node] = Allocator(self.store, node, rng=audit.Eager(1))

    async def delete_node(self, name: str) -> None:
        """As an administrator does; Kubernetes deletes its pods then."""
        await self.store.delete(await self.store.get(Node, name))

    async def start_pod(self, node: str, name: str, container: str = "c1") -> Address:
        """A pod with an address that its status names."""
        pod = Pod(metadata=Metadata(name=name, namespace="default"), spec=PodSpec(node_name=node))
        await self.store.create(pod)
        address = await self.attach(node, name, container)
        await self.report(name, address)
        return address

    async def attach(self, node: str, pod: str, container: str) -> Address:
        """What an ADD does to the datastore."""
        attributes = {"node": node, "namespace": "default", "pod": pod}
        request = AddressRequest(f"net.{pod}-{container}", attributes)
        (address,) = await self.allocators[node].assign(request)
        return address

    async def report(self, name: str, address: Address) -> None:
        pod = await self.store.get(Pod, name, "default")
        pod.status = PodStatus(phase="Running", pod_ip=str(address))
        await self.store.update(pod)

    async def delete_pod(self, name: str) -> None:
        """The pod goes, without any DEL."""
        try:
            await self.store.delete(await self.store.get(Pod, name, "default"))
        except NotFoundError:
            return

    async def holders(self) -> dict[Address, str]:
        return await audit.holders(self.store)

    async def blocks_of(self, node: str) -> list[str]:
        listed = (await self.store.list(IPAMBlock)).items
        own = [ip_network(item.spec.cidr) for item in listed if blocks.belongs_to(item, node)]
        return [str(cidr) for cidr in sorted(own, key=blocks.position)]
