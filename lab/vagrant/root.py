"""Debian with Vagrant, libvirt and QEMU: `python -m lab.vagrant.root` prints the archive's path last.

The machine itself gets none of these packages: they bring daemons, and a network of their own.
"""

import sys

from lab import LabError, rootfs

PACKAGES = (
    "vagrant", "vagrant-libvirt",
    # the provider's daemon and tools, and what the networks are made of
    "libvirt-daemon-system", "libvirt-daemon-driver-qemu", "libvirt-clients", "dnsmasq-base",
    "iproute2", "iptables",
    # machines: system emulator, tools for their disks, firmware of their network cards
    "qemu-system-x86", "qemu-utils", "ipxe-qemu",
    # this repository's virtual environment and what Ansible calls
    "python3", "openssh-client", "procps", "util-linux", "mount",
)  # fmt: skip


def main() -> int:
    """Command line: no arguments."""
    try:
        print(rootfs.ensure("vagrant", PACKAGES))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
