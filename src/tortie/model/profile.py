"""Profile: labels and rules that an endpoint inherits. Only etcd stores it; in the Kubernetes datastore it is
derived from namespaces (`kns.<name>`) and service accounts (`ksa.<namespace>.<name>`)."""

from msgspec import Struct, field

from tortie.model.policies import Rule
from tortie.model.resources import CALICO_GROUP_VERSION, Resource, ResourceType


class ProfileSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Rules are asked after all policy."""

    ingress: list[Rule] = field(default_factory=list)
    egress: list[Rule] = field(default_factory=list)
    labels_to_apply: dict[str, str] = field(default_factory=dict)


class Profile(Resource, kw_only=True):
    """Calico Profile."""

    resource_type = ResourceType(CALICO_GROUP_VERSION, "Profile", "profiles")
    spec: ProfileSpec = field(default_factory=ProfileSpec)
