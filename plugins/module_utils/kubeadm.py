# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""kubeadm's configuration as data: settings in, documents out. Nothing here touches a machine.

One description serves every release; what differs between them (the version of the configuration API,
arguments as a map or as a list, the taint's name) is decided here from the minor version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils import kube_versions

CONFIG_GROUP = "kubeadm.k8s.io"
KUBELET_API = "kubelet.config.k8s.io/v1beta1"
PROXY_API = "kubeproxy.config.k8s.io/v1alpha1"

# kubeadm wants at least one token at init; ours is never used and is gone before anybody could.
INIT_LIFETIME = "1m0s"


@dataclass(frozen=True)
class NodeSettings:
    """What kubeadm needs to know about one node. cri_socket: path without a scheme."""

    name: str
    address: str
    version: str
    cri_socket: str = "/run/containerd/containerd.sock"
    kubelet_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterSettings:
    """What kubeadm needs to know about the cluster, at init.

    endpoint: host:port that everybody joins through; service_cidr, pod_cidr: IPv4 networks; cert_sans:
    names and addresses besides those that kubeadm finds itself; timeout: seconds that the API server may
    take to come up.
    """

    endpoint: str
    service_cidr: str
    pod_cidr: str
    cgroup_driver: str
    cert_sans: Sequence[str] = ()
    dns_domain: str = "cluster.local"
    image_repository: str = ""
    fail_swap_on: bool = True
    conntrack_writable: bool = True
    timeout: int = 240
    api_server_args: Mapping[str, Any] = field(default_factory=dict)
    controller_manager_args: Mapping[str, Any] = field(default_factory=dict)
    scheduler_args: Mapping[str, Any] = field(default_factory=dict)
    etcd_args: Mapping[str, Any] = field(default_factory=dict)
    kubelet_config: Mapping[str, Any] = field(default_factory=dict)
    kube_proxy_config: Mapping[str, Any] = field(default_factory=dict)


def minor_of(version: str) -> int:
    """31 for 1.31.4. Raises kube_versions.VersionError, a ValueError."""
    return kube_versions.minor_of(version).minor


def config_api(minor: int) -> str:
    """The configuration API that this minor's kubeadm reads."""
    return f"{CONFIG_GROUP}/{kube_versions.minor_of(f'1.{minor}.0').kubeadm_api}"


def init_documents(node: NodeSettings, cluster: ClusterSettings) -> list[dict[str, Any]]:
    """The four documents of `kubeadm init --config`."""
    minor = minor_of(node.version)
    host, _colon, port = cluster.endpoint.rpartition(":")
    init: dict[str, Any] = {
        "apiVersion": config_api(minor),
        "kind": "InitConfiguration",
        "bootstrapTokens": [
            {"ttl": INIT_LIFETIME, "groups": ["system:bootstrappers:kubeadm:default-node-token"]}
        ],
        "localAPIEndpoint": {"advertiseAddress": node.address, "bindPort": int(port)},
        "nodeRegistration": _registration(node, minor),
    }
    if minor >= 31:
        init["timeouts"] = {"controlPlaneComponentHealthCheck": duration(cluster.timeout)}
    api_server: dict[str, Any] = {
        # Deduplicated, in a stable order: the endpoint's host, then what was asked for.
        "certSANs": list(dict.fromkeys([host, *cluster.cert_sans])),
        **_extra_args(cluster.api_server_args, minor),
    }
    if minor <= 30:
        api_server["timeoutForControlPlane"] = duration(cluster.timeout)
    configuration: dict[str, Any] = {
        "apiVersion": config_api(minor),
        "kind": "ClusterConfiguration",
        "kubernetesVersion": "v" + node.version.lstrip("v"),
        "controlPlaneEndpoint": cluster.endpoint,
    }
    if cluster.image_repository:
        configuration["imageRepository"] = cluster.image_repository
    configuration["networking"] = {
        "dnsDomain": cluster.dns_domain,
        # podSubnet is the pool: kube-proxy's clusterCIDR and tools that look for the pods' range in
        # kubeadm-config read it there.
        "podSubnet": cluster.pod_cidr,
        "serviceSubnet": cluster.service_cidr,
    }
    configuration["apiServer"] = api_server
    # With podSubnet kubeadm would also have node CIDRs allocated out of it. Our blocks come from our own
    # address management, and a second allocation of the same addresses would only mislead (and refuses
    # pools smaller than /24): off.
    configuration["controllerManager"] = _extra_args(
        {"allocate-node-cidrs": "false", **cluster.controller_manager_args}, minor
    )
    if cluster.scheduler_args:
        configuration["scheduler"] = _extra_args(cluster.scheduler_args, minor)
    if cluster.etcd_args:
        configuration["etcd"] = {"local": _extra_args(cluster.etcd_args, minor)}
    return [init, configuration, _kubelet(cluster), _kube_proxy(cluster)]


def join_document(
    node: NodeSettings, endpoint: str, token: str, ca_cert_hashes: Sequence[str], timeout: int = 300
) -> dict[str, Any]:
    """The document of `kubeadm join --config`. The authority's hash is not optional: raises ValueError
    without one.
    """
    if not ca_cert_hashes:
        raise ValueError("a node joins only with the hash of the cluster's certificate authority")
    minor = minor_of(node.version)
    document: dict[str, Any] = {
        "apiVersion": config_api(minor),
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": endpoint,
                "token": token,
                "caCertHashes": list(ca_cert_hashes),
            },
            "tlsBootstrapToken": token,
        },
        "nodeRegistration": _registration(node, minor),
    }
    if minor >= 31:
        document["timeouts"] = {"discovery": duration(timeout), "tlsBootstrap": duration(timeout)}
    else:
        document["discovery"]["timeout"] = duration(timeout)
    return document


def duration(seconds: int) -> str:
    """Go's way to write a time: 240 is 4m0s."""
    return f"{seconds // 60}m{seconds % 60}s"


def _registration(node: NodeSettings, minor: int) -> dict[str, Any]:
    # Up to 1.23 kubelet took a bare path; 1.24 warns about one without a scheme.
    socket = node.cri_socket if minor <= 23 else f"unix://{node.cri_socket}"
    registration: dict[str, Any] = {"name": node.name, "criSocket": socket}
    # node-ip: with several links kubelet would take the one of the default route.
    args = {"node-ip": node.address, **node.kubelet_args}
    registration["kubeletExtraArgs"] = _arguments(args, minor)
    return registration


def _arguments(args: Mapping[str, Any], minor: int) -> dict[str, str] | list[dict[str, str]]:
    """A map up to v1beta3, a list of name and value from v1beta4 on; sorted, so that the order of settings
    is no change.
    """
    texts = {str(name): _argument(value) for name, value in sorted(args.items())}
    if minor <= 30:
        return texts
    return [{"name": name, "value": value} for name, value in texts.items()]


def _argument(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _extra_args(args: Mapping[str, Any], minor: int) -> dict[str, Any]:
    return {"extraArgs": _arguments(args, minor)} if args else {}


def _kubelet(cluster: ClusterSettings) -> dict[str, Any]:
    base = {
        "apiVersion": KUBELET_API,
        "kind": "KubeletConfiguration",
        "cgroupDriver": cluster.cgroup_driver,
        "failSwapOn": cluster.fail_swap_on,
    }
    return merged(base, cluster.kubelet_config)


def _kube_proxy(cluster: ClusterSettings) -> dict[str, Any]:
    base: dict[str, Any] = {
        "apiVersion": PROXY_API,
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": cluster.pod_cidr,
    }
    if not cluster.conntrack_writable:
        # 0: leave nf_conntrack_max alone. In a container it belongs to the host, and kube-proxy would end
        # with an error.
        base["conntrack"] = {"maxPerCore": 0}
    return merged(base, cluster.kube_proxy_config)


def merged(base: Mapping[str, Any], over: Mapping[str, Any] | None) -> dict[str, Any]:
    """The base with the other's values over it, maps merged at every depth, everything else replaced."""
    result = dict(base)
    for key, value in (over or {}).items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
