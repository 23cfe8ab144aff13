"""What differs between Kubernetes minors, in one table.

Pure, Python 3.9, standard library only. The tags of etcd, CoreDNS and pause are those that kubeadm of the
minor's first release names; later patches may carry newer etcd and CoreDNS. `kubeadm config images list` is
the authority, and where a kubeadm can be run it is asked instead (lab/bundle); pause did not change within
any of these minors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MASTER = "node-role.kubernetes.io/master"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"

OLDEST_MINOR = 20
NEWEST_MINOR = 37

_VERSION = re.compile(r"v?1\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})")

# minor: (etcd tag, pause tag, CoreDNS tag), from cmd/kubeadm/app/constants of each minor's .0 release.
_TAGS = {
    20: ("3.4.13-0", "3.2", "1.7.0"),
    21: ("3.4.13-0", "3.4.1", "v1.8.0"),
    22: ("3.5.0-0", "3.5", "v1.8.4"),
    23: ("3.5.1-0", "3.6", "v1.8.6"),
    24: ("3.5.3-0", "3.7", "v1.8.6"),
    25: ("3.5.4-0", "3.8", "v1.9.3"),
    26: ("3.5.6-0", "3.9", "v1.9.3"),
    27: ("3.5.7-0", "3.9", "v1.10.1"),
    28: ("3.5.9-0", "3.9", "v1.10.1"),
    29: ("3.5.10-0", "3.9", "v1.11.1"),
    30: ("3.5.12-0", "3.9", "v1.11.1"),
    31: ("3.5.15-0", "3.10", "v1.11.1"),
    32: ("3.5.16-0", "3.10", "v1.11.3"),
    33: ("3.5.21-0", "3.10", "v1.12.0"),
    34: ("3.6.4-0", "3.10.1", "v1.12.1"),
    35: ("3.6.6-0", "3.10.1", "v1.13.1"),
}


class VersionError(ValueError):
    """A version that cannot be used; the message is a sentence with the value and the remedy."""


@dataclass(frozen=True)
class Minor:
    """What is the same for all patches of a Kubernetes minor."""

    minor: int
    kubeadm_api: str  # kubeadm.k8s.io/<this>: the API version to write configuration in
    image_registry: str  # kubeadm's default imageRepository
    taints: tuple[str, ...]  # keys of the NoSchedule taints that kubeadm init puts on a control plane node
    labels: tuple[str, ...]  # role labels of a control plane node
    etcd_tag: str | None  # None: not known to this table
    pause_tag: str | None
    coredns_tag: str | None
    cgroup_driver: str  # the kubelet's driver when its configuration names none
    cgroup_note: str  # what a person must know about cgroups with this minor; empty if nothing

    @property
    def coredns_image(self) -> str:
        """CoreDNS's repository without tag. It moved one level down in 1.21."""
        name = "coredns" if self.minor < 21 else "coredns/coredns"
        return f"{self.image_registry}/{name}"


def parse(version: str) -> tuple[int, int]:
    """(minor, patch) of `1.20.2` or `v1.20.2`. Raises VersionError, also for unknown minors."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise VersionError(f"kubernetes_version is {version!r}; write major, minor and patch, like 1.20.2.")
    minor, patch = int(match.group(1)), int(match.group(2))
    if not OLDEST_MINOR <= minor <= NEWEST_MINOR:
        raise VersionError(
            f"kubernetes_version is {version}, and this release knows 1.{OLDEST_MINOR} to 1.{NEWEST_MINOR};"
            " choose a version among them."
        )
    return minor, patch


def known_minors() -> list[str]:
    """`1.20`, `1.21`, ..."""
    return [f"1.{minor}" for minor in range(OLDEST_MINOR, NEWEST_MINOR + 1)]


def minor_of(version: str) -> Minor:
    """The table's row for a version. Raises VersionError."""
    minor, _ = parse(version)
    etcd, pause, coredns = _TAGS.get(minor, (None, None, None))
    return Minor(
        minor=minor,
        kubeadm_api=_kubeadm_api(minor),
        image_registry="k8s.gcr.io" if minor < 25 else "registry.k8s.io",
        taints=_taints(minor),
        labels=_labels(minor),
        etcd_tag=etcd,
        pause_tag=pause,
        coredns_tag=coredns,
        # kubeadm writes cgroupDriver: systemd into the kubelet's configuration since 1.22.
        cgroup_driver="cgroupfs" if minor < 22 else "systemd",
        cgroup_note=_cgroup_note(minor),
    )


def _kubeadm_api(minor: int) -> str:
    """v1beta3 came with 1.22; v1beta4 with 1.31, which prefers it."""
    if minor < 22:
        return "v1beta2"
    return "v1beta3" if minor < 31 else "v1beta4"


def _taints(minor: int) -> tuple[str, ...]:
    """The taint `master` went in 1.25; 1.24 sets both."""
    if minor < 24:
        return (MASTER,)
    return (CONTROL_PLANE, MASTER) if minor == 24 else (CONTROL_PLANE,)


def _labels(minor: int) -> tuple[str, ...]:
    """The label `control-plane` came in 1.20, `master` went in 1.24."""
    return (CONTROL_PLANE, MASTER) if minor < 24 else (CONTROL_PLANE,)


def _cgroup_note(minor: int) -> str:
    """The kubelet refuses cgroup v1 from 1.35 unless failCgroupV1 is false (KEP-5573)."""
    if minor >= 35:
        return "needs cgroup v2, or failCgroupV1: false in the kubelet's configuration"
    return "cgroup v1 works, and is in maintenance mode" if minor >= 31 else ""


def images(version: str) -> list[str]:
    """References of the images that kubeadm of this version needs, CoreDNS last.

    Raises VersionError when the table does not know the tags. See the module's text about patches.
    """
    row = minor_of(version)
    if row.etcd_tag is None or row.pause_tag is None or row.coredns_tag is None:
        raise VersionError(
            f"The image tags of Kubernetes {version} are not in the table (it ends at 1.{max(_TAGS)}); ask"
            " 'kubeadm config images list' of that version."
        )
    bare = version[1:] if version.startswith("v") else version
    programs = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    return [
        *(f"{row.image_registry}/{program}:v{bare}" for program in programs),
        f"{row.image_registry}/pause:{row.pause_tag}",
        f"{row.image_registry}/etcd:{row.etcd_tag}",
        f"{row.coredns_image}:{row.coredns_tag}",
    ]


def pause_image(version: str) -> str:
    """Reference of the pause image, which containerd's configuration must name too. Raises VersionError."""
    row = minor_of(version)
    if row.pause_tag is None:
        raise VersionError(
            f"The pause image of Kubernetes {version} is not in the table (it ends at 1.{max(_TAGS)}); ask"
            " 'kubeadm config images list' of that version."
        )
    return f"{row.image_registry}/pause:{row.pause_tag}"
