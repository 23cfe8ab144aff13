"""The lab's network: observe namespaces and links, compute the commands that are missing, run them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import (
    CommandError,
    is_mount_point,
    run,
)
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    BRIDGE,
    LINK_MTU,
    NETNS_ROOT,
    NODE_LINK,
    RUN_ROOT,
    Lab,
    Node,
    PlanError,
)

# Seconds after the last `make up` from which a lab without any process counts as abandoned: until then its
# machines may be about to start.
ABANDONED_AFTER = 600.0

# The bridge must carry the nodes' packets as they are: with br_netfilter loaded, the switch's own namespace
# would pass them through iptables.
BRIDGE_SETTINGS = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


@dataclass(frozen=True)
class Link:
    """A network device. Addresses are CIDRs; `master` is the bridge it is a port of, or empty."""

    name: str
    up: bool
    mtu: int
    master: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Namespace:
    """What a namespace holds: devices by name, gateways of the default routes, settings that are not 0."""

    links: dict[str, Link] = field(default_factory=dict)
    gateways: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def missing_commands(lab: Lab, observed: dict[str, Namespace | None]) -> list[list[str]]:
    """The commands, in order, that turn what is observed into the lab's network; none when it is complete."""
    commands = _switch_commands(lab, observed.get(lab.switch))
    switch = observed.get(lab.switch) or Namespace()
    for node in lab.nodes:
        commands += _node_commands(lab, node, observed.get(lab.namespace(node.name)), switch)
    return commands


def _switch_commands(lab: Lab, current: Namespace | None) -> list[list[str]]:
    name = lab.switch
    commands = [] if current is not None else _new_namespace(name)
    current = current or Namespace()
    bridge = current.links.get(BRIDGE)
    if bridge is None:
        commands.append(
            _ip(name, "link", "add", BRIDGE, "mtu", str(LINK_MTU), "type", "bridge", "forward_delay", "0")
        )
    if bridge is None or str(lab.gateway) not in bridge.addresses:
        commands.append(_ip(name, "address", "add", str(lab.gateway), "dev", BRIDGE))
    if bridge is None or not bridge.up:
        commands.append(_ip(name, "link", "set", BRIDGE, "up"))
    for setting in current.settings:
        commands.append(["ip", "netns", "exec", name, "sysctl", "-qw", f"net.bridge.{setting}=0"])
    return commands


def _node_commands(lab: Lab, node: Node, current: Namespace | None, switch: Namespace) -> list[list[str]]:
    name = lab.namespace(node.name)
    commands = [] if current is not None else _new_namespace(name)
    current = current or Namespace()
    link = current.links.get(NODE_LINK)
    port = switch.links.get(node.port)
    if link is None or port is None:
        # Half a cable cannot stay: deleting either end of a veth pair deletes both.
        if port is not None:
            commands.append(_ip(lab.switch, "link", "delete", node.port))
        if link is not None:
            commands.append(_ip(name, "link", "delete", NODE_LINK))
        mtu = str(LINK_MTU)
        cable = _ip(name, "link", "add", NODE_LINK, "mtu", mtu, "type", "veth")
        cable += ["peer", "name", node.port, "mtu", mtu, "netns", lab.switch]
        commands.append(cable)
        link = port = None
    if port is None or port.master != BRIDGE:
        commands.append(_ip(lab.switch, "link", "set", node.port, "master", BRIDGE))
    if port is None or not port.up:
        commands.append(_ip(lab.switch, "link", "set", node.port, "up"))
    address = f"{node.address}/{lab.gateway.network.prefixlen}"
    if link is None or address not in link.addresses:
        commands.append(_ip(name, "address", "add", address, "dev", NODE_LINK))
    if link is not None and link.mtu != LINK_MTU:
        commands.append(_ip(name, "link", "set", NODE_LINK, "mtu", str(LINK_MTU)))
    if link is None or not link.up:
        commands.append(_ip(name, "link", "set", NODE_LINK, "up"))
    if link is None or str(lab.gateway.ip) not in current.gateways:
        commands.append(_ip(name, "route", "replace", "default", "via", str(lab.gateway.ip)))
    return commands


def _new_namespace(name: str) -> list[list[str]]:
    return [["ip", "netns", "add", name], _ip(name, "link", "set", "lo", "up")]


def _ip(namespace: str, *arguments: str) -> list[str]:
    return ["ip", "-n", namespace, *arguments]


def namespace_exists(name: str) -> bool:
    """Whether /run/netns/<name> is a namespace; a plain file there is what a killed `ip netns add` leaves."""
    try:
        return (NETNS_ROOT / name).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def observe(lab: Lab) -> dict[str, Namespace | None]:
    """The lab's namespaces as they are now."""
    names = [lab.switch, *(lab.namespace(node.name) for node in lab.nodes)]
    return {name: _observe_namespace(name, bridge=name == lab.switch) for name in names}


def _observe_namespace(name: str, bridge: bool) -> Namespace | None:
    if not namespace_exists(name):
        return None
    links = {}
    for entry in json.loads(run(["ip", "-n", name, "-j", "address", "show"]) or "[]"):
        if not entry:
            continue
        links[entry["ifname"]] = Link(
            name=entry["ifname"],
            up="UP" in entry["flags"],
            mtu=entry["mtu"],
            master=entry.get("master", ""),
            addresses=tuple(f"{a['local']}/{a['prefixlen']}" for a in entry["addr_info"]),
        )
    routes = json.loads(run(["ip", "-n", name, "-j", "-4", "route", "show", "default"]) or "[]")
    gateways = tuple(route["gateway"] for route in routes if "gateway" in route)
    settings = _bridge_settings(name) if bridge else ()
    return Namespace(links, gateways, settings)


def _bridge_settings(namespace: str) -> tuple[str, ...]:
    """Those of BRIDGE_SETTINGS that are on in a namespace; none when br_netfilter is not loaded."""
    names = [f"net.bridge.{setting}" for setting in BRIDGE_SETTINGS]
    answer = run(["ip", "netns", "exec", namespace, "sysctl", "-e", *names])
    on = [line.split("=")[0].strip() for line in answer.splitlines() if line.split("=")[1].strip() != "0"]
    return tuple(name[len("net.bridge.") :] for name in on)


@contextmanager
def exclusive(lab: Lab, timeout: float = 180.0) -> Iterator[None]:
    """Keep other modules off this lab: one may outlive the ansible-playbook that was killed.

    The kernel drops the lock with its holder. CommandError when it is still held after `timeout` seconds.
    """
    folder = RUN_ROOT / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / lab.name).open("w") as handle:

        def taken() -> bool:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        wait_for(taken, timeout, f"another run on lab {lab.name} to end")
        yield


def claim(lab: Lab) -> None:
    """Mark the name as this folder's and the nodes as the lab's; PlanError when another folder has it.

    What the name's former lab left (namespaces, marks, sockets) is removed first.
    """
    refuse_if_owned_by_other(lab)
    if _owner(lab) not in ("", str(lab.directory)):
        for name in existing_namespaces(lab):
            delete_namespace(name)
        _remove_marks(lab)
    lab.run_dir.mkdir(parents=True, exist_ok=True)
    _owner_file(lab).write_text(str(lab.directory))
    for node in lab.nodes:
        (lab.run_dir / f"node-{node.name}").touch()


def refuse_if_owned_by_other(lab: Lab) -> None:
    """PlanError when the lab's name belongs to another folder."""
    if owned_by_other(lab):
        raise PlanError(
            f"LAB_NAME {lab.name!r} is in use by the lab in {_owner(lab)}; destroy that one "
            "(`make down` there), or set LAB_NAME to another name."
        )


def owned_by_other(lab: Lab) -> bool:
    """Whether the lab's name belongs to another folder that is still there and whose lab is alive.

    Without its folder a lab can be neither reached nor destroyed, and one whose processes have all been
    killed is nobody's work any more: the name then goes to whoever asks.
    """
    owner = _owner(lab)
    return owner not in ("", str(lab.directory)) and Path(owner).is_dir() and not _abandoned(lab)


def _abandoned(lab: Lab) -> bool:
    """Whether nothing runs in the lab's namespaces, and nobody has been making it for a while."""
    if time.time() - _owner_file(lab).stat().st_mtime < ABANDONED_AFTER:
        return False
    return not any(processes_in(name) for name in existing_namespaces(lab) if namespace_exists(name))


def _owner(lab: Lab) -> str:
    """The folder that has the lab's name, or nothing."""
    file = _owner_file(lab)
    return file.read_text() if file.exists() else ""


def _owner_file(lab: Lab) -> Path:
    return lab.run_dir / "directory"


def remove_broken_namespaces(lab: Lab) -> None:
    """Delete the files that a killed `ip netns add` left in place of the lab's namespaces."""
    for name in [lab.switch, *(lab.namespace(node.name) for node in lab.nodes)]:
        path = NETNS_ROOT / name
        if path.exists() and not namespace_exists(name):
            path.unlink()


def known_nodes(lab: Lab) -> list[str]:
    """Names of nodes that the lab has or had: those of the inventory and those marked by `claim`."""
    marked = [path.name[len("node-") :] for path in lab.run_dir.glob("node-*")]
    return sorted({*marked, *(node.name for node in lab.nodes)})


def existing_namespaces(lab: Lab) -> list[str]:
    """Names below /run/netns that belong to the lab: whole or half-made."""
    names = [*(lab.namespace(node) for node in known_nodes(lab)), lab.switch]
    return [name for name in names if (NETNS_ROOT / name).exists()]


def processes_in(namespace: str) -> list[int]:
    """Process ids inside a network namespace."""
    return [int(pid) for pid in run(["ip", "netns", "pids", namespace]).split()]


def end_processes_in(namespace: str, timeout: float = 10.0) -> None:
    """Kill what runs in a namespace of the lab (ssh proxies, tests' helpers) and would keep it alive."""

    def empty() -> bool:
        pids = processes_in(namespace)
        for pid in pids:
            if pid != os.getpid():
                _kill(pid)
        return not pids

    wait_for(empty, timeout, f"processes in namespace {namespace} to end")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_for(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll `condition`; CommandError naming `what` when it stays false for `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise CommandError(f"Gave up waiting for {what} after {timeout:.0f} s.")
        time.sleep(0.05)


def delete_namespace(name: str) -> None:
    """Delete a namespace of the lab with everything in it, whole or half-made."""
    if namespace_exists(name):
        end_processes_in(name)
        run(["ip", "netns", "delete", name])
    else:
        (NETNS_ROOT / name).unlink()


def release(lab: Lab) -> None:
    """Remove the lab's marks and sockets, and the mount of /run/netns when nobody has a namespace there."""
    _remove_marks(lab)
    if _unused_mount(NETNS_ROOT):
        try:
            run(["umount", str(NETNS_ROOT)])
        except CommandError:
            # Busy because somebody has just made a namespace: then the mount is theirs.
            if _unused_mount(NETNS_ROOT):
                raise


def _remove_marks(lab: Lab) -> None:
    if lab.run_dir.is_dir():
        for path in lab.run_dir.iterdir():
            # An ssh process that has just ended removes its socket itself.
            path.unlink(missing_ok=True)
        lab.run_dir.rmdir()


def _unused_mount(path: Path) -> bool:
    return path.is_dir() and is_mount_point(path) and not any(path.iterdir())
