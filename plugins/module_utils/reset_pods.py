# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""The part of a reset that is processes: kubelet, the pods, their images, and containerd as it was."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils import host, reset_files, reset_record
from ansible_collections.tortie.cluster.plugins.module_utils.reset_action import (
    Action,
    Machine,
    ResetError,
    answer,
    command,
    runs,
)
from ansible_collections.tortie.cluster.plugins.module_utils.reset_record import ABSENT, EMPTY, under

KUBELET, CONTAINERD = "kubelet.service", "containerd.service"
SOCKET = "/run/containerd/containerd.sock"
TASKS = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
DATA = "/var/lib/containerd"
NAMESPACE = "k8s.io"
CRI_TIMEOUT = "60s"
START_SECONDS = 60.0
# The agent's pod goes first: deletions of the others then do not wait for an API server that may be gone.
NETWORK_LABEL = ("k8s-app", "calico-node")
STOPPED_STATES = ("inactive", "failed", "")


def kubelet(machine: Machine) -> list[Action]:
    """Stop kubelet, now and at boot, and take its unit away."""
    if not machine.cluster_is_ours:
        return []
    actions = []
    state = reset_record.unit_state(KUBELET)
    before = machine.record.services.get(KUBELET, {}) if machine.record else {}
    if state["active"] not in STOPPED_STATES:
        actions.append(Action(f"stop {KUBELET}", runs("systemctl", "stop", KUBELET)))
    if state["enabled"] == "enabled" and before.get("enabled") != "enabled":
        actions.append(Action(f"disable {KUBELET}", runs("systemctl", "disable", KUBELET)))
    files = reset_files.file_actions(machine, reset_files.KUBELET_FILES)
    if files:
        files.append(Action("reload systemd", partial(_reload_systemd, KUBELET)))
    return actions + files


def _reload_systemd(unit: str) -> None:
    command("systemctl", "daemon-reload")
    # A unit without a file is kept in memory while it is remembered as failed.
    answer("systemctl", "reset-failed", unit)


def pods(machine: Machine) -> list[Action]:
    """Stop and remove every pod and container of Kubernetes."""
    if not machine.cluster_is_ours:
        return []
    if not Path(SOCKET).exists() or not answer("ctr", "--namespace", NAMESPACE, "version"):
        # Shims outlive containerd: with it stopped by hand there are pods that only it can end.
        if not (Path(TASKS).is_dir() and any(Path(TASKS).iterdir())):
            return []
        return [Action("start containerd and remove its pods", partial(remove_pods, start=True))]
    containers = answer("ctr", "--namespace", NAMESPACE, "containers", "ls", "-q").split()
    if not containers:
        return []
    return [Action(f"remove {len(containers)} containers of pods", remove_pods)]


def remove_pods(start: bool = False) -> None:
    """Through CRI where crictl is there, so that containerd undoes what it did; then whatever is left."""
    if start:
        command("systemctl", "start", CONTAINERD)
        _wait_for_containerd()
    found = _sandboxes()
    if found:
        crictl = ["crictl", f"--runtime-endpoint=unix://{SOCKET}", f"--timeout={CRI_TIMEOUT}"]
        network = [name for name, is_network in found if is_network]
        others = [name for name, is_network in found if not is_network]
        for group in (network, others):
            with ThreadPoolExecutor(max_workers=8) as pool:
                # A pod whose network plugin fails is removed all the same, below.
                list(pool.map(lambda name: answer(*crictl, "stopp", name), group))
            if group:
                answer(*crictl, "rmp", "--force", *group)
    ctr = ["ctr", "--namespace", NAMESPACE]
    for container in answer(*ctr, "containers", "ls", "-q").split():
        answer(*ctr, "tasks", "kill", "--all", "--signal", "SIGKILL", container)
        answer(*ctr, "tasks", "delete", "--force", container)
        answer(*ctr, "containers", "delete", container)
    left = command(*ctr, "containers", "ls", "-q").split()
    if left:
        raise ResetError(
            f"{len(left)} containers do not end ({left[0]}, ...); see 'ctr -n {NAMESPACE} tasks ls' and"
            " 'journalctl -u containerd' on this host, and reset again."
        )


def _sandboxes() -> list[tuple[str, bool]]:
    """(id, whether it is the network's own) of every pod that containerd's CRI knows."""
    status, text = host.output(
        *("env", f"PATH={os.environ.get('PATH', '')}:/usr/local/bin", "crictl"),
        *(f"--runtime-endpoint=unix://{SOCKET}", f"--timeout={CRI_TIMEOUT}", "pods", "-o", "json"),
    )
    if status != 0:
        return []
    key, value = NETWORK_LABEL
    return [
        (str(item["id"]), (item.get("labels") or {}).get(key) == value)
        for item in json.loads(text or "{}").get("items") or []
    ]


def _wait_for_containerd() -> None:
    end = time.monotonic() + START_SECONDS
    while not answer("ctr", "--namespace", NAMESPACE, "version"):
        if time.monotonic() > end:
            raise ResetError(
                f"containerd does not answer within {START_SECONDS:.0f} seconds; see"
                " 'journalctl -u containerd' on this host."
            )
        time.sleep(0.2)


def cgroups(machine: Machine) -> list[Action]:
    """The cgroups that kubelet made for pods, with whichever driver."""
    if not machine.cluster_is_ours:
        return []
    listing = answer("systemctl", "list-units", "--plain", "--no-legend", "--all", "kubepods*.slice")
    slices = sorted(line.split()[0] for line in listing.splitlines() if line.strip())
    actions = [Action(f"stop {' '.join(slices)}", runs("systemctl", "stop", *slices))] if slices else []
    roots = Path("/sys/fs/cgroup")
    for top in [*roots.glob("kubepods"), *roots.glob("*/kubepods")]:
        if top.is_dir() and not top.is_symlink() and not top.parent.is_symlink():
            actions.append(Action(f"remove {top}", partial(_remove_cgroups, top)))
    return actions


def _remove_cgroups(top: Path) -> None:
    for folder, _folders, _files in os.walk(top, topdown=False):
        Path(folder).rmdir()


# --- images and containerd


def images(machine: Machine) -> list[Action]:
    """Kubernetes' images in containerd, except those that were there before."""
    record = machine.record
    if not machine.cluster_is_ours or not Path(SOCKET).exists():
        return []
    if record is None or _data_is_ours(machine):
        return []  # without a record nobody knows whose they are; with ours alone, the data goes as a whole
    names = set(answer("ctr", "--namespace", NAMESPACE, "images", "ls", "-q").split())
    # Where it is not known what was there before, only what we have imported is ours.
    ours = sorted(names & set(record.loaded) if record.images is None else names - set(record.images))
    delete = runs("ctr", "--namespace", NAMESPACE, "images", "rm", "--sync", *ours)
    return [Action(f"remove {len(ours)} images", delete)] if ours else []


def _data_is_ours(machine: Machine) -> bool:
    """Whether containerd's data began with us, and nobody else has used it since."""
    record = machine.record
    if record is None or record.paths.get(DATA) not in (ABSENT, EMPTY):
        return False
    if record.drop_containerd:
        return True
    if not Path(SOCKET).exists():
        return False
    for name in answer("ctr", "namespaces", "ls", "-q").split():
        used = [answer("ctr", "--namespace", name, kind, "ls", "-q") for kind in ("containers", "images")]
        if name != NAMESPACE and any(text.strip() for text in used):
            return False
    return True


def containerd(machine: Machine) -> list[Action]:
    """containerd's configuration, data and service as they were."""
    if not machine.ours:
        return []
    mirrors = [path for path in reset_files.marked_files(machine.root) if path.endswith("/hosts.toml")]
    actions = reset_files.file_actions(machine, [*reset_files.CONTAINERD_FILES, *mirrors])
    touched = any(action.what.endswith(reset_files.CONTAINERD_FILES[0]) for action in actions)
    actions += [
        Action(
            f"remove {Path(path).parent}", partial(_remove_empty, under(machine.root, str(Path(path).parent)))
        )
        for path in mirrors
    ]
    record = machine.record
    before = record.services.get(CONTAINERD, {}) if record else {}
    state = reset_record.unit_state(CONTAINERD)
    active = state["active"] not in STOPPED_STATES
    # A unit that was not there came with a package: it goes with it, or runs as the package means it to.
    goes = machine.remove_packages and before.get("load") == "not-found"
    rested = before.get("load") == "loaded" and before.get("active") in STOPPED_STATES
    runs_after = active and not rested and not goes
    drop = machine.cluster_is_ours and _data_is_ours(machine) and _has_data(machine)
    if drop:
        actions.append(Action(f"remove {DATA}", partial(_drop_data, machine, active, runs_after)))
    elif active and not runs_after:
        actions.append(Action(f"stop {CONTAINERD}", runs("systemctl", "stop", CONTAINERD)))
    elif active and touched:
        actions.append(Action(f"restart {CONTAINERD}", runs("systemctl", "restart", CONTAINERD)))
    if before.get("enabled") == "disabled" and state["enabled"] == "enabled":
        actions.append(Action(f"disable {CONTAINERD}", runs("systemctl", "disable", CONTAINERD)))
    return actions


def _has_data(machine: Machine) -> bool:
    """Whether there is more than what containerd itself makes when it starts."""
    record, place = machine.record, under(machine.root, DATA)
    if record is None or not place.is_dir():
        return False
    if record.drop_containerd:
        return True
    names = answer("ctr", "--namespace", NAMESPACE, "images", "ls", "-q")
    runs_before = record.services.get(CONTAINERD, {}).get("active") == "active"
    return bool(names.strip()) or (not runs_before and any(place.iterdir()))


def _remove_empty(place: Path) -> None:
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()


def _drop_data(machine: Machine, active: bool, runs_after: bool) -> None:
    """Remove containerd's data while it is stopped; decided before, so that a cut-off run is finished."""
    record = machine.record
    if record is None:
        return
    record.drop_containerd = True
    reset_record.save(record, machine.root)
    if active:
        command("systemctl", "stop", CONTAINERD)
    stays = record.paths.get(DATA) == EMPTY
    reset_files.remove_tree(under(machine.root, DATA), stays, mode=record.modes.get(DATA))
    if runs_after:
        command("systemctl", "start", CONTAINERD)
    record.drop_containerd = False
    reset_record.save(record, machine.root)
