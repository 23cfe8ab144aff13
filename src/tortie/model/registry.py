"""The table of all kinds: what exists, under which names, and which struct reads it.

kind      resource_type.kind, as in documents
plural    resource_type.plural, as in the API's paths and etcd's keys
...       resource_type.api_version, resource_type.namespaced
"""

from typing import Final

from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.policies import POLICY_KINDS
from tortie.model.profile import Profile
from tortie.model.resources import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    BlockAffinity,
    CalicoNodeStatus,
    ClusterInformation,
    FelixConfiguration,
    IPAMBlock,
    IPAMConfig,
    IPAMHandle,
    IPPool,
    IPReservation,
    KubeControllersConfiguration,
    Node,
    Pod,
    Resource,
)

# Who allocates writes these; people do not.
IPAM_STATE_KINDS: Final[tuple[type[Resource], ...]] = (BlockAffinity, IPAMBlock, IPAMHandle)

CONFIGURATION_KINDS: Final[tuple[type[Resource], ...]] = (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    CalicoNodeStatus,
    ClusterInformation,
    FelixConfiguration,
    IPAMConfig,
    IPPool,
    IPReservation,
    KubeControllersConfiguration,
)

# Everything of crd.projectcalico.org/v1, in order of the kind's name.
CRD_KINDS: Final[tuple[type[Resource], ...]] = tuple(
    sorted((*IPAM_STATE_KINDS, *CONFIGURATION_KINDS, *POLICY_KINDS), key=lambda kind: kind.resource_type.kind)
)

# Kubernetes' own objects that the network reads, and Calico's kinds that only etcd stores.
NATIVE_KINDS: Final[tuple[type[Resource], ...]] = (Node, Pod)
ETCD_ONLY_KINDS: Final[tuple[type[Resource], ...]] = (WorkloadEndpoint, Profile)

KINDS: Final[tuple[type[Resource], ...]] = (*CRD_KINDS, *NATIVE_KINDS, *ETCD_ONLY_KINDS)

_BY_NAME: Final = {(kind.resource_type.api_version, kind.resource_type.kind): kind for kind in KINDS}
_CRD_BY_NAME: Final = {kind.resource_type.kind: kind for kind in CRD_KINDS}


def kind_of(api_version: str, kind: str) -> type[Resource]:
    """The struct for a document's apiVersion and kind. Raise LookupError with a sentence."""
    found = _BY_NAME.get((api_version, kind))
    if found is None:
        known = ", ".join(sorted({item.resource_type.kind for item in KINDS}))
        raise LookupError(f"kind {kind!r} of apiVersion {api_version!r} is not known; known are: {known}")
    return found


def crd_kind(kind: str) -> type[Resource]:
    """The struct of a kind of crd.projectcalico.org/v1 by its name. Raise LookupError with a sentence."""
    found = _CRD_BY_NAME.get(kind)
    if found is None:
        raise LookupError(f"kind {kind!r} is not known; known are: {', '.join(sorted(_CRD_BY_NAME))}")
    return found
