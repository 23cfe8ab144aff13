"""kubeadm's configuration for old and new releases."""

from typing import Any

import pytest
import yaml
from ansible_collections.tortie.cluster.plugins.module_utils import kubeadm, yaml_text
from ansible_collections.tortie.cluster.plugins.module_utils.kubeadm import ClusterSettings, NodeSettings
from hypothesis import given
from hypothesis import strategies as st

CLUSTER = ClusterSettings(
    endpoint="10.30.200.1:6443",
    service_cidr="10.96.0.0/12",
    pod_cidr="10.5.0.0/16",
    cgroup_driver="systemd",
    cert_sans=["127.0.0.1", "api.example.org", "10.30.200.1"],
    scheduler_args={"leader-elect": "false"},
    etcd_args={"heartbeat-interval": 500},
)


def documents(version: str, cluster: ClusterSettings = CLUSTER) -> dict[str, dict[str, Any]]:
    """What kubeadm reads, by kind, after a round trip through the text."""
    node = NodeSettings("master-01", "10.30.200.1", version)
    text = yaml_text.documents(kubeadm.init_documents(node, cluster))
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.mark.parametrize(
    ("version", "api"),
    [
        ("1.20.2", "v1beta2"),
        ("1.21.14", "v1beta2"),
        ("1.22.0", "v1beta3"),
        ("1.28.9", "v1beta3"),
        ("1.30.1", "v1beta3"),
        ("1.31.4", "v1beta4"),
    ],
)
def test_configuration_api_follows_the_minor(version: str, api: str) -> None:
    found = documents(version)
    assert found["InitConfiguration"]["apiVersion"] == f"kubeadm.k8s.io/{api}"
    assert found["ClusterConfiguration"]["apiVersion"] == f"kubeadm.k8s.io/{api}"
    assert found["ClusterConfiguration"]["kubernetesVersion"] == f"v{version}"


@pytest.mark.parametrize("version", ["1.20.2", "1.28.9"])
def test_arguments_are_a_map_before_v1beta4(version: str) -> None:
    found = documents(version)
    assert found["ClusterConfiguration"]["scheduler"] == {"extraArgs": {"leader-elect": "false"}}
    assert found["ClusterConfiguration"]["etcd"] == {"local": {"extraArgs": {"heartbeat-interval": "500"}}}
    assert found["InitConfiguration"]["nodeRegistration"]["kubeletExtraArgs"] == {"node-ip": "10.30.200.1"}
    assert found["ClusterConfiguration"]["apiServer"]["timeoutForControlPlane"] == "4m0s"
    assert "timeouts" not in found["InitConfiguration"]


def test_arguments_and_timeouts_have_v1beta4_shape_from_1_31_on() -> None:
    found = documents("1.31.4")
    assert found["ClusterConfiguration"]["scheduler"] == {
        "extraArgs": [{"name": "leader-elect", "value": "false"}]
    }
    assert found["InitConfiguration"]["nodeRegistration"]["kubeletExtraArgs"] == [
        {"name": "node-ip", "value": "10.30.200.1"}
    ]
    assert found["InitConfiguration"]["timeouts"] == {"controlPlaneComponentHealthCheck": "4m0s"}
    assert "timeoutForControlPlane" not in found["ClusterConfiguration"]["apiServer"]


@pytest.mark.parametrize(
    ("version", "socket"),
    [("1.20.2", "/run/containerd/containerd.sock"), ("1.28.9", "unix:///run/containerd/containerd.sock")],
)
def test_cri_socket_has_a_scheme_from_1_24_on(version: str, socket: str) -> None:
    assert documents(version)["InitConfiguration"]["nodeRegistration"]["criSocket"] == socket


def test_certificate_names_have_no_duplicates() -> None:
    sans = documents("1.28.9")["ClusterConfiguration"]["apiServer"]["certSANs"]
    assert sans == ["10.30.200.1", "127.0.0.1", "api.example.org"]


def test_api_server_listens_on_the_endpoint_s_port_and_the_node_s_address() -> None:
    cluster = ClusterSettings("api.example.org:8443", "10.96.0.0/12", "10.5.0.0/16", "systemd")
    found = documents("1.28.9", cluster)
    assert found["InitConfiguration"]["localAPIEndpoint"] == {
        "advertiseAddress": "10.30.200.1",
        "bindPort": 8443,
    }
    assert found["ClusterConfiguration"]["controlPlaneEndpoint"] == "api.example.org:8443"


def test_pool_is_the_pod_subnet_and_no_node_gets_a_cidr_of_it() -> None:
    found = documents("1.20.2")
    assert found["ClusterConfiguration"]["networking"]["podSubnet"] == "10.5.0.0/16"
    assert found["KubeProxyConfiguration"]["clusterCIDR"] == "10.5.0.0/16"
    assert found["ClusterConfiguration"]["controllerManager"]["extraArgs"]["allocate-node-cidrs"] == "false"


def test_connection_table_is_left_alone_where_it_is_the_host_s() -> None:
    shared = ClusterSettings("a:6443", "10.96.0.0/12", "10.5.0.0/16", "cgroupfs", conntrack_writable=False)
    assert documents("1.20.2", shared)["KubeProxyConfiguration"]["conntrack"] == {"maxPerCore": 0}
    assert "conntrack" not in documents("1.20.2")["KubeProxyConfiguration"]


def test_component_settings_are_merged_at_every_depth() -> None:
    cluster = ClusterSettings(
        "a:6443",
        "10.96.0.0/12",
        "10.5.0.0/16",
        "systemd",
        conntrack_writable=False,
        kubelet_config={"evictionHard": {"nodefs.available": "5%"}, "failSwapOn": False},
        kube_proxy_config={"conntrack": {"min": 0}},
    )
    found = documents("1.31.4", cluster)
    assert found["KubeletConfiguration"]["failSwapOn"] is False
    assert found["KubeletConfiguration"]["cgroupDriver"] == "systemd"
    assert found["KubeletConfiguration"]["evictionHard"] == {"nodefs.available": "5%"}
    assert found["KubeProxyConfiguration"]["conntrack"] == {"maxPerCore": 0, "min": 0}


def test_order_of_arguments_in_the_inventory_is_no_change() -> None:
    def text(arguments: dict[str, str]) -> str:
        cluster = ClusterSettings(
            "a:6443", "10.96.0.0/12", "10.5.0.0/16", "systemd", api_server_args=arguments
        )
        return yaml_text.documents(kubeadm.init_documents(NodeSettings("m", "10.0.0.1", "1.31.4"), cluster))

    assert text({"v": "2", "profiling": "false"}) == text({"profiling": "false", "v": "2"})


@pytest.mark.parametrize("version", ["1.20.2", "1.28.9", "1.31.4"])
def test_join_always_checks_the_authority(version: str) -> None:
    node = NodeSettings("worker-01", "10.30.200.2", version)
    document = kubeadm.join_document(node, "10.30.200.1:6443", "abcdef.0123456789abcdef", ["sha256:00"])
    assert document["discovery"]["bootstrapToken"]["caCertHashes"] == ["sha256:00"]
    assert "unsafeSkipCAVerification" not in yaml_text.dump(document)
    with pytest.raises(ValueError, match="certificate authority"):
        kubeadm.join_document(node, "10.30.200.1:6443", "abcdef.0123456789abcdef", [])


def test_join_timeouts_are_where_each_api_has_them() -> None:
    def joined(version: str) -> dict[str, Any]:
        return kubeadm.join_document(
            NodeSettings("w", "10.0.0.2", version), "a:6443", "t", ["sha256:00"], 300
        )

    assert joined("1.28.9")["discovery"]["timeout"] == "5m0s"
    assert joined("1.31.4")["timeouts"] == {"discovery": "5m0s", "tlsBootstrap": "5m0s"}
    assert "timeout" not in joined("1.31.4")["discovery"]


SCALARS = st.one_of(
    st.text(),
    st.integers(),
    st.booleans(),
    st.none(),
    st.sampled_from(["no", "1e3", "0x1f", "~", "2020-01-01", "a: b", "-", "# x"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_written_yaml_reads_back_as_the_same_data(value: Any) -> None:
    assert yaml.safe_load(yaml_text.dump(value)) == value
