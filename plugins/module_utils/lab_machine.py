"""The lab's machines: podman containers that run systemd."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ansible_collections.tortie.cluster.plugins.module_utils.lab_access import wipe_volumes
from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import (
    CommandError,
    is_mount_point,
    run,
)
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    NETNS_ROOT,
    VOLUMES,
    Lab,
    Node,
    container_spec,
    run_arguments,
    spec_digest,
)

# Answers of `systemctl is-system-running` that mean that booting is over (systemctl(1)).
BOOTED = ("running", "degraded")


@dataclass(frozen=True)
class Container:
    """A container of the lab. `pid` is 0 unless it runs; `network`: inode of its network namespace."""

    name: str
    node: str
    running: bool
    spec: str
    pid: int
    network: int


def containers(lab: Lab) -> dict[str, Container]:
    """The lab's containers by node name."""
    listing = run(["podman", "ps", "--all", "--filter", f"label=tortie.lab={lab.name}", "--format", "json"])
    found = {}
    for entry in json.loads(listing or "[]"):
        labels = entry["Labels"]
        running = entry["State"] == "running"
        pid = int(entry["Pid"]) if running else 0
        node = labels["tortie.node"]
        found[node] = Container(
            entry["Names"][0], node, running, labels.get("tortie.spec", ""), pid, _network_inode(pid)
        )
    return found


def _network_inode(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino if pid else 0
    except FileNotFoundError:
        return 0


def action_for(lab: Lab, node: Node, container: Container | None, namespace: int) -> str:
    """What a node needs: `create`, `recreate`, `start`, `restart`, or nothing (an empty string).

    `namespace` is the inode of the node's network namespace now: a container that runs in another one lost
    its network when the namespace was made anew.
    """
    if container is None:
        return "create"
    if container.spec != spec_digest(container_spec(lab, node)):
        return "recreate"
    if not container.running:
        return "start"
    return "" if container.network == namespace else "restart"


def planned_actions(lab: Lab) -> dict[str, str]:
    """Action by node name, for the nodes that need one."""
    found = containers(lab)
    actions = {}
    for node in lab.nodes:
        path = NETNS_ROOT / lab.namespace(node.name)
        inode = path.stat().st_ino if path.exists() else 0
        action = action_for(lab, node, found.get(node.name), inode)
        if action:
            actions[node.name] = action
    return actions


def apply(lab: Lab, node: Node, action: str, image: str) -> None:
    """Carry out an action of `action_for`."""
    name = lab.namespace(node.name)
    if action == "restart":
        run(["podman", "kill", name])
        run(["podman", "wait", name])
    if action in ("start", "restart"):
        run(["podman", "start", name])
        return
    # Volumes without their container are leftovers: an etcd there would contradict the empty node.
    run(["podman", "rm", "--force", "--ignore", "--time", "0", name])
    wipe_volumes(lab, node.name)
    for volume in VOLUMES:
        (lab.volume_dir(node.name) / volume).mkdir(parents=True, exist_ok=True)
    run(["podman", *run_arguments(lab, node, image, Path("/lib/modules").is_dir())])


def wait_until_booted(lab: Lab, node: Node, timeout: float) -> str:
    """The system state that ssh reports once booting is over; CommandError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    command = [
        "ssh",
        "-F",
        str(lab.ssh_config),
        "-o",
        "ConnectTimeout=5",
        node.name,
        "systemctl",
        "is-system-running",
    ]
    while True:
        # systemctl exits non-zero for `degraded`, so the word decides, not the status.
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        state = result.stdout.strip()
        if state in BOOTED:
            return state
        if time.monotonic() > deadline:
            said = state or result.stderr.strip()
            raise CommandError(
                f"{node.name} did not finish booting within {timeout:.0f} s; last answer: {said!r}. "
                f"Look at it with: podman logs {lab.namespace(node.name)}"
            )
        time.sleep(0.1)


def for_each(nodes: list[Node], work: Callable[[Node], object]) -> None:
    """Do `work` for all nodes at once; the first error is raised after all have ended."""
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(nodes)))) as pool:
        futures = [pool.submit(work, node) for node in nodes]
    for future in futures:
        future.result()


def remove_containers(lab: Lab) -> None:
    """Remove every container of the lab at once, and the cgroups that pods inside left behind."""
    names = [container.name for container in containers(lab).values()]
    if names:
        run(["podman", "rm", "--force", "--time", "0", "--volumes", *names])


def tidy_idle_podman() -> None:
    """Remove the mount over podman's storage and its empty cgroups once no lab has a container."""
    if run(["podman", "ps", "--all", "--quiet"]).strip():
        return
    root = Path(run(["podman", "info", "--format", "{{.Store.GraphRoot}}"]).strip()) / "overlay"
    try:
        while is_mount_point(root):
            run(["umount", str(root)])
    except CommandError as error:
        if "busy" not in str(error):
            raise
        return  # somebody has begun to use it since
    cgroups = Path("/sys/fs/cgroup")
    for parent in [*cgroups.glob("libpod_parent"), *cgroups.glob("*/libpod_parent")]:
        if not any(child.is_dir() for child in parent.iterdir()):
            parent.rmdir()
