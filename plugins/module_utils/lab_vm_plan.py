"""The virtual machines of a lab as data: sizes, files, QEMU's arguments. Pure.

A lab of virtual machines has the switch's namespace (lab_plan) with a tap per machine in place of the veth
cables, and in the folder of a node, below LAB_DIR/nodes:

- `disk.qcow2`: what the machine has written, over the disk image that all machines share;
- `initrd.img`: the initramfs, followed by the machine's own files; `machine.json`: what it was made with;
- `console.log`: what the machine wrote to its serial console; `pid`.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import Lab, Node, PlanError
from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_cpio import File, archive

QEMU = "qemu-system-x86_64"

KVM = "kvm"
EMULATION = "tcg"

# What a machine without an answer to that gets, and the least that Debian and a kubelet start with.
DEFAULT_CPUS = 2
DEFAULT_MEMORY_MIB = 2048
LEAST_MEMORY_MIB = 512
# QEMU's own: devices, and the cache of translated code, which grows up to 512 MiB under emulation.
OVERHEAD_MIB = {KVM: 100, EMULATION: 300}
# What a machine may come to write to its disk: images that are loaded later, logs, etcd.
DISK_SPACE_MIB = 2048

# A locally administered prefix that QEMU uses for its machines; the address's last three bytes follow.
MAC_PREFIX = "52:54:00"

ACCELERATION = {
    KVM: ["-accel", KVM, "-cpu", "host"],
    # One thread per virtual processor, and a cache for translated code that a control plane fits in.
    # Five-level page tables only cost time.
    EMULATION: ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"],
}
MACHINE = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,hpet=off"]
# mitigations, audit: costs without use on a test machine. net.ifnames: the link is eth0, whatever slot it
# is in.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 panic=10 mitigations=off nowatchdog audit=0 net.ifnames=0"
    " random.trust_cpu=on"
)
# An emulated clock runs unevenly when the machine is busy: the kernel must not give it up for that.
EMULATION_KERNEL_ARGUMENTS = " tsc=reliable no_timer_check"

# Said by the initramfs (lab/vms/init) when it is started with the argument `lab.probe`.
PROBE_ARGUMENT = "lab.probe"
PROBE_ANSWER = "lab: the kernel runs"


@dataclass(frozen=True)
class Machine:
    """A node as a machine: how many processors and how much memory it has."""

    node: Node
    cpus: int
    memory_mib: int


@dataclass(frozen=True)
class Record:
    """What a machine was made with. `answered`: whether it has been reached by ssh with this disk."""

    address: str
    cpus: int
    memory_mib: int
    image: str
    answered: bool

    def render(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Image:
    """A disk image with its kernel and initramfs: a folder whose name is the digest of its inputs."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The root file system (ext4, no partitions)."""
        return self.folder / "disk.img"

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """The initramfs that all machines share."""
        return self.folder / "initrd.img"

    @property
    def files(self) -> tuple[Path, ...]:
        """All of it."""
        return (self.disk, self.kernel, self.initramfs)


def parse_record(text: str) -> Record | None:
    """The record in `text`, or None when it is cut short or of another shape."""
    try:
        return Record(**json.loads(text))
    except (ValueError, TypeError):
        return None


def machines(lab: Lab, cpus: Mapping[str, Any], memory: Mapping[str, Any]) -> list[Machine]:
    """The lab's nodes with their sizes: by node name, processors and MiB. PlanError when one cannot be."""
    found = []
    for node in lab.nodes:
        count = _whole_number(node.name, "lab_vm_cpus", cpus.get(node.name, DEFAULT_CPUS))
        mebibytes = _whole_number(node.name, "lab_vm_memory_mib", memory.get(node.name, DEFAULT_MEMORY_MIB))
        if count < 1:
            raise PlanError(f"lab_vm_cpus of {node.name} is {count}; a machine needs at least 1 processor.")
        if mebibytes < LEAST_MEMORY_MIB:
            raise PlanError(
                f"lab_vm_memory_mib of {node.name} is {mebibytes}; a machine needs at least "
                f"{LEAST_MEMORY_MIB}."
            )
        found.append(Machine(node, count, mebibytes))
    return found


def _whole_number(node: str, variable: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise PlanError(f"{variable} of {node} is {value!r}; it must be a whole number.") from error


def size_problems(wanted: list[Machine], accelerator: str, processors: int, available_mib: int) -> list[str]:
    """Why these machines cannot be started on a machine with so many processors and so much free memory."""
    problems = [
        f"lab_vm_cpus of {machine.node.name} is {machine.cpus}, but this machine lets the lab use "
        f"{processors}; lower lab_vm_cpus (kubeadm wants 2 for a control plane) or use a larger machine."
        for machine in wanted
        if machine.cpus > processors
    ]
    needed = sum(machine.memory_mib + OVERHEAD_MIB[accelerator] for machine in wanted)
    if needed > available_mib:
        sizes = ", ".join(f"{machine.node.name} {machine.memory_mib}" for machine in wanted)
        problems.append(
            f"The virtual machines need {needed} MiB of memory (lab_vm_memory_mib: {sizes}; the rest is "
            f"QEMU's own), but this machine has {available_mib} MiB available; end other programs, or lower "
            "lab_vm_memory_mib (not below preflight_min_memory_mib_control_plane and "
            "preflight_min_memory_mib_worker)."
        )
    return problems


def space_problem(folder: Path, machine_count: int, free_mib: int) -> str | None:
    """Why so many new machines do not fit on the file system of `folder`, or None."""
    needed = machine_count * DISK_SPACE_MIB
    if free_mib >= needed:
        return None
    return (
        f"The disks of {machine_count} new machines may grow to {needed} MiB in {folder}, where {free_mib} "
        "MiB are free; free some space, or set LAB_DIR to a folder on a larger file system."
    )


def pid_file(lab: Lab, node: str) -> Path:
    """QEMU's pid file; its path among QEMU's arguments is also what tells a process to be this machine."""
    return lab.volume_dir(node) / "pid"


def monitor(lab: Lab, node: str) -> Path:
    """The socket of QEMU's monitor: in /run, as a checkout's path may be too long for a socket."""
    return lab.run_dir / f"monitor-{node}"


def hardware_address(node: Node) -> str:
    """The MAC address of a node's link."""
    octets = ipaddress.IPv4Address(node.address).packed[1:]
    return ":".join([MAC_PREFIX, *(f"{octet:02x}" for octet in octets)])


def kernel_arguments(accelerator: str) -> str:
    """The machine's kernel command line."""
    return KERNEL_ARGUMENTS + (EMULATION_KERNEL_ARGUMENTS if accelerator == EMULATION else "")


def qemu_arguments(lab: Lab, machine: Machine, image: Image, accelerator: str) -> list[str]:
    """QEMU's command line; it runs in the switch's namespace, where the tap is."""
    node, folder = machine.node, lab.volume_dir(machine.node.name)
    return [
        QEMU,
        *MACHINE,
        *("-name", lab.namespace(node.name)),
        *ACCELERATION[accelerator],
        *("-smp", str(machine.cpus), "-m", str(machine.memory_mib)),
        *("-rtc", "base=utc"),
        *("-kernel", str(image.kernel), "-initrd", str(folder / "initrd.img")),
        *("-append", kernel_arguments(accelerator)),
        # unsafe: a lab's disk need not survive a crash of the machine that carries it.
        "-drive",
        f"file={_value(folder / 'disk.qcow2')},if=none,id=disk,cache=unsafe,discard=unmap",
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-netdev", f"tap,id=link,ifname={node.port},script=no,downscript=no"),
        # No boot ROM: the kernel is given.
        *("-device", f"virtio-net-pci,netdev=link,mac={hardware_address(node)},romfile="),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,append=on,path={_value(folder / 'console.log')}"),
        *("-serial", "chardev:console"),
        *("-monitor", f"unix:{_value(monitor(lab, node.name))},server=on,wait=off"),
        *("-pidfile", str(pid_file(lab, node.name)), "-daemonize"),
    ]


def probe_arguments(image: Image, accelerator: str) -> list[str]:
    """QEMU's command line for a machine that says that its kernel runs, and ends."""
    return [
        QEMU,
        *MACHINE,
        *ACCELERATION[accelerator],
        *("-m", "256", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initramfs)),
        *("-append", f"console=ttyS0 quiet panic=-1 {PROBE_ARGUMENT}"),
    ]


def _value(path: Path) -> str:
    """A path inside one of QEMU's comma-separated options: it writes a comma in a value twice."""
    return str(path).replace(",", ",,")


def own_files(lab: Lab, node: Node, host_key: bytes, authorized_keys: bytes) -> dict[str, File]:
    """What tells one machine from another, by path in its root file system; laid there at its first boot."""
    network = (
        f"[Match]\nName=eth0\n\n[Network]\nAddress={node.address}/{lab.gateway.network.prefixlen}\n"
        f"Gateway={lab.gateway.ip}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )
    return {
        "etc/hostname": File(f"{node.name}\n".encode()),
        "etc/hosts": File(f"127.0.0.1 localhost\n{node.address} {node.name}\n".encode()),
        "etc/systemd/network/10-lab.network": File(network.encode()),
        "etc/ssh/lab/ssh_host_ed25519_key": File(host_key, 0o600),
        "etc/ssh/lab/authorized_keys": File(authorized_keys, 0o600),
    }


def seed(files: Mapping[str, File]) -> bytes:
    """The archive that follows the shared initramfs: a machine's own files, where `init` looks."""
    return archive({f"seed/{path}": file for path, file in files.items()})


def action_for(
    machine: Machine, record: Record | None, has_disk: bool, running: bool, connected: bool
) -> str:
    """What a machine needs: `create`, `recreate`, `start`, `restart`, or nothing (an empty string).

    `connected` says whether a running machine is in the switch's namespace of now, with its tap there.
    """
    if record is None or not has_disk:
        return "recreate" if running else "create"
    if record.address != machine.node.address or not (record.answered or running):
        # Without an answer so far the disk may be anything: a killed run left it.
        return "recreate"
    if not running:
        return "start"
    same_size = (record.cpus, record.memory_mib) == (machine.cpus, machine.memory_mib)
    return "" if connected and same_size else "restart"
