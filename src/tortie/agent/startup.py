"""What an agent does before it routes anything: who am I, where am I, and what does the cluster lack.

Every function here may be repeated: after an error the whole start-up runs again.
"""

import asyncio
import logging
import os
import socket
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec

from tortie.agent.autodetect import DetectionError, Method, choose, link_with_address
from tortie.agent.settings import Paths, Settings
from tortie.dataplane.apply import Dataplane, HostInterface
from tortie.dataplane.netlink import DataplaneError
from tortie.datastore.interface import AlreadyExistsError, ConflictError, Datastore, NotFoundError
from tortie.ipam.allocator import Allocator
from tortie.model.constants import (
    ANNOTATION_AS_NUMBER,
    ANNOTATION_IPV4_ADDRESS,
    DEFAULT_POOL_NAME,
)
from tortie.model.nodeinfo import BGPNode, parse_node
from tortie.model.resources import (
    ClusterInformation,
    ClusterInformationSpec,
    IPPool,
    IPPoolSpec,
    Metadata,
    Node,
    NodeCondition,
)
from tortie.routing.mtu import MTUError, pod_mtu
from tortie.routing.pools import parse_pools
from tortie.routing.state import HostLink

log = logging.getLogger(__name__)

_CAN_REACH_PORT = 80  # any port does: connect() on a UDP socket sends nothing


class StartupError(Exception):
    """The node cannot take part in the network as it is; the message is a sentence with a remedy."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is. `node` is what the agent knows for sure, annotations of the object aside."""

    node: BGPNode
    link: HostLink


def node_name(settings: Settings) -> str:
    """NODENAME, else what an earlier agent left in the nodename file, else the host's name in lower case."""
    if settings.node_name:
        return settings.node_name
    try:
        stored = settings.paths.nodename_file.read_text().strip()
    except FileNotFoundError:
        stored = ""
    return stored or socket.gethostname().strip().lower()


async def get_node(datastore: Datastore, name: str) -> Node:
    """This node's object. Raise StartupError when there is none."""
    try:
        return await datastore.get(Node, name)
    except NotFoundError as error:
        raise StartupError(
            f"NODENAME is {name}, but the cluster has no Node of that name: set NODENAME to the name that "
            "kubelet registered (metadata.name of the Node; field path spec.nodeName in the DaemonSet)."
        ) from error


async def ensure_cluster_information(datastore: Datastore, cluster_type: str) -> None:
    """Create ClusterInformation `default`, without which CNI refuses. Another agent may be faster."""
    try:
        current = await datastore.get(ClusterInformation, "default")
    except NotFoundError:
        information = ClusterInformation(
            metadata=Metadata(name="default"),
            spec=ClusterInformationSpec(
                cluster_guid=uuid.uuid4().hex, cluster_type=cluster_type, datastore_ready=True
            ),
        )
        try:
            await datastore.create(information)
            log.info("Created ClusterInformation default")
        except AlreadyExistsError:
            log.debug("ClusterInformation default was created by another node")
        return
    # False means that somebody locked the datastore on purpose.
    if current.spec.datastore_ready is None:
        await datastore.patch(ClusterInformation, "default", {"spec": {"datastoreReady": True}})


async def ensure_default_pool(datastore: Datastore, settings: Settings, link: HostLink) -> None:
    """Create the default pool when the cluster has no IPv4 pool at all. Agents of several nodes may race: one
    wins. Raise StartupError when it would contain addresses that are in use."""
    pool = settings.pool
    existing = await datastore.list(IPPool)
    if pool is None or any(":" not in item.spec.cidr for item in existing.items):
        return
    check_ranges(settings, link, [pool.cidr])
    resource = IPPool(
        metadata=Metadata(name=DEFAULT_POOL_NAME),
        spec=IPPoolSpec(
            cidr=str(pool.cidr),
            block_size=pool.block_size,
            ipip_mode=pool.ipip,
            vxlan_mode=pool.vxlan,
            nat_outgoing=pool.nat_outgoing,
            disable_bgp_export=pool.disable_bgp_export,
            node_selector=pool.node_selector,
        ),
    )
    try:
        await datastore.create(resource)
        log.info("Created IPPool %s %s", DEFAULT_POOL_NAME, pool.cidr)
    except AlreadyExistsError:
        log.debug("IPPool %s was created by another node", DEFAULT_POOL_NAME)


def check_ranges(settings: Settings, link: HostLink, pools: Iterable[IPv4Network]) -> None:
    """Raise StartupError when a pool contains the node's or the API server's address: the routes to its
    blocks would lead traffic to them astray."""
    try:
        service = IPv4Address(settings.service_host) if settings.service_host else None
    except ValueError:
        service = None
    for pool in pools:
        if link.address.ip in pool:
            raise StartupError(
                f"The pool {pool} contains this node's address {link.address.ip} ({link.name}); pods "
                "need a range of their own: choose another CALICO_IPV4POOL_CIDR, and delete the IPPool if it "
                "was made."
            )
        if service and service in pool:
            raise StartupError(
                f"The pool {pool} contains {service}, the API server's address in the service range "
                "(KUBERNETES_SERVICE_HOST); choose another CALICO_IPV4POOL_CIDR, and delete the IPPool if it "
                "was made."
            )


def detect_link(settings: Settings, node: Node, interfaces: Sequence[HostInterface]) -> HostLink:
    """The link and address to speak to peers with. Raise StartupError that lists the candidates."""
    internal = [
        IPv4Address(item.address)
        for item in node.status.addresses
        if item.type == "InternalIP" and ":" not in item.address
    ]
    try:
        if settings.ip is not None:
            return link_with_address(settings.ip, interfaces)
        return choose(settings.detection, interfaces, internal, _source_towards(settings.detection))
    except DetectionError as error:
        raise StartupError(str(error)) from error


def _source_towards(method: Method) -> IPv4Address | None:
    """The address that packets to the host of `can-reach=` leave with; None when it cannot be reached."""
    if method.kind != "can-reach":
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((method.values[0], _CAN_REACH_PORT))
            return IPv4Address(probe.getsockname()[0])
        except OSError as error:
            log.warning("can-reach=%s: %s", method.values[0], error)
            return None


def own_annotations(settings: Settings, link: HostLink) -> dict[str, str | None]:
    """What the Node's annotations shall say. A person's AS number there stays unless AS is set."""
    wanted: dict[str, str | None] = {ANNOTATION_IPV4_ADDRESS: str(link.address)}
    if settings.as_number is not None:
        wanted[ANNOTATION_AS_NUMBER] = str(settings.as_number)
    return wanted


async def announce(datastore: Datastore, settings: Settings, node: Node, link: HostLink) -> Identity:
    """Write address and AS number to the Node. Raise StartupError when another node has the address."""
    for other in (await datastore.list(Node)).items:
        theirs = parse_node(other).ipv4
        if other.metadata.name != node.metadata.name and theirs and theirs.ip == link.address.ip:
            raise StartupError(
                f"The address {link.address.ip} ({link.name}) is announced by node {other.metadata.name} as "
                "well: choose another with IP or IP_AUTODETECTION_METHOD, or delete that Node if it is gone."
            )
    await annotate(datastore, node, own_annotations(settings, link))
    own = BGPNode(name=node.metadata.name, ipv4=link.address, as_number=settings.as_number)
    return Identity(own, link)


async def annotate(datastore: Datastore, node: Node, wanted: dict[str, str | None]) -> None:
    """Bring annotations of this node's object to the wanted values; None removes one."""
    have = node.metadata.annotations
    changes = {key: value for key, value in wanted.items() if have.get(key) != value}
    if changes:
        # Through the status subresource: the agent may not write Node itself (no spec, no labels).
        await datastore.patch(
            Node, node.metadata.name, {"metadata": {"annotations": changes}}, subresource="status"
        )
        log.info("Annotated node %s: %s", node.metadata.name, changes)


async def report_network_available(datastore: Datastore, name: str) -> None:
    """Set the Node's condition NetworkUnavailable to False; leave it alone when it is so already.

    A merge patch replaces the whole list of conditions, so it carries the resource version it was read at.
    """
    for _ in range(5):
        node = await datastore.get(Node, name)
        others = [item for item in node.status.conditions if item.type != "NetworkUnavailable"]
        if len(others) < len(node.status.conditions) and all(
            item.status == "False" for item in node.status.conditions if item.type == "NetworkUnavailable"
        ):
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = NodeCondition(
            type="NetworkUnavailable",
            status="False",
            reason="CalicoIsUp",
            message="Calico is running on this node",
            last_transition_time=now,
            last_heartbeat_time=now,
        )
        patch = {
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": [msgspec.to_builtins(item) for item in (*others, condition)]},
        }
        try:
            await datastore.patch(Node, name, patch, subresource="status")
        except ConflictError:
            await asyncio.sleep(0.1)
            continue
        log.info("Node %s: condition NetworkUnavailable is False", name)
        return
    log.warning("Node %s: condition NetworkUnavailable could not be set: the Node changes all the time", name)


def write_atomically(path: Path, content: str, mode: int = 0o644) -> bool:
    """Replace a file so that readers see the old content or the new one. Return whether it changed."""
    try:
        if path.read_text() == content:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def write_host_files(paths: Paths, name: str, mtu: int) -> None:
    """nodename and mtu (bytes), which the CNI plugin reads. Files of Calico end without a line break."""
    if write_atomically(paths.nodename_file, name):
        log.info("Wrote %s: %s", paths.nodename_file, name)
    if write_atomically(paths.mtu_file, str(mtu)):
        log.info("Wrote %s: %d", paths.mtu_file, mtu)


async def start_up(
    settings: Settings, name: str, datastore: Datastore, dataplane: Dataplane, allocator: Allocator
) -> Identity:
    """Find out who and where this node `name` is, and give the cluster what it lacks.

    Raise StartupError or a DatastoreError; nothing is half-done that a second call does not finish.
    """
    node = await get_node(datastore, name)
    try:
        interfaces = await asyncio.to_thread(dataplane.host_links)
    except DataplaneError as error:
        raise StartupError(f"The node's links cannot be read: {error}") from error
    link = detect_link(settings, node, interfaces)
    log.info("Node %s speaks to its peers from %s on %s (MTU %d)", name, link.address, link.name, link.mtu)
    await ensure_cluster_information(datastore, settings.cluster_type)
    await ensure_default_pool(datastore, settings, link)
    pools, _problems = parse_pools((await datastore.list(IPPool)).items)
    check_ranges(settings, link, [pool.cidr for pool in pools])
    try:
        pod_mtu(link.mtu, pools, settings.mtu)
    except MTUError as error:
        raise StartupError(str(error)) from error
    for repair in await allocator.reconcile_affinities():
        log.info("Address management: %s", repair)
    return await announce(datastore, settings, node, link)
