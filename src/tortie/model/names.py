"""Names of objects and devices, derived from what they belong to. Same input, same name, on every node."""

import base64
import hashlib
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Literal

from tortie.model.constants import (
    AFFINITY_TYPE_HOST,
    INTERFACE_PREFIX,
    LABEL_AFFINITY_TYPE,
    LABEL_HOSTNAME_HASH,
    LABEL_IP_VERSION,
)

# A Kubernetes object name has at most 253 characters (RFC 1123 subdomain); Calico shortens from 253 on.
_MAX_NAME: Final = 253
# Characters of a digest that Calico appends to a shortened name, and puts after `cali` in a device name:
# a device name has at most 15 characters (IFNAMSIZ - 1, linux/if.h).
_DIGEST_CHARS: Final = 11

TunnelKind = Literal["ipip", "vxlan", "vxlan-v6", "wireguard", "wireguard-v6"]


def cidr_name(cidr: str | IPv4Network) -> str:
    """Name of the block `cidr`: `10.5.0.0/26` is `10-5-0-0-26`."""
    return str(cidr).translate(str.maketrans(".:/", "---"))


def affinity_name(node: str, cidr: str | IPv4Network) -> str:
    """Name of `node`'s BlockAffinity for the block `cidr`; a long one is cut and made unique by a digest."""
    block = cidr_name(cidr)
    name = f"{node}-{block}"
    if len(name) < _MAX_NAME:
        return name
    digest = hashlib.sha256(f"{node}+{block}".encode()).hexdigest()[:_DIGEST_CHARS]
    room = _MAX_NAME - 1 - len(block) - len(digest) - 2
    return f"{node[:room]}-{block}-{digest}"


def affinity_labels(node: str, cidr: str | IPv4Network) -> dict[str, str]:
    """Labels that a BlockAffinity needs for Calico to find it. A label value cannot hold a long node name,
    so the node stands in it as SHA3-256 in unpadded base32 (52 characters)."""
    digest = hashlib.sha3_256(node.encode()).digest()
    return {
        LABEL_HOSTNAME_HASH: base64.b32encode(digest).decode("ascii").rstrip("="),
        LABEL_AFFINITY_TYPE: AFFINITY_TYPE_HOST,
        LABEL_IP_VERSION: "6" if ":" in str(cidr) else "4",
    }


def veth_name(namespace: str, pod: str) -> str:
    """The host's end of a pod's veth pair: `cali` and 11 hexadecimal characters."""
    digest = hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()
    return INTERFACE_PREFIX + digest[:_DIGEST_CHARS]


def veth_name_for_container(container_id: str) -> str:
    """The host's end of the veth pair of a container that Kubernetes did not start."""
    return INTERFACE_PREFIX + container_id[:_DIGEST_CHARS]


def handle_id(network: str, container_id: str) -> str:
    """Handle that a container's addresses are accounted to; `network` is the CNI configuration's name."""
    return f"{network}.{container_id}"


def tunnel_handle_id(kind: TunnelKind, node: str) -> str:
    """Handle that a node's tunnel address is accounted to."""
    return f"{kind}-tunnel-addr-{node}"


def handle_name(handle: str) -> str:
    """Object name of the IPAMHandle for a handle id: object names are in lower case."""
    return handle.lower()


def vtep_mac(node: str) -> str:
    """MAC of a node's vxlan.calico: 0x66, then 5 bytes of the name's SHA-1. 0x66 has bit 1 set (locally
    administered, IEEE 802) and bit 0 clear (unicast)."""
    digest = hashlib.sha1(node.encode(), usedforsecurity=False).digest()
    return ":".join(f"{byte:02x}" for byte in (0x66, *digest[:5]))


def workload_endpoint_name(node: str, pod: str, interface: str) -> str:
    """Name of a pod's WorkloadEndpoint: segments joined by a dash, a dash inside a segment doubled."""
    return "-".join(segment.replace("-", "--") for segment in (node, "k8s", pod, interface))


def host_affinity(node: str) -> str:
    """`spec.affinity` of a block that belongs to `node`."""
    return f"{AFFINITY_TYPE_HOST}:{node}"


def ordinal_address(block: IPv4Network, ordinal: int) -> IPv4Address:
    """The address at `ordinal` (0-based) of a block."""
    return block.network_address + ordinal
