"""The image of a lab node: `python -m lab.containers.nodeimage` makes it when needed and prints its name.

A node looks like a plain cloud machine: systemd, ssh, Python, and the packages that the roles would have
installed by apt (nodes have no way to the internet). Kubernetes is not in it: the roles install that.
"""

import sys
from pathlib import Path

from lab import LabError, cache, podman, rootfs

PACKAGES = (
    # a machine
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt", "ca-certificates", "curl",
    "kmod", "procps", "util-linux", "mount", "less", "rsync", "sudo",
    # its network, and what one looks at it with
    "iproute2", "nftables", "iptables", "ipset", "ebtables", "ethtool", "conntrack", "socat",
    "iputils-ping", "tcpdump",
    # the container runtime
    "containerd", "runc",
)  # fmt: skip

CONTEXT = Path(__file__).parent / "node"


def names() -> tuple[str, str]:
    """Names of the image and of the root file system it stands on, as their inputs are now."""
    base = f"localhost/tortie-rootfs:{rootfs.expected('node', PACKAGES).stem}"
    digest = cache.digest([base, cache.tree_digest([CONTEXT], CONTEXT)])
    return f"localhost/tortie-lab-node:{digest}", base


def ensure() -> tuple[str, bool]:
    """The image's name, and whether it had to be built."""
    image, base = names()
    with cache.exclusive("node-image"):
        if podman.image_exists(image):
            return image, False
        podman.import_rootfs(rootfs.ensure("node", PACKAGES), base)
        podman.run(
            *("build", "--quiet", "--isolation", "chroot", "--build-arg", f"BASE={base}"),
            *("--tag", image, str(CONTEXT)),
        )
        podman.drop_images("localhost/tortie-lab-node", keep=image)
    return image, True


def main(argv: list[str]) -> int:
    """Command line: with `--check` nothing is built; the first line says what was, or would be, done."""
    if argv not in ([], ["--check"]):
        print("usage: python -m lab.containers.nodeimage [--check]", file=sys.stderr)
        return 2
    try:
        if argv:
            image = names()[0]
            built = not podman.image_exists(image)
        else:
            image, built = ensure()
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    print("built" if built else "cached")
    print(image)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
