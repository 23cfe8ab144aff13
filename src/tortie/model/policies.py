"""Calico's policy kinds as they stand on the wire (crd.projectcalico.org/v1).

Values that a user may write wrongly (actions, protocols, CIDRs, selectors) are plain text here: an object
with a mistake must still be read, so that `policy_validation` can name the mistake and the policy core can
fail closed. A port is a number, a range `"80:90"` or the name of a container's port, a protocol a number or a
name.
"""

from typing import Final

from msgspec import Struct, field

from tortie.model.policy_natives import (
    KubernetesNetworkPolicyEgressRule,
    KubernetesNetworkPolicyIngressRule,
    LabelSelector,
)
from tortie.model.resources import CRD_GROUP_VERSION, Resource, ResourceType

Port = int | str
Protocol = int | str
Order = int | float  # both, so that 10 is not written back as 10.0

INGRESS: Final = "Ingress"
EGRESS: Final = "Egress"
DEFAULT_TIER: Final = "default"


def default_types(*, ingress: bool, egress: bool) -> list[str]:
    """What Calico's clients write into `types` when a user leaves it out: the directions that have rules,
    Ingress when neither has. An object that is stored without types counts as having both (so does Felix)."""
    if not egress:
        return [INGRESS]
    return [INGRESS, EGRESS] if ingress else [EGRESS]


class ServiceAccountMatch(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Endpoints that run as one of `names` (any, when empty) and whose account has matching labels."""

    names: list[str] = field(default_factory=list)
    selector: str = ""


class ServiceMatch(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Endpoints of a Service; a namespaced policy's own namespace when `namespace` is empty."""

    name: str = ""
    namespace: str = ""


class EntityRule(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Source or destination of a rule. Everything that is given must match."""

    nets: list[str] = field(default_factory=list)
    not_nets: list[str] = field(default_factory=list)
    selector: str = ""
    not_selector: str = ""
    namespace_selector: str = ""
    ports: list[Port] = field(default_factory=list)
    not_ports: list[Port] = field(default_factory=list)
    service_accounts: ServiceAccountMatch | None = None
    services: ServiceMatch | None = None


class ICMPFields(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A code is valid only with a type."""

    type: int | None = None
    code: int | None = None


class HTTPPath(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One of the two."""

    exact: str = ""
    prefix: str = ""


class HTTPMatch(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Typed only to be refused: nothing on the data path reads HTTP."""

    methods: list[str] = field(default_factory=list)
    paths: list[HTTPPath] = field(default_factory=list)


class RuleMetadata(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Notes of the rule's author."""

    annotations: dict[str, str] = field(default_factory=dict)


class Rule(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One rule; `action` is Allow, Deny, Log or Pass."""

    action: str = ""
    ip_version: int | None = field(default=None, name="ipVersion")
    protocol: Protocol | None = None
    not_protocol: Protocol | None = None
    icmp: ICMPFields | None = None
    not_icmp: ICMPFields | None = field(default=None, name="notICMP")
    source: EntityRule = field(default_factory=EntityRule)
    destination: EntityRule = field(default_factory=EntityRule)
    http: HTTPMatch | None = None
    metadata: RuleMetadata | None = None


class NetworkPolicySpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`order`: lower is asked first, none comes last. Empty `types` stands for both directions."""

    tier: str = ""
    order: Order | None = None
    selector: str = ""
    service_account_selector: str = ""
    types: list[str] = field(default_factory=list)
    ingress: list[Rule] = field(default_factory=list)
    egress: list[Rule] = field(default_factory=list)
    performance_hints: list[str] = field(default_factory=list)


class NetworkPolicy(Resource, kw_only=True):
    """Calico NetworkPolicy: selects pods of its own namespace."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "NetworkPolicy", "networkpolicies", namespaced=True)
    spec: NetworkPolicySpec = field(default_factory=NetworkPolicySpec)


class GlobalNetworkPolicySpec(NetworkPolicySpec, rename="camel", omit_defaults=True, kw_only=True):
    """`do_not_track`, `pre_dnat` and `apply_on_forward` concern host endpoints only."""

    namespace_selector: str = ""
    do_not_track: bool = False
    pre_dnat: bool = field(default=False, name="preDNAT")
    apply_on_forward: bool = False


class GlobalNetworkPolicy(Resource, kw_only=True):
    """Calico GlobalNetworkPolicy: selects pods of all namespaces, and host endpoints."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "GlobalNetworkPolicy", "globalnetworkpolicies")
    spec: GlobalNetworkPolicySpec = field(default_factory=GlobalNetworkPolicySpec)


class TierSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`default_action` (Deny or Pass) is for packets that no policy of the tier decides."""

    order: Order | None = None
    default_action: str = ""


class Tier(Resource, kw_only=True):
    """Calico Tier."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "Tier", "tiers")
    spec: TierSpec = field(default_factory=TierSpec)


class HostEndpointPort(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A port that rules can name."""

    name: str = ""
    protocol: Protocol = ""
    port: int = 0


class HostEndpointSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`interface_name` `*` stands for every interface; empty: the one that has one of `expected_ips`."""

    node: str = ""
    interface_name: str = ""
    expected_ips: list[str] = field(default_factory=list, name="expectedIPs")
    profiles: list[str] = field(default_factory=list)
    ports: list[HostEndpointPort] = field(default_factory=list)


class HostEndpoint(Resource, kw_only=True):
    """Calico HostEndpoint: policy for a node's own interfaces."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "HostEndpoint", "hostendpoints")
    spec: HostEndpointSpec = field(default_factory=HostEndpointSpec)


class NetworkSetSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """CIDRs or addresses that rules find through the set's labels."""

    nets: list[str] = field(default_factory=list)


class NetworkSet(Resource, kw_only=True):
    """Calico NetworkSet, seen by selectors that include its namespace."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "NetworkSet", "networksets", namespaced=True)
    spec: NetworkSetSpec = field(default_factory=NetworkSetSpec)


class GlobalNetworkSet(Resource, kw_only=True):
    """Calico GlobalNetworkSet."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "GlobalNetworkSet", "globalnetworksets")
    spec: NetworkSetSpec = field(default_factory=NetworkSetSpec)


class StagedNetworkPolicySpec(NetworkPolicySpec, rename="camel", omit_defaults=True, kw_only=True):
    """`staged_action` is Set (also when empty), Delete, Learn or Ignore."""

    staged_action: str = ""


class StagedNetworkPolicy(Resource, kw_only=True):
    """A NetworkPolicy that is not enforced yet."""

    resource_type = ResourceType(
        CRD_GROUP_VERSION, "StagedNetworkPolicy", "stagednetworkpolicies", namespaced=True
    )
    spec: StagedNetworkPolicySpec = field(default_factory=StagedNetworkPolicySpec)


class StagedGlobalNetworkPolicySpec(
    GlobalNetworkPolicySpec, rename="camel", omit_defaults=True, kw_only=True
):
    """`staged_action` is Set (also when empty), Delete, Learn or Ignore."""

    staged_action: str = ""


class StagedGlobalNetworkPolicy(Resource, kw_only=True):
    """A GlobalNetworkPolicy that is not enforced yet."""

    resource_type = ResourceType(
        CRD_GROUP_VERSION, "StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies"
    )
    spec: StagedGlobalNetworkPolicySpec = field(default_factory=StagedGlobalNetworkPolicySpec)


class StagedKubernetesNetworkPolicySpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A Kubernetes NetworkPolicy's fields beside `staged_action`."""

    staged_action: str = ""
    pod_selector: LabelSelector = field(default_factory=LabelSelector)
    ingress: list[KubernetesNetworkPolicyIngressRule] = field(default_factory=list)
    egress: list[KubernetesNetworkPolicyEgressRule] = field(default_factory=list)
    policy_types: list[str] = field(default_factory=list)


class StagedKubernetesNetworkPolicy(Resource, kw_only=True):
    """A Kubernetes NetworkPolicy that is not enforced yet."""

    resource_type = ResourceType(
        CRD_GROUP_VERSION, "StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", namespaced=True
    )
    spec: StagedKubernetesNetworkPolicySpec = field(default_factory=StagedKubernetesNetworkPolicySpec)


POLICY_KINDS: Final[tuple[type[Resource], ...]] = (
    NetworkPolicy,
    GlobalNetworkPolicy,
    Tier,
    HostEndpoint,
    NetworkSet,
    GlobalNetworkSet,
    StagedNetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
)
