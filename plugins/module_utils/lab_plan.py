"""The container lab as data: names, addresses, files. Pure: nothing here touches the machine.

A lab named `tortie` with the node `master-01` at 10.30.200.1 is

- the network namespace `tortie-sw` with bridge br0, the nodes' gateway, and one bridge port per node;
- the network namespace and the podman container `tortie-master-01`; the namespace's eth0 is the node's link;
- the folder LAB_DIR with keys, ssh_config and the nodes' volumes, and /run/tortie-lab/tortie with what must
  not outlive a boot.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# linux/if.h: IFNAMSIZ is 16 with the terminating NUL.
INTERFACE_NAME_LENGTH = 15
# linux/un.h: sun_path is 108 bytes with the terminating NUL; ssh appends a dot and 16 characters while it
# creates the socket of a shared connection (OpenSSH mux.c).
SOCKET_PATH_LENGTH = 107
SSH_SOCKET_SUFFIX = 17

BRIDGE = "br0"
NODE_LINK = "eth0"
LINK_MTU = 1500

RUN_ROOT = Path("/run/tortie-lab")
NETNS_ROOT = Path("/run/netns")

# Directories that need a real file system below them: overlayfs does not stack on the container's own.
VOLUMES = ("containerd", "kubelet", "etcd")

_LAB_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9-]{0,15}$")
_HOST_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")


class PlanError(ValueError):
    """The lab cannot be as asked for; the message names variable, value and remedy."""


@dataclass(frozen=True)
class Node:
    """One machine: its host name, and its IPv4 address on the lab's network."""

    name: str
    address: str

    @property
    def port(self) -> str:
        """The node's bridge port: `p` and the address in hexadecimal, always within IFNAMSIZ."""
        return f"p{int(ipaddress.IPv4Address(self.address)):08x}"


@dataclass(frozen=True)
class Lab:
    """A lab: its name, its folder, its network and its nodes. `gateway` is a CIDR: the bridge's address."""

    name: str
    directory: Path
    gateway: ipaddress.IPv4Interface
    nodes: tuple[Node, ...]

    @property
    def switch(self) -> str:
        """The namespace of the bridge."""
        return self.name + "-sw"

    @property
    def run_dir(self) -> Path:
        """What belongs to the running lab only: owner mark, node marks, ssh sockets."""
        return RUN_ROOT / self.name

    @property
    def ssh_config(self) -> Path:
        """The ssh configuration that reaches the nodes."""
        return self.directory / "ssh_config"

    def namespace(self, node: str) -> str:
        """The network namespace, and the container, of a node."""
        return self.name + "-" + node

    def volume_dir(self, node: str) -> Path:
        """Where a node's volumes and host key lie."""
        return self.directory / "nodes" / node


def lab_from_params(params: dict[str, Any]) -> Lab:
    """The lab that a module's parameters (LAB_ARGUMENTS) describe; PlanError when they do not fit."""
    name = params["name"]
    if not _LAB_NAME.match(name):
        raise PlanError(
            f"LAB_NAME is {name!r}; it must be 1 to 16 letters, digits and hyphens and start with a letter, "
            "because it prefixes the names of namespaces and containers."
        )
    directory = Path(params["directory"])
    if not directory.is_absolute():
        raise PlanError(f"LAB_DIR is {str(directory)!r}; give an absolute path.")
    gateway = ipaddress.IPv4Interface(params["gateway"])
    lab = Lab(name, directory, gateway, tuple(Node(n["name"], n["address"]) for n in params["nodes"]))
    _check_nodes(lab)
    longest = max((len(str(control_path(lab, node.name))) for node in lab.nodes), default=0)
    if longest + SSH_SOCKET_SUFFIX > SOCKET_PATH_LENGTH:
        raise PlanError(
            f"LAB_NAME {name!r} with these host names makes ssh's socket path longer than "
            f"{SOCKET_PATH_LENGTH} bytes; choose shorter names."
        )
    return lab


def _check_nodes(lab: Lab) -> None:
    seen: dict[str, str] = {str(lab.gateway.ip): "the lab's gateway"}
    network = lab.gateway.network
    for node in lab.nodes:
        if not _HOST_NAME.match(node.name) or node.name == "sw":
            raise PlanError(
                f"host {node.name!r} cannot be a lab node: use 1 to 40 lower-case letters, digits "
                "and hyphens, and not 'sw'."
            )
        try:
            address = ipaddress.IPv4Address(node.address)
        except ValueError as error:
            raise PlanError(
                f"kubernetes_node_ip of {node.name} is {node.address!r}, which is no IPv4 address."
            ) from error
        if address not in network or address in (network.network_address, network.broadcast_address):
            raise PlanError(
                f"kubernetes_node_ip of {node.name} is {address}, which is no host address of the lab's "
                f"network {network}; choose one there, or set LAB_GATEWAY (address/prefix) to another one."
            )
        if str(address) in seen:
            raise PlanError(
                f"kubernetes_node_ip of {node.name} is {address}, which {seen[str(address)]} has already."
            )
        seen[str(address)] = node.name


def control_path(lab: Lab, node: str) -> Path:
    """The socket of ssh's shared connection: in /run, as a checkout's path may be too long for a socket."""
    return lab.run_dir / f"ssh-{node}"


def render_ssh_config(lab: Lab) -> str:
    """ssh_config(5) for the lab: every node by name and by address, through the switch's namespace."""
    blocks = [
        f"# Lab {lab.name}: ssh -F {lab.ssh_config} <node>\n"
        "Host *\n"
        "  User root\n"
        f'  IdentityFile "{lab.directory}/ssh/id_ed25519"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{lab.directory}/ssh/known_hosts"\n'
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        f"  ProxyCommand nsenter --net={NETNS_ROOT / lab.switch} socat - TCP:%h:%p\n"
        "  ControlMaster auto\n"
        "  ControlPersist 60s\n"
        "  ServerAliveInterval 15\n"
        "  LogLevel ERROR\n"
    ]
    blocks += [
        f"Host {node.name} {node.address}\n"
        f"  HostName {node.address}\n"
        f"  HostKeyAlias {node.name}\n"
        f"  ControlPath {control_path(lab, node.name)}\n"
        for node in lab.nodes
    ]
    return "\n".join(blocks)


def container_spec(lab: Lab, node: Node) -> dict[str, Any]:
    """What a container must have been made with to be kept. Not the image: a newer one is for new nodes."""
    return {
        "address": node.address,
        "directory": str(lab.directory),
        "namespace": lab.namespace(node.name),
    }


def spec_digest(spec: dict[str, Any]) -> str:
    """A short name for a spec, to stand in a label."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def run_arguments(lab: Lab, node: Node, image: str, modules: bool) -> list[str]:
    """`podman` arguments that start a node in its namespace (which exists already).

    `modules` says whether the machine has /lib/modules: then a node can load what the kernel lacks.
    """
    name = lab.namespace(node.name)
    volumes = lab.volume_dir(node.name)
    arguments = ["run", "--detach", "--name", name, "--hostname", node.name]
    arguments += ["--label", f"tortie.lab={lab.name}", "--label", f"tortie.node={node.name}"]
    arguments += ["--label", f"tortie.spec={spec_digest(container_spec(lab, node))}"]
    # A machine of its own: all capabilities and devices, its own cgroup root, systemd as its first process.
    arguments += ["--privileged", "--systemd=always", "--cgroupns=private", "--no-hosts"]
    arguments += [f"--network=ns:{NETNS_ROOT / name}"]
    arguments += [f"--volume={volumes / volume}:/var/lib/{volume}" for volume in VOLUMES]
    arguments += [f"--volume={volumes / 'ssh'}:/etc/ssh/lab:ro"]
    if modules:
        arguments += ["--volume=/lib/modules:/lib/modules:ro"]
    return [*arguments, image]


# The parameters that every module of the lab shares.
LAB_ARGUMENTS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "directory": {"type": "path", "required": True},
    "gateway": {"type": "str", "default": "10.30.200.254/24"},
    "nodes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
        },
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
