"""containerd's and kubelet's files."""

import tomllib
from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import containerd, kubelet_unit
from ansible_collections.tortie.cluster.plugins.module_utils.containerd import ContainerdSettings

SETTINGS = ContainerdSettings(
    sandbox_image="registry.example.org/pause:3.10",
    systemd_cgroup=True,
    restrict_oom_score_adj=False,
    mirrors={"docker.io": ["https://mirror.example.org"]},
)


def rendered(version: tuple[int, int], settings: ContainerdSettings = SETTINGS) -> dict[str, Any]:
    """The configuration as containerd reads it."""
    return tomllib.loads(containerd.render(version, settings))


@pytest.mark.parametrize("version", [(1, 6), (1, 7)])
def test_containerd_1_reads_its_settings_where_version_2_has_them(version: tuple[int, int]) -> None:
    config = rendered(version)
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert config["version"] == 2
    assert cri["sandbox_image"] == SETTINGS.sandbox_image
    assert cri["restrict_oom_score_adj"] is False
    assert cri["cni"] == {"bin_dir": "/opt/cni/bin", "conf_dir": "/etc/cni/net.d"}
    assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is True
    assert cri["registry"]["config_path"] == containerd.CERTS_FOLDER


@pytest.mark.parametrize("version", [(2, 0), (2, 3)])
def test_containerd_2_reads_its_settings_where_version_3_has_them(version: tuple[int, int]) -> None:
    config = rendered(
        version, ContainerdSettings("pause:1", systemd_cgroup=False, restrict_oom_score_adj=True)
    )
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    images = config["plugins"]["io.containerd.cri.v1.images"]
    assert config["version"] == 3
    assert images["pinned_images"]["sandbox"] == "pause:1"
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False


def test_mirror_is_asked_before_the_registry_itself() -> None:
    (path,) = containerd.mirror_files(SETTINGS)
    hosts = tomllib.loads(containerd.mirror_files(SETTINGS)[path])
    assert path.endswith("/docker.io/hosts.toml")
    assert hosts["server"] == "https://registry-1.docker.io"
    assert hosts["host"] == {"https://mirror.example.org": {"capabilities": ["pull", "resolve"]}}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u2\n", (1, 6)),
        ("containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da\n", (1, 7)),
        ("containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4\n", (2, 1)),
    ],
)
def test_version_is_read_from_every_publisher_s_form(text: str, version: tuple[int, int]) -> None:
    assert containerd.parse_version(text) == version


def test_text_without_a_version_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no version"):
        containerd.parse_version("containerd: unknown\n")


def test_bundle_brings_unit_and_kubeadm_s_arguments() -> None:
    files = kubelet_unit.unit_files("/usr/local/bin/kubelet", {"AWS_EC2_METADATA_DISABLED": "true"})
    drop_in = files[kubelet_unit.KUBEADM_DROP_IN]
    assert "ExecStart=/usr/local/bin/kubelet\n" in files[kubelet_unit.UNIT]
    assert "=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=" in drop_in
    assert "ExecStart=\nExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS" in drop_in
    assert 'Environment="AWS_EC2_METADATA_DISABLED=true"' in files[kubelet_unit.ENVIRONMENT_DROP_IN]


def test_package_s_unit_is_left_alone() -> None:
    assert set(kubelet_unit.unit_files("", {"A": "b"})) == {kubelet_unit.ENVIRONMENT_DROP_IN}
    assert kubelet_unit.unit_files("", {}) == {}
