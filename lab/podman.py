"""podman with storage and settings of its own, so that the lab shares nothing with the machine's podman."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import LabError, cache

# linux/capability.h
CAP_SYS_RESOURCE = 24

PODMAN_PROCESS_LIMIT = 32768

STATE_ROOT = Path("/run/tortie-lab")


class PodmanError(LabError):
    """A podman command failed; the message carries the command and what it said."""


def can_raise_limits(status: str) -> bool:
    """Whether the process described by `status` (/proc/<pid>/status) holds CAP_SYS_RESOURCE.

    Without it podman's default limits, and a lower oom_score_adj, are refused by the kernel.
    """
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> CAP_SYS_RESOURCE & 1)


def containers_conf(state: Path, ulimits: Sequence[str]) -> str:
    """containers.conf(5): no systemd or journal on the host needed, runc (crun refuses hybrid cgroups)."""
    limits = ", ".join(f'"{limit}"' for limit in ulimits)
    return (
        "[engine]\n"
        'cgroup_manager = "cgroupfs"\n'
        'events_logger = "file"\n'
        'runtime = "runc"\n'
        f'tmp_dir = "{state / "libpod"}"\n'
        "[containers]\n"
        'log_driver = "k8s-file"\n'
        # A node runs hundreds of processes; podman's 2048 is meant for one service.
        "pids_limit = 0\n"
    ) + (f"default_ulimits = [{limits}]\n" if limits else "")


def storage_conf(graphroot: Path, state: Path) -> str:
    """containers-storage.conf(5): images and containers below `graphroot`, mounts' state below `state`."""
    return f'[storage]\ndriver = "overlay"\ngraphroot = "{graphroot}"\nrunroot = "{state / "containers"}"\n'


def _own_limits() -> list[str]:
    """The limits of this process as podman ulimits: the most it may hand on without CAP_SYS_RESOURCE."""
    limits = []
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(number)[1]
        # podman lowers its own process limit to the kernel's classic pid_max before it starts anything.
        most = PODMAN_PROCESS_LIMIT if name == "nproc" else hard
        allowed = most if hard == resource.RLIM_INFINITY else min(hard, most)
        if allowed != resource.RLIM_INFINITY:
            limits.append(f"{name}={allowed}:{allowed}")
    return limits


def environment() -> dict[str, str]:
    """The variables that make podman use the project's own settings; writes the files they name."""
    folder = cache.directory("podman")
    # Two caches on one machine are two stores, and must not share the state of mounts either.
    state = STATE_ROOT / f"podman-{cache.digest([str(folder)])}"
    limits = [] if can_raise_limits(Path("/proc/self/status").read_text()) else _own_limits()
    files = {
        folder / "containers.conf": containers_conf(state, limits),
        folder / "storage.conf": storage_conf(folder / "storage", state),
    }
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            partial = path.with_suffix(f".partial-{os.getpid()}")
            partial.write_text(text)
            partial.rename(path)
    return {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
    }


def run(*args: str, timeout: float | None = None) -> str:
    """Standard output of `podman args`; PodmanError when it fails or takes over `timeout` s."""
    try:
        result = subprocess.run(
            ["podman", *args],
            env=os.environ | environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise PodmanError(f"podman {args[0]} did not answer within {timeout:.0f} s.") from error
    if result.returncode != 0:
        raise PodmanError(f"podman {' '.join(args)} failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout.strip()


def image_exists(name: str) -> bool:
    """Whether the project's store holds image `name`."""
    return name in run("images", "--noheading", "--format", "{{.Repository}}:{{.Tag}}").splitlines()


def import_rootfs(archive: Path, name: str) -> None:
    """Make image `name` of a root file system archive, unless the store holds it already."""
    if not image_exists(name):
        run("import", "--quiet", str(archive), name)


def drop_images(repository: str, keep: str) -> None:
    """Remove the images `repository`:* that no container uses, except `keep`."""
    for name in run("images", "--noheading", "--format", "{{.Repository}}:{{.Tag}}", repository).splitlines():
        if name != keep and not run("ps", "--all", "--quiet", "--filter", f"ancestor={name}"):
            run("rmi", name)


def main() -> int:
    """`python -m lab.podman` prints the environment that selects the project's podman, as JSON."""
    print(json.dumps(environment()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
