"""The lab's virtual machines: their files and taps, from nothing to an answer by ssh."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable

from ansible_collections.tortie.cluster.plugins.module_utils import lab_access, lab_vm_process
from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError, run
from ansible_collections.tortie.cluster.plugins.module_utils.lab_machine import BOOTED
from ansible_collections.tortie.cluster.plugins.module_utils.lab_network import Namespace, observe
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    BRIDGE,
    LINK_MTU,
    NETNS_ROOT,
    Lab,
    Node,
)
from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_plan import (
    Image,
    Machine,
    Record,
    action_for,
    monitor,
    own_files,
    parse_record,
    qemu_arguments,
    seed,
)

# What a machine's folder holds besides its keys.
FILES = ("disk.qcow2", "initrd.img", "machine.json", "console.log", "qemu.log", "pid")
IMAGES = "images"
CONSOLE_LINES = 5


class NoAnswerError(Exception):
    """A machine was started and could not be reached; the message says what is known."""


def switch_now(lab: Lab) -> Namespace:
    """The switch as it is: its devices, none when there is no namespace."""
    return observe(lab)[lab.switch] or Namespace()


def tap_commands(lab: Lab, switch: Namespace) -> list[list[str]]:
    """The commands that give every machine a tap on the bridge, or nothing where it has one."""
    commands = []
    for node in lab.nodes:
        port = switch.links.get(node.port)
        # The name is the namespace's argument of ip: the device is made inside.
        ip = ["ip", "-n", lab.switch]
        if port is None:
            commands.append([*ip, "tuntap", "add", "mode", "tap", "name", node.port])
        if port is None or port.mtu != LINK_MTU:
            commands.append([*ip, "link", "set", node.port, "mtu", str(LINK_MTU)])
        if port is None or port.master != BRIDGE:
            commands.append([*ip, "link", "set", node.port, "master", BRIDGE])
        if port is None or not port.up:
            commands.append([*ip, "link", "set", node.port, "up"])
    return commands


def read_record(lab: Lab, node: str) -> Record | None:
    """What a machine was made with, or None."""
    path = lab.volume_dir(node) / "machine.json"
    return parse_record(path.read_text()) if path.exists() else None


def write_record(lab: Lab, node: str, record: Record) -> None:
    """Remember what a machine was made with."""
    lab_access.write_file(lab.volume_dir(node) / "machine.json", record.render())


def planned_actions(lab: Lab, machines: list[Machine], switch: Namespace) -> dict[str, str]:
    """Action (lab_vm_plan.action_for) by node name, for the machines that need one."""
    found = lab_vm_process.running(lab)
    path = NETNS_ROOT / lab.switch
    namespace = path.stat().st_ino if path.exists() else 0
    actions = {}
    for machine in machines:
        node = machine.node
        pid = found.get(node.name)
        has_disk = (lab.volume_dir(node.name) / "disk.qcow2").exists()
        connected = (
            pid is not None and node.port in switch.links and lab_vm_process.namespace_of(pid) == namespace
        )
        action = action_for(machine, read_record(lab, node.name), has_disk, pid is not None, connected)
        if action:
            actions[node.name] = action
    return actions


def keep_image(lab: Lab, image: Image) -> Image:
    """The image in the lab's own folder, where no cleaning of the cache takes it from under its machines.

    Hard links where cache and lab are on one file system, copies otherwise.
    """
    kept = Image(lab.directory / "nodes" / f".{IMAGES}" / image.folder.name)
    kept.folder.mkdir(parents=True, exist_ok=True)
    for source, target in zip(image.files, kept.files):
        if target.exists():
            continue
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            run(["cp", "--sparse=always", str(source), str(partial)], timeout=600)
        partial.rename(target)
    return kept


def image_of(lab: Lab, name: str) -> Image:
    """The image of that name that the lab keeps. CommandError when it is gone."""
    image = Image(lab.directory / "nodes" / f".{IMAGES}" / name)
    missing = [str(path) for path in image.files if not path.exists()]
    if missing:
        raise CommandError(
            f"{', '.join(missing)} is gone, without which the lab's machines cannot start; "
            "`make down`, then `make up`."
        )
    return image


def drop_unused_images(lab: Lab) -> None:
    """Remove the images that no machine of the lab stands on any more."""
    records = [
        read_record(lab, path.parent.name) for path in (lab.directory / "nodes").glob("*/machine.json")
    ]
    used = {record.image for record in records if record is not None}
    for folder in (lab.directory / "nodes" / f".{IMAGES}").iterdir():
        if folder.name not in used:
            shutil.rmtree(folder)


def make_files(lab: Lab, machine: Machine, image: Image, keep_disk: bool) -> None:
    """The files that QEMU starts from: an overlay on the image unless it is kept, and the initramfs."""
    node, folder = machine.node, lab.volume_dir(machine.node.name)
    for name in FILES:
        if name not in ("disk.qcow2", "machine.json"):
            (folder / name).unlink(missing_ok=True)
    if not keep_disk:
        (folder / "machine.json").unlink(missing_ok=True)
        partial = folder / "disk.partial"
        partial.unlink(missing_ok=True)
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(partial)])
        partial.rename(folder / "disk.qcow2")
    key = lab_access.host_key(lab, node)
    files = own_files(lab, node, key.read_bytes(), (key.parent / "authorized_keys").read_bytes())
    initramfs = image.initramfs.read_bytes() + seed(files)
    with os.fdopen(
        os.open(folder / "initrd.img", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
    ) as handle:
        handle.write(initramfs)


def bring_up(
    lab: Lab,
    machine: Machine,
    action: str,
    image: Image,
    accelerator: str,
    tries: int,
    timeout: float,
    note: Callable[[str], None],
) -> None:
    """Carry out an action until the machine answers by ssh; every further try is said through `note`.

    An emulated machine now and then never comes up (a processor that waits for another one that has been
    stopped); then it is killed and booted again. CommandError after the last try.
    """
    name = machine.node.name
    for attempt in range(1, tries + 1):
        if action:
            _start(lab, machine, action, image, accelerator)
        try:
            _wait_for_answer(lab, machine.node, timeout)
            break
        except NoAnswerError as error:
            if attempt == tries:
                raise CommandError(
                    f"{name} could not be booted in {tries} tries: {error} "
                    f"Its console: {_console(lab, name)} "
                    f"All of it is in {lab.volume_dir(name) / 'console.log'}."
                ) from error
            note(f"{error} Killed and booted again, try {attempt + 1} of {tries}.")
            record = read_record(lab, name)
            action = "restart" if record is not None and record.answered else "recreate"
    record = read_record(lab, name)
    if record is not None and not record.answered:
        write_record(lab, name, replace(record, answered=True))


def _start(lab: Lab, machine: Machine, action: str, image: Image, accelerator: str) -> None:
    name = machine.node.name
    lab_vm_process.end(lab, name)
    run_dir_socket = monitor(lab, name)
    run_dir_socket.unlink(missing_ok=True)
    record = read_record(lab, name) if action in ("start", "restart") else None
    # A disk goes with the image it was made over, and so does its kernel.
    used = image if record is None else image_of(lab, record.image)
    make_files(lab, machine, used, keep_disk=record is not None)
    answered = record is not None and record.answered
    write_record(
        lab,
        name,
        Record(machine.node.address, machine.cpus, machine.memory_mib, used.folder.name, answered),
    )
    lab_vm_process.start(lab, name, qemu_arguments(lab, machine, used, accelerator))


def _wait_for_answer(lab: Lab, node: Node, timeout: float) -> None:
    """Until systemd says by ssh that it has booted. NoAnswerError when it does not."""
    started = time.monotonic()
    command = ["ssh", "-F", str(lab.ssh_config), "-o", "ConnectTimeout=5", "-o", "ControlMaster=no", "-o"]
    command += ["ControlPath=none", node.name, "systemctl", "is-system-running"]
    said = ""
    while True:
        try:
            # systemctl exits non-zero for `degraded`, so the word decides, not the status.
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=20
            )
            state = result.stdout.strip()
            said = state or result.stderr.strip() or said
        except subprocess.TimeoutExpired:
            state = ""
        if state in BOOTED:
            return
        if node.name not in lab_vm_process.running(lab):
            raise NoAnswerError(f"The machine {node.name} ended while it booted.")
        if time.monotonic() - started > timeout:
            last = f" (last answer: {said.splitlines()[-1]})" if said else ""
            raise NoAnswerError(f"{node.name} did not answer by ssh within {timeout:.0f} s{last}.")
        time.sleep(0.5)


def _console(lab: Lab, name: str) -> str:
    path = lab.volume_dir(name) / "console.log"
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return " / ".join([line.strip() for line in lines if line.strip()][-CONSOLE_LINES:]) or "silent."


def known_machines(lab: Lab) -> list[str]:
    """Names of nodes that have, or had, a virtual machine in this lab, running or not."""
    folders = (lab.directory / "nodes").glob("*/machine.json")
    return sorted({*lab_vm_process.running(lab), *(path.parent.name for path in folders)})


def remove(lab: Lab, name: str) -> None:
    """End a machine and remove its files. Its keys belong to the lab's access."""
    lab_vm_process.end(lab, name)
    monitor(lab, name).unlink(missing_ok=True)
    for file in FILES:
        (lab.volume_dir(name) / file).unlink(missing_ok=True)


def remove_images(lab: Lab) -> None:
    """Remove the images that the lab keeps, and what it remembers of the machine's processor."""
    shutil.rmtree(lab.directory / "nodes" / f".{IMAGES}", ignore_errors=True)
    (lab.directory / "nodes" / "acceleration.json").unlink(missing_ok=True)


def available_memory_mib(meminfo: Path = Path("/proc/meminfo")) -> int:
    """MemAvailable of proc(5), in MiB: what programs can have without swapping."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise CommandError(f"{meminfo} does not say how much memory is available.")


def free_space_mib(folder: Path) -> int:
    """Free space of the file system that `folder`, or the nearest folder above it that exists, lies on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free >> 20


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))
