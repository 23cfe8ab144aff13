"""Kubernetes' own kinds that policy reads. None of them is ever written."""

from typing import Final

from msgspec import Struct, field

from tortie.model.resources import Resource, ResourceType

LABEL_SERVICE_NAME: Final = "kubernetes.io/service-name"  # on an EndpointSlice: the Service it belongs to


class LabelSelectorRequirement(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`operator` is In, NotIn, Exists or DoesNotExist."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class LabelSelector(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """metav1.LabelSelector: all of it must match; an empty one matches everything."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[LabelSelectorRequirement] | None = None


class IPBlock(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Addresses in `cidr` but in none of `excluded`."""

    cidr: str = ""
    excluded: list[str] | None = field(default=None, name="except")


class KubernetesPeer(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Pods, or a block of addresses. Absent and empty selectors differ: absent is no restriction here."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class KubernetesPolicyPort(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`port` absent means every port of `protocol` (TCP when absent)."""

    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class KubernetesNetworkPolicyIngressRule(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Allows `peers` (anybody, when there are none) to `ports` (all, when there are none)."""

    peers: list[KubernetesPeer] | None = field(default=None, name="from")
    ports: list[KubernetesPolicyPort] | None = None


class KubernetesNetworkPolicyEgressRule(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Allows to `peers` (anybody, when there are none) at `ports` (all, when there are none)."""

    peers: list[KubernetesPeer] | None = field(default=None, name="to")
    ports: list[KubernetesPolicyPort] | None = None


class KubernetesNetworkPolicySpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """networking.k8s.io/v1 NetworkPolicy spec."""

    pod_selector: LabelSelector = field(default_factory=LabelSelector)
    ingress: list[KubernetesNetworkPolicyIngressRule] | None = None
    egress: list[KubernetesNetworkPolicyEgressRule] | None = None
    policy_types: list[str] | None = None


class KubernetesNetworkPolicy(Resource, kw_only=True):
    """networking.k8s.io/v1 NetworkPolicy; its Python name keeps it apart from Calico's."""

    resource_type = ResourceType("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", namespaced=True)
    spec: KubernetesNetworkPolicySpec = field(default_factory=KubernetesNetworkPolicySpec)


class Namespace(Resource, kw_only=True):
    """core/v1 Namespace: its labels are inherited by what lives in it."""

    resource_type = ResourceType("v1", "Namespace", "namespaces")


class ServiceAccount(Resource, kw_only=True):
    """core/v1 ServiceAccount: its labels are inherited by the pods that run as it."""

    resource_type = ResourceType("v1", "ServiceAccount", "serviceaccounts", namespaced=True)


class SliceEndpoint(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One endpoint of a slice; its readiness does not matter to policy."""

    addresses: list[str] | None = None


class SlicePort(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`port` absent means all ports."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(Resource, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice. Go writes an empty list as null, hence the None."""

    resource_type = ResourceType("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", namespaced=True)
    address_type: str = field(default="", name="addressType")
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


class EndpointSliceV1Beta1(EndpointSlice, kw_only=True):
    """discovery.k8s.io/v1beta1 EndpointSlice: what API servers before 1.21 have. Same fields here."""

    resource_type = ResourceType(
        "discovery.k8s.io/v1beta1", "EndpointSlice", "endpointslices", namespaced=True
    )


class ServicePort(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 ServicePort."""

    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    node_port: int = 0


class ServiceSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 Service spec; `cluster_ip` may be the word None."""

    type: str = "ClusterIP"
    cluster_ip: str = field(default="", name="clusterIP")
    cluster_ips: list[str] | None = field(default=None, name="clusterIPs")
    external_ips: list[str] | None = field(default=None, name="externalIPs")
    ports: list[ServicePort] | None = None


class Service(Resource, kw_only=True):
    """core/v1 Service."""

    resource_type = ResourceType("v1", "Service", "services", namespaced=True)
    spec: ServiceSpec = field(default_factory=ServiceSpec)


POLICY_NATIVE_KINDS: Final[tuple[type[Resource], ...]] = (
    KubernetesNetworkPolicy,
    Namespace,
    ServiceAccount,
    EndpointSlice,
    EndpointSliceV1Beta1,
    Service,
)
