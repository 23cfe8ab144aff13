"""A virtual machine's root file system: `python -m lab.vms.rootfs` makes it when needed, prints its path.

A small cloud machine with Debian's stock kernel for such: systemd, ssh, Python, and what the roles would have
installed by apt (the machines have no way to the internet). Kubernetes is not in it: the roles install that.
"""

import sys
from pathlib import Path

from lab import LabError, rootfs
from lab.containers import nodeimage

# What a container gets from the machine that it runs on.
PACKAGES = (*nodeimage.PACKAGES, "udev", "linux-image-cloud-amd64")
NAME = "machine"


def expected() -> Path:
    """Where the archive lies, or would."""
    return rootfs.expected(NAME, PACKAGES)


def ensure() -> Path:
    """The archive, made when the cache does not hold it. RootfsError when that fails."""
    return rootfs.ensure(NAME, PACKAGES)


def main() -> int:
    """Command line: no arguments. The last line of standard output is the archive's path."""
    try:
        archive = ensure()
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    print(archive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
