# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Compare what the nodes are (module host_probe) with what the inventory asks of them: facts and settings
in, sentences out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils import bundle
from ansible_collections.tortie.cluster.plugins.module_utils.validation import (
    TUNNEL_OVERHEAD,
    as_address,
    as_boolean,
    as_integer,
    as_network,
)

OLDEST_PYTHON = (3, 9)
OLDEST_KERNEL = (4, 18)  # EL8's; kubeadm's own list begins at 3.10, nftables sets as we use them at 4.18
ARCHITECTURES = ("x86_64", "aarch64")
CLOCK_SECONDS = (
    120  # certificates are valid from the moment they are made: a node that is behind refuses them
)

# TCP ports by use (kubeadm's documentation; 179 is BGP, RFC 4271; 9099 the agent's health port).
CONTROL_PLANE_PORTS = (6443, 2379, 2380, 10250, 10257, 10259, 179, 9099)
WORKER_PORTS = (10250, 179, 9099)
# /proc/<pid>/comm, which ends after 15 characters, of the programs that we start on these ports.
OWN_PROGRAMS = frozenset(
    {"kube-apiserver", "etcd", "kubelet", "kube-controller", "kube-scheduler", "bird", "tortie-agent"}
)
AGENT_PORT = 9099
AGENT_INTERPRETER = "python3"  # the agent's name when it is started by its interpreter

# Which of a machine's links first-found never takes (Calico's exclusion list): they are made by container
# engines and networks.
NOT_UPLINKS = re.compile(
    r"docker|cbr|dummy|podman|virbr|lxcbr|veth|lo$|br-|cali|tunl|flannel|kube-ipvs|cni|vxlan\.calico|wireguard\.cali|nodelocaldns"
)


def host_problems(
    name: str, facts: Mapping[str, Any], settings: Mapping[str, Any], control_plane: bool
) -> list[str]:
    """What keeps this host from becoming a node, one sentence each."""
    found = list(_machine(name, facts, settings, control_plane))
    if facts.get("ip_command", True):
        found += _addresses(name, facts, settings)
        found += _encapsulation(name, facts, settings)
        found += _mtu(name, facts, settings)
        found += _autodetection(name, facts, settings)
    found += _ports(name, facts, control_plane)
    return found


def cluster_problems(
    facts_by_host: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> Iterator[str]:
    """What keeps hosts that are fine alone from being one cluster."""
    if str(settings.get("kubernetes_cgroup_driver", "auto")) == "auto":
        drivers: dict[str, list[str]] = {}
        for host, facts in facts_by_host.items():
            drivers.setdefault(str(facts["cgroup"]["driver"]), []).append(host)
        if len(drivers) > 1:
            said = "; ".join(f"{driver} on {', '.join(hosts)}" for driver, hosts in sorted(drivers.items()))
            yield (
                f"the hosts suit different cgroup drivers ({said}), but kubelet's configuration is one for"
                " all; set kubernetes_cgroup_driver."
            )


def unreachable_problem(name: str, address: str, message: str) -> str:
    """The sentence for a host to which there is no connection."""
    reason = " ".join(message.replace("Task failed:", "").split())
    return (
        f"host '{name}' ({address}) cannot be reached: {reason.rstrip('.')}. Check that the machine is up"
        " and that ansible_host, "
        "ansible_user and the ssh key are right, or take the host out of the inventory."
    )


def failed_probe_problem(name: str, message: str, errors: str) -> str:
    """The sentence for a host that answers but cannot run our modules."""
    reason = " ".join(f"{message} {errors}".split())[-400:]
    return (
        f"host '{name}' cannot be looked at: {reason.rstrip('.')}. It needs Python 3.9 or newer"
        " (ansible_python_interpreter names"
        " another than the usual one) and a user who may become root (ansible_become)."
    )


def architecture_problem(name: str, facts: Mapping[str, Any], wanted: str) -> Iterator[str]:
    """A sentence when the bundle is for another architecture (Go's name; empty: no bundle)."""
    own = bundle.architecture_of(str(facts["architecture"]))
    if wanted and own != wanted:
        yield (
            f"host '{name}': it is an {own} machine, but the bundle (kubernetes_bundle_dir) is for {wanted};"
            f" make a bundle for {own}."
        )


def clock_problem(name: str, seconds: float) -> str | None:
    """A sentence when the host's clock is `seconds` away from the controller's."""
    if abs(seconds) <= CLOCK_SECONDS:
        return None
    way = "ahead of" if seconds > 0 else "behind"
    return (
        f"host '{name}': its clock is {abs(seconds):.0f} seconds {way} this machine's; set it (chrony,"
        " systemd-timesyncd), certificates depend on it."
    )


def _machine(
    name: str, facts: Mapping[str, Any], settings: Mapping[str, Any], control_plane: bool
) -> Iterator[str]:
    if not facts["root"]:
        yield f"host '{name}': the tasks do not run as root; log in as root or set ansible_become to true."
    if _numbers(facts["python"]) < OLDEST_PYTHON:
        yield (
            f"host '{name}': Python {facts['python']} is too old, 3.9 is needed; install a newer one and"
            " set ansible_python_interpreter."
        )
    if _numbers(facts["kernel"]) < OLDEST_KERNEL:
        yield (
            f"host '{name}': kernel {facts['kernel']} is too old, 4.18 is needed; upgrade the operating"
            " system."
        )
    if facts["architecture"] not in ARCHITECTURES:
        yield (
            f"host '{name}': architecture {facts['architecture']} is not supported, only"
            f" {' and '.join(ARCHITECTURES)} are."
        )
    if facts["os_family"] not in ("Debian", "RedHat"):
        yield (
            f"host '{name}': {facts['distribution']} belongs to neither the Debian nor the Red Hat family;"
            " use one of these."
        )
    if not facts["systemd"]:
        yield (
            f"host '{name}': systemd does not run it, but kubelet and containerd are systemd services; boot"
            " it with systemd."
        )
    if not facts["ip_command"]:
        yield (
            f"host '{name}': the command ip is missing; install package iproute2 (Debian, Ubuntu) or"
            " iproute (Red Hat family)."
        )
    for feature, state in sorted(facts["features"].items()):
        if state == "absent":
            yield (
                f"host '{name}': kernel {facts['kernel']} has no {feature}, which containers need; install"
                " the package with the kernel's "
                "further modules (kernel-modules-extra, linux-modules-extra) or boot another kernel."
            )
    kind = "control_plane" if control_plane else "worker"
    for variable, fact, what in (
        (f"preflight_min_memory_mib_{kind}", "memory_mib", "memory"),
        ("preflight_min_disk_mib", "free_mib", "free disk space under /var/lib"),
    ):
        least = as_integer(settings.get(variable, 0)) or 0
        if int(facts[fact]) < least:
            yield (
                f"host '{name}': it has {facts[fact]} MiB of {what}, less than {variable} ({least}); give"
                " it more, or lower the limit."
            )


def _addresses(name: str, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    address = as_address(settings.get("kubernetes_node_ip", ""))
    if address is not None and uplink(facts, str(address)) is None:
        yield (
            f"host '{name}': kubernetes_node_ip {address} is not on any of its links ({_described(facts)});"
            " set it to one of these addresses."
        )
    for variable in ("tortie_ipv4pool_cidr", "kubernetes_service_cidr"):
        network = as_network(settings.get(variable, ""))
        for link in facts["links"]:
            if network is None or _is_own(str(link["name"])):
                continue
            for text in link["addresses"]:
                subnet = ipaddress.IPv4Interface(text).network
                if subnet.overlaps(network):
                    yield (
                        f"host '{name}': {variable} {network} overlaps {subnet} of link {link['name']};"
                        f" choose another range for {variable}."
                    )


def _encapsulation(name: str, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    wanted = str(settings.get("tortie_encapsulation", "none"))
    if facts["tunnels"].get(wanted) != "absent":
        return
    able = [kind for kind, state in facts["tunnels"].items() if state != "absent"]
    instead = (
        f"set tortie_encapsulation to {' or '.join([*able, 'none'])}"
        if able
        else "set tortie_encapsulation to none"
    )
    yield (
        f"host '{name}': kernel {facts['kernel']} has no {wanted} (neither built in nor as a module), but"
        f" tortie_encapsulation is '{wanted}'; "
        f"{instead}, or boot a kernel that has {wanted}."
    )


def _mtu(name: str, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    mtu = as_integer(settings.get("tortie_mtu", "auto"))
    link = uplink(facts, str(settings.get("kubernetes_node_ip", "")))
    kind = str(settings.get("tortie_encapsulation", "none"))
    overhead = TUNNEL_OVERHEAD.get(kind)
    if mtu is None or link is None or overhead is None:
        return
    largest = int(link["mtu"]) - overhead
    if mtu > largest:
        minus = f" minus {overhead} for {kind}" if overhead else ""
        yield (
            f"host '{name}': tortie_mtu {mtu} is above {largest}, which is the MTU {link['mtu']} of link"
            f" {link['name']}{minus}; "
            f"set tortie_mtu to {largest} or less, or to 'auto'."
        )


def _autodetection(name: str, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """interface=, skip-interface= and cidr= must leave an address, and the one that they choose must be the
    node's own.
    """
    method = str(settings.get("tortie_ip_autodetection_method", "first-found"))
    kind, _equals, argument = method.partition("=")
    items = [item.strip() for item in argument.split(",") if item.strip()]
    links = [link for link in facts["links"] if _usable(link)]
    try:
        if kind == "interface":
            left = [link for link in links if any(re.search(item, link["name"]) for item in items)]
        elif kind in ("first-found", "skip-interface"):
            left = [
                link
                for link in links
                if not NOT_UPLINKS.match(link["name"])
                and not any(re.search(item, link["name"]) for item in items)
            ]
        elif kind == "cidr":
            networks = [network for network in map(as_network, items) if network is not None]
            left = [
                link
                for link in links
                if any(
                    ipaddress.IPv4Interface(a).ip in network
                    for a in link["addresses"]
                    for network in networks
                )
            ]
        else:
            return
    except re.error:
        return  # the syntax was judged with the inventory
    if not left:
        yield (
            f"host '{name}': tortie_ip_autodetection_method '{method}' matches no link with an address; its"
            f" links are {_described(facts)}. "
            "Set tortie_ip_autodetection_method to match the link that carries kubernetes_node_ip."
        )
        return
    own = str(settings.get("kubernetes_node_ip", ""))
    if (
        not any(own == str(ipaddress.IPv4Interface(a).ip) for link in left for a in link["addresses"])
        and uplink(facts, own) is not None
    ):
        chosen = ", ".join(str(link["name"]) for link in left)
        yield (
            f"host '{name}': tortie_ip_autodetection_method '{method}' chooses link {chosen}, but"
            f" kubernetes_node_ip {own} is on "
            f"{(uplink(facts, own) or {}).get('name')}; make both name the same link."
        )


def _ports(name: str, facts: Mapping[str, Any], control_plane: bool) -> Iterator[str]:
    for port in CONTROL_PLANE_PORTS if control_plane else WORKER_PORTS:
        owner = facts["ports"].get(str(port))
        own = owner in OWN_PROGRAMS or (port == AGENT_PORT and owner == AGENT_INTERPRETER)
        if owner is not None and not own:
            who = f"program '{owner}'" if owner else "somebody"
            yield (
                f"host '{name}': {who} listens on TCP port {port}, which the node needs; stop it or move it"
                " to another port."
            )


def uplink(facts: Mapping[str, Any], address: str) -> Mapping[str, Any] | None:
    """The link that carries the address, or None."""
    for link in facts["links"]:
        if any(str(ipaddress.IPv4Interface(text).ip) == address for text in link["addresses"]):
            return dict(link)
    return None


def swap_wanted_off(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether swap is ours to switch off: not when the inventory says no, and not in a container, whose swap
    is the host's.
    """
    return bool(as_boolean(settings.get("node_manage_swap", True))) and not facts["container"]


def _usable(link: Mapping[str, Any]) -> bool:
    return bool(link["up"]) and any(
        not (ip.is_loopback or ip.is_link_local)
        for ip in (ipaddress.IPv4Interface(text).ip for text in link["addresses"])
    )


def _is_own(link: str) -> bool:
    return link in ("tunl0", "vxlan.calico") or link.startswith("cali") or link == "kube-ipvs0"


def _described(facts: Mapping[str, Any]) -> str:
    links: Sequence[Mapping[str, Any]] = [link for link in facts["links"] if not _is_own(str(link["name"]))]
    return (
        ", ".join(f"{link['name']} ({', '.join(link['addresses']) or 'no address'})" for link in links)
        or "none"
    )


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)
