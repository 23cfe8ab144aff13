# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Judge an inventory before any host is touched: plain settings in, sentences out.

`Cluster` holds what the inventory says, with the roles' defaults already filled in; `problems` returns
one sentence per mistake (variable, value, what is allowed, remedy) and an empty list when the inventory
can be used. Values arrive as Ansible has them: numbers and booleans may be strings.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils import kube_versions

ENCAPSULATIONS = ("ipip", "vxlan", "none")
ENCAPSULATION_MODES = ("always", "cross-subnet")
INSTALL_SOURCES = ("bundle", "packages")
CGROUP_DRIVERS = ("auto", "systemd", "cgroupfs")

# Bytes a tunnel takes from the link's MTU: RFC 2003 (20), RFC 7348 over IPv4 (50).
TUNNEL_OVERHEAD = {"ipip": 20, "vxlan": 50, "none": 0}

# RFC 791: every host takes datagrams of 576 bytes; 65535 is the largest datagram.
MTU_RANGE = (576, 65535)
# Calico's limits for IPv4 blocks.
BLOCK_SIZE_RANGE = (20, 32)
AS_RANGE = (1, 4294967295)  # RFC 6793
PORT_RANGE = (1, 65535)

# Kubernetes: kubeadm refuses service ranges with more than 20 host bits; fewer than 8 addresses cannot hold
# the API server's and the DNS service's.
SERVICE_PREFIX_RANGE = (12, 29)

# DNS-1123 subdomain, which is what the API server accepts as the name of a node.
NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

# One value for the whole cluster: it ends up in an object or a certificate that all nodes share.
CLUSTER_WIDE = (
    "control_plane_schedulable",
    "kubernetes_api_endpoint",
    "kubernetes_install_source",
    "kubernetes_service_cidr",
    "kubernetes_version",
    "tortie_as_number",
    "tortie_encapsulation",
    "tortie_encapsulation_mode",
    "tortie_ip_autodetection_method",
    "tortie_ipv4pool_block_size",
    "tortie_ipv4pool_cidr",
    "tortie_mtu",
    "tortie_nat_outgoing",
)

BOOLEANS = ("control_plane_schedulable", "tortie_nat_outgoing", "node_manage_swap", "node_manage_hosts_file")


@dataclass(frozen=True)
class Cluster:
    """What the inventory says about one cluster.

    hosts: settings by host name, in the inventory's order, roles' defaults filled in.
    """

    hosts: Mapping[str, Mapping[str, Any]]
    control_plane: Sequence[str]
    workers: Sequence[str]

    @property
    def shared(self) -> Mapping[str, Any]:
        """The settings that are the same everywhere, read from the first control plane node (or any node)."""
        for name in self.control_plane:
            if name in self.hosts:
                return self.hosts[name]
        return next(iter(self.hosts.values()), {})


def problems(cluster: Cluster) -> list[str]:
    """Every mistake in the inventory, as sentences, the structural ones first."""
    found = list(_groups(cluster))
    if not cluster.hosts:
        return found
    found += _same_everywhere(cluster)
    found += _node_names(cluster)
    found += _node_addresses(cluster)
    found += _kubernetes(cluster.shared)
    found += _network(cluster.shared)
    found += _ranges(cluster)
    found += _booleans(cluster)
    return found


# --- values
# ---------------------------------------------------------------------------------------------------------


def as_integer(value: Any) -> int | None:
    """The whole number that a YAML or command line value stands for, or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return int(value)
    text = str(value).strip()
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def as_boolean(value: Any) -> bool | None:
    """The truth value that a YAML or command line value stands for, or None."""
    if isinstance(value, bool):
        return bool(value)
    return {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }.get(str(value).strip().lower())


def as_network(value: Any) -> ipaddress.IPv4Network | None:
    """The IPv4 network that is written `a.b.c.d/length` without host bits, or None."""
    text = str(value).strip()
    try:
        return ipaddress.IPv4Network(text) if "/" in text else None
    except ValueError:
        return None


def as_address(value: Any) -> ipaddress.IPv4Address | None:
    """The IPv4 address, or None."""
    try:
        return ipaddress.IPv4Address(str(value).strip())
    except ValueError:
        return None


def _between(name: str, value: Any, limits: tuple[int, int], remedy: str) -> Iterator[str]:
    number = as_integer(value)
    if number is None or not limits[0] <= number <= limits[1]:
        yield f"{name} is {value!r}, but must be a whole number from {limits[0]} to {limits[1]}; {remedy}."


def _one_of(name: str, value: Any, allowed: Sequence[str], remedy: str) -> Iterator[str]:
    if str(value) not in allowed:
        yield f"{name} is {value!r}, but must be one of {', '.join(allowed)}; {remedy}."


# --- structure
# ------------------------------------------------------------------------------------------------------


def _groups(cluster: Cluster) -> Iterator[str]:
    if not cluster.hosts:
        yield (
            "group 'cluster' has no hosts; give it the children 'control_plane' and 'workers' with at"
            " least one control plane node."
        )
        return
    if not cluster.control_plane:
        yield "group 'control_plane' has no hosts; put exactly one host of the cluster into it."
    if len(cluster.control_plane) > 1:
        yield (
            f"group 'control_plane' has {len(cluster.control_plane)} hosts"
            f" ({', '.join(cluster.control_plane)}), but joining further "
            "control plane nodes is not supported yet; leave one there and move the others to group"
            " 'workers'."
        )
    for name in cluster.hosts:
        inside = [
            group
            for group, members in (("control_plane", cluster.control_plane), ("workers", cluster.workers))
            if name in members
        ]
        if len(inside) > 1:
            yield f"host '{name}' is in both groups 'control_plane' and 'workers'; leave it in one of them."
        if not inside:
            yield (
                f"host '{name}' is in group 'cluster' but neither in 'control_plane' nor in 'workers'; put"
                " it into one of them."
            )
    for group, members in (("control_plane", cluster.control_plane), ("workers", cluster.workers)):
        for name in members:
            if name not in cluster.hosts:
                yield (
                    f"host '{name}' is in group '{group}' but not in group 'cluster'; make '{group}' a"
                    " child of 'cluster'."
                )


def _same_everywhere(cluster: Cluster) -> Iterator[str]:
    for variable in CLUSTER_WIDE:
        values: dict[str, list[str]] = {}
        for host, settings in cluster.hosts.items():
            if variable in settings:
                values.setdefault(str(settings[variable]), []).append(host)
        if len(values) > 1:
            said = "; ".join(f"{value!r} on {', '.join(hosts)}" for value, hosts in values.items())
            yield (
                f"{variable} differs between the hosts ({said}), but the cluster has one value; set it"
                " once, for group 'cluster'."
            )


def _node_names(cluster: Cluster) -> Iterator[str]:
    seen: dict[str, str] = {}
    for host, settings in cluster.hosts.items():
        name = str(settings.get("kubernetes_node_name", host.lower()))
        if len(name) > 253 or not NODE_NAME.fullmatch(name):
            yield (
                f"kubernetes_node_name of host '{host}' is {name!r}, but a node's name has only lower case"
                " letters, digits, '-' and '.', "
                "begins and ends with a letter or digit; rename the host in the inventory or set"
                " kubernetes_node_name for it."
            )
        if name in seen:
            yield (
                f"kubernetes_node_name is {name!r} on both '{seen[name]}' and '{host}'; give each node a"
                " name of its own."
            )
        seen.setdefault(name, host)


def _node_addresses(cluster: Cluster) -> Iterator[str]:
    seen: dict[ipaddress.IPv4Address, str] = {}
    for host, settings in cluster.hosts.items():
        raw = settings.get("kubernetes_node_ip")
        if raw is None or not str(raw).strip():
            yield (
                f"kubernetes_node_ip is not set for host '{host}'; set it to the IPv4 address by which the"
                " other nodes reach this one "
                "(it must be on one of the host's links)."
            )
            continue
        address = as_address(raw)
        if address is None:
            yield (
                f"kubernetes_node_ip of host '{host}' is {raw!r}, but must be an IPv4 address without a"
                " prefix length, such as 10.30.200.1."
            )
            continue
        if (
            address.is_loopback
            or address.is_multicast
            or address.is_unspecified
            or address.is_link_local
            or address.is_reserved
        ):
            yield (
                f"kubernetes_node_ip of host '{host}' is {address}, which no other machine can reach; use"
                " an address of one of the host's links."
            )
        if address in seen:
            yield (
                f"kubernetes_node_ip is {address} on both '{seen[address]}' and '{host}'; each node needs"
                " an address of its own."
            )
        seen.setdefault(address, host)


# --- kubernetes
# -----------------------------------------------------------------------------------------------------


def _kubernetes(settings: Mapping[str, Any]) -> Iterator[str]:
    version = settings.get("kubernetes_version")
    if version is None:
        yield (
            "kubernetes_version is not set; set it to a full version, such as 1.31.4 (with a bundle: the"
            " bundle's)."
        )
    elif str(version).startswith("v"):
        yield f"kubernetes_version is {version!r}; write it without the 'v': {str(version)[1:]}."
    else:
        try:
            kube_versions.parse(str(version))
        except kube_versions.VersionError as error:
            yield str(error)
    source = settings.get("kubernetes_install_source")
    yield from _one_of(
        "kubernetes_install_source",
        source,
        INSTALL_SOURCES,
        "'packages' needs the internet, 'bundle' a bundle directory",
    )
    if source == "bundle" and not str(settings.get("kubernetes_bundle_dir") or "").strip():
        yield (
            "kubernetes_bundle_dir is empty while kubernetes_install_source is 'bundle'; set it to the"
            " bundle directory on this "
            "machine, or set kubernetes_install_source to 'packages'."
        )
    yield from _one_of(
        "kubernetes_cgroup_driver",
        settings.get("kubernetes_cgroup_driver", "auto"),
        CGROUP_DRIVERS,
        "'auto' takes what the nodes have",
    )
    yield from _endpoint(settings.get("kubernetes_api_endpoint"))


def _endpoint(value: Any) -> Iterator[str]:
    if value is None:
        return
    host, colon, port = str(value).rpartition(":")
    number = as_integer(port)
    name_ok = as_address(host) is not None or (
        NODE_NAME.fullmatch(host.lower()) is not None and not re.fullmatch(r"[\d.]+", host)
    )
    if not colon or number is None or not PORT_RANGE[0] <= number <= PORT_RANGE[1] or not name_ok:
        yield (
            f"kubernetes_api_endpoint is {value!r}, but must be host:port, such as 10.30.200.1:6443 or"
            " api.example.org:6443."
        )


# --- network
# --------------------------------------------------------------------------------------------------------


def _network(settings: Mapping[str, Any]) -> Iterator[str]:
    if "tortie_encapsulation" in settings:
        yield from _one_of(
            "tortie_encapsulation",
            settings["tortie_encapsulation"],
            ENCAPSULATIONS,
            "'none' needs a network that knows the pods' routes",
        )
    if "tortie_encapsulation_mode" in settings:
        yield from _one_of(
            "tortie_encapsulation_mode",
            settings["tortie_encapsulation_mode"],
            ENCAPSULATION_MODES,
            "'cross-subnet' encapsulates only what leaves the nodes' own subnet",
        )
    mtu = settings.get("tortie_mtu", "auto")
    if str(mtu) != "auto":
        number = as_integer(mtu)
        if number is None or not MTU_RANGE[0] <= number <= MTU_RANGE[1]:
            yield (
                f"tortie_mtu is {mtu!r}, but must be 'auto' or a number of bytes from {MTU_RANGE[0]} to"
                f" {MTU_RANGE[1]}; "
                "'auto' takes the node's link MTU minus the encapsulation's overhead."
            )
    if str(settings.get("tortie_as_number", "auto")) != "auto":
        yield from _between(
            "tortie_as_number", settings["tortie_as_number"], AS_RANGE, "64512 to 65534 are for private use"
        )
    if "tortie_ip_autodetection_method" in settings:
        yield from autodetection_problems(str(settings["tortie_ip_autodetection_method"]))


def autodetection_problems(method: str) -> Iterator[str]:
    """Mistakes in the syntax of an IP_AUTODETECTION_METHOD."""
    name = f"tortie_ip_autodetection_method is {method!r}"
    if method in ("first-found", "kubernetes-internal-ip"):
        return
    kind, equals, argument = method.partition("=")
    if not equals or kind not in ("interface", "skip-interface", "cidr", "can-reach"):
        yield (
            f"{name}, but must be first-found, kubernetes-internal-ip, interface=<regex,...>,"
            " skip-interface=<regex,...>, "
            "cidr=<cidr,...> or can-reach=<host>; interface=eth0 takes the address of eth0."
        )
        return
    items = [item.strip() for item in argument.split(",")]
    if not all(items):
        yield (
            f"{name}, but has an empty item after '{kind}='; write the"
            f" {'host' if kind == 'can-reach' else 'list'} without gaps."
        )
        return
    if kind in ("interface", "skip-interface"):
        for item in items:
            try:
                re.compile(item)
            except re.error as error:
                yield (
                    f"{name}, but {item!r} is not a regular expression ({error}); write for example"
                    f" {kind}=eth.*."
                )
    if kind == "cidr":
        for item in items:
            if as_network(item) is None:
                yield f"{name}, but {item!r} is not an IPv4 network; write for example cidr=10.30.200.0/24."
    if kind == "can-reach" and len(items) != 1:
        yield (
            f"{name}, but can-reach takes one host; keep the one whose route leaves through the nodes' link."
        )


def _ranges(cluster: Cluster) -> Iterator[str]:
    settings = cluster.shared
    service, sentences = _service_range(settings)
    yield from sentences
    pool, sentences = _pool_range(settings, len(cluster.hosts))
    yield from sentences
    if service is not None and pool is not None and service.overlaps(pool):
        yield (
            f"tortie_ipv4pool_cidr {pool} overlaps kubernetes_service_cidr {service}; addresses of pods and"
            " of services must be apart, "
            "choose another range for one of them."
        )
    for host, node in cluster.hosts.items():
        address = as_address(node.get("kubernetes_node_ip", ""))
        if address is None:
            continue
        for name, network in (("tortie_ipv4pool_cidr", pool), ("kubernetes_service_cidr", service)):
            if network is not None and address in network:
                yield (
                    f"kubernetes_node_ip {address} of host '{host}' lies inside {name} {network}; traffic"
                    " to the node would be taken for "
                    f"{'a pod' if name.startswith('tortie') else 'a service'}, choose another range for"
                    f" {name}."
                )


def _service_range(settings: Mapping[str, Any]) -> tuple[ipaddress.IPv4Network | None, list[str]]:
    value = settings.get("kubernetes_service_cidr")
    network = as_network(value)
    if network is None:
        return None, [_not_a_network("kubernetes_service_cidr", value, "10.96.0.0/12")]
    low, high = SERVICE_PREFIX_RANGE
    if not low <= network.prefixlen <= high:
        return network, [
            f"kubernetes_service_cidr is {network}, but its prefix length must be from {low} to {high}; the"
            " API server keeps a bit for "
            "each address and needs at least eight."
        ]
    return network, []


def _pool_range(settings: Mapping[str, Any], nodes: int) -> tuple[ipaddress.IPv4Network | None, list[str]]:
    if "tortie_ipv4pool_cidr" not in settings:
        return None, []
    value = settings["tortie_ipv4pool_cidr"]
    network = as_network(value)
    if network is None:
        return None, [_not_a_network("tortie_ipv4pool_cidr", value, "10.5.0.0/16")]
    found = list(
        _between(
            "tortie_ipv4pool_block_size",
            settings.get("tortie_ipv4pool_block_size", 26),
            BLOCK_SIZE_RANGE,
            "26 gives every block 64 addresses",
        )
    )
    if found:
        return network, found
    block = as_integer(settings.get("tortie_ipv4pool_block_size", 26)) or 26
    if network.prefixlen > block:
        found.append(
            f"tortie_ipv4pool_cidr is {network}, which is smaller than one block of /{block}"
            " (tortie_ipv4pool_block_size); "
            f"choose a pool of /{block} or larger, or smaller blocks."
        )
    elif 2 ** (block - network.prefixlen) < nodes:
        blocks = 2 ** (block - network.prefixlen)
        found.append(
            f"tortie_ipv4pool_cidr {network} holds {blocks} block(s) of /{block}"
            f" (tortie_ipv4pool_block_size), but the cluster has {nodes} "
            "nodes and each needs one; choose a larger pool or smaller blocks."
        )
    return network, found


def _not_a_network(name: str, value: Any, example: str) -> str:
    text = str(value).strip()
    try:
        right = ipaddress.ip_interface(text).network
    except ValueError:
        right = None
    if isinstance(right, ipaddress.IPv4Network) and "/" in text:
        return f"{name} is {value!r}, which has bits set beyond its prefix length; write {right}."
    return f"{name} is {value!r}, but must be an IPv4 network, such as {example}."


def _booleans(cluster: Cluster) -> Iterator[str]:
    for name in BOOLEANS:
        for host, settings in cluster.hosts.items():
            if name in settings and as_boolean(settings[name]) is None:
                yield f"{name} is {settings[name]!r} on host '{host}', but must be true or false."
                break
