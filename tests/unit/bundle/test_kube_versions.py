"""The table of what differs between Kubernetes minors."""

import pytest
from plugins.module_utils import kube_versions
from plugins.module_utils.kube_versions import CONTROL_PLANE, MASTER, VersionError


@pytest.mark.parametrize(
    ("version", "api"),
    [
        ("1.20.2", "v1beta2"),
        ("1.21.14", "v1beta2"),
        ("1.22.0", "v1beta3"),
        ("1.30.9", "v1beta3"),
        ("1.31.0", "v1beta4"),
        ("1.37.0", "v1beta4"),
    ],
)
def test_kubeadm_api_follows_the_minor(version: str, api: str) -> None:
    assert kube_versions.minor_of(version).kubeadm_api == api


@pytest.mark.parametrize(
    ("version", "taints", "labels"),
    [
        ("1.20.2", (MASTER,), (CONTROL_PLANE, MASTER)),
        ("1.23.1", (MASTER,), (CONTROL_PLANE, MASTER)),
        ("1.24.1", (CONTROL_PLANE, MASTER), (CONTROL_PLANE,)),
        ("1.25.0", (CONTROL_PLANE,), (CONTROL_PLANE,)),
    ],
)
def test_control_plane_marks_follow_the_minor(
    version: str, taints: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    row = kube_versions.minor_of(version)
    assert (row.taints, row.labels) == (taints, labels)


def test_images_of_the_debian_version_are_those_kubeadm_lists() -> None:
    assert kube_versions.images("v1.20.2") == [
        "k8s.gcr.io/kube-apiserver:v1.20.2",
        "k8s.gcr.io/kube-controller-manager:v1.20.2",
        "k8s.gcr.io/kube-scheduler:v1.20.2",
        "k8s.gcr.io/kube-proxy:v1.20.2",
        "k8s.gcr.io/pause:3.2",
        "k8s.gcr.io/etcd:3.4.13-0",
        "k8s.gcr.io/coredns:1.7.0",
    ]


def test_coredns_moved_one_level_down_in_1_21() -> None:
    assert kube_versions.images("1.21.0")[-1] == "k8s.gcr.io/coredns/coredns:v1.8.0"


def test_registry_changed_in_1_25() -> None:
    assert kube_versions.minor_of("1.24.17").image_registry == "k8s.gcr.io"
    assert kube_versions.minor_of("1.25.0").image_registry == "registry.k8s.io"


def test_every_known_minor_has_a_row() -> None:
    assert kube_versions.known_minors()[0] == "1.20"
    for minor in kube_versions.known_minors():
        assert kube_versions.minor_of(f"{minor}.0").kubeadm_api


@pytest.mark.parametrize("version", ["1.19.16", "1.38.0", "1.99.0"])
def test_unknown_minor_is_refused_with_the_known_range(version: str) -> None:
    with pytest.raises(VersionError, match=rf"kubernetes_version is {version}, and .* 1\.20 to 1\.37"):
        kube_versions.parse(version)


@pytest.mark.parametrize("version", ["1.20", "2.0.0", "latest", "1.20.2-rc.1", "", "1.020.2", "1.20.2\n"])
def test_text_that_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(VersionError, match="write major, minor and patch"):
        kube_versions.parse(version)


def test_tags_that_are_not_known_point_to_kubeadm() -> None:
    with pytest.raises(VersionError, match="kubeadm config images list"):
        kube_versions.images("1.37.0")
    with pytest.raises(VersionError, match="kubeadm config images list"):
        kube_versions.pause_image("1.37.0")


def test_pause_image_is_among_the_images() -> None:
    assert kube_versions.pause_image("1.33.8") in kube_versions.images("1.33.8")


def test_cgroup_version_2_is_demanded_where_the_kubelet_does() -> None:
    assert "needs cgroup v2" in kube_versions.minor_of("1.35.1").cgroup_note
    assert kube_versions.minor_of("1.20.2").cgroup_note == ""
