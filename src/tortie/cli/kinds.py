"""The kinds that tortiectl knows: their names, their columns, where they are stored, what may be done."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tortie.cli import columns, kubernetes_policies, native
from tortie.cli.columns import Columns, from_spec
from tortie.cli.documents import API_VERSION, Document, document, spec_of, stored_kind
from tortie.model.policy_natives import KubernetesNetworkPolicy, Namespace, ServiceAccount
from tortie.model.resources import (
    CALICO_GROUP_VERSION,
    CRD_GROUP_VERSION,
    BlockAffinity,
    IPAMBlock,
    IPAMConfig,
    IPAMHandle,
    Node,
    Pod,
    Resource,
    ResourceType,
)

Backend = Literal["kubernetes", "etcdv3"]
Verb = Literal["create", "change", "delete"]  # change: apply to what exists, replace, patch, label


class UnknownKindError(ValueError):
    """Someone asked for a kind that does not exist; the message lists those that do, or names the nearest."""


def _from_stored(resource: Resource) -> Document | None:
    """Every kind that has no peculiarity."""
    status = getattr(resource, "status", None)
    return document(resource.resource_type.kind, resource.metadata, spec_of(resource), status)


Convert = Callable[[Any], Document | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `title` is its name in documents; `names` what the command line takes, plural first.

    `stored` is its kind in the datastore where that has another name. `sources` are the native kinds that it
    is read from when the datastore is Kubernetes. `refused` says which verbs it does not have and why; a
    reason in `only_etcd` concerns Kubernetes only, where the kind is derived. `typed` reads a kind that etcd
    keeps in a form of its own. `guest` is a native kind that Kubernetes shows beside this one's own objects.
    """

    title: str
    names: tuple[str, ...]
    headings: tuple[str, ...]
    wide: tuple[str, ...]
    cells: Columns
    namespaced: bool = False
    stored: str = ""
    sources: tuple[type[Resource], ...] = ()
    convert: Convert = _from_stored
    refused: dict[Verb, str] = field(default_factory=dict)
    only_etcd: dict[Verb, str] = field(default_factory=dict)
    in_tiers: bool = False
    typed: type[Resource] | None = None
    guest: type[Resource] | None = None

    @property
    def plural(self) -> str:
        """Name of the resource in the API."""
        return self.names[0]

    def where(self, backend: Backend) -> ResourceType:
        """Where the kind is stored: Kubernetes has no key for a derived kind, etcd has."""
        derived = bool(self.sources)
        version = CALICO_GROUP_VERSION if derived and backend == "etcdv3" else CRD_GROUP_VERSION
        plural = f"{self.stored.lower()}s" if self.stored else self.plural
        return ResourceType(version, self.stored or self.title, plural, self.namespaced)

    def stored_kind(self, backend: Backend) -> type[Resource]:
        """The kind to read and write at `where`."""
        if backend == "etcdv3" and self.typed is not None:
            return self.typed
        return stored_kind(self.where(backend))

    def reads(self, backend: Backend) -> tuple[type[Resource], ...]:
        """The kinds whose objects make up this one's. Nodes look alike in both datastores."""
        derived = self.sources and (backend == "kubernetes" or self.title == "Node")
        return self.sources if derived else (self.stored_kind(backend),)

    def to_document(self, resource: Resource) -> Document | None:
        """The v3 form; None for an object that does not exist for people: a pod without an endpoint, a block
        that is being deleted."""
        derived = type(resource) in (*self.sources, self.guest)
        body = self.convert(resource) if derived else _from_stored(resource)
        if body is None or body["spec"].get("deleted") in (True, "true"):
            return None
        if self.title == "BlockAffinity":
            # A string where it is stored, a boolean in the v3 API.
            body["spec"] = {**body["spec"], "deleted": False}
        return {**body, "kind": self.title}

    def is_guest(self, name: str) -> bool:
        """Whether an object of this name is of the kind `guest`."""
        return self.guest is not None and name.startswith(kubernetes_policies.PREFIX)

    def reason_against(self, verb: Verb, backend: Backend, name: str) -> str:
        """Why `verb` is not possible with this object; nothing when it is."""
        if self.is_guest(name):
            return kubernetes_policies.reason_against(name)
        return self.refused.get(verb) or (self.only_etcd.get(verb, "") if backend == "kubernetes" else "")


def document_list(kind: Kind, items: list[Document], resource_version: str) -> Document:
    """A list in the v3 API."""
    return {
        "apiVersion": API_VERSION,
        "kind": f"{kind.title}List",
        "items": items,
        "metadata": {"resourceVersion": resource_version},
    }


def _read_only(reason: str) -> dict[Verb, str]:
    return {"create": reason, "change": reason, "delete": reason}


_IPAM_ONLY: Final = "IPAM writes it; use tortiectl ipam"
_POD_DERIVED: Final = "it is derived from its pod; change the pod"
_PROFILE_DERIVED: Final = (
    "the Kubernetes datastore derives profiles from namespaces and service accounts; change those"
)


def _policy(
    title: str,
    namespaced: bool,
    *names: str,
    guest: type[Resource] | None = None,
    convert: Convert = _from_stored,
) -> Kind:
    return Kind(
        title,
        names,
        ("NAME", "TIER"),
        ("NAME", "TIER", "ORDER", "SELECTOR"),
        columns.policy,
        namespaced=namespaced,
        in_tiers=True,
        guest=guest,
        convert=convert,
    )


def _plain(title: str, *names: str) -> Kind:
    return Kind(title, names, ("NAME",), ("NAME",), columns.named)


KINDS: Final = (
    Kind(
        "BGPConfiguration",
        ("bgpconfigurations", "bgpconfiguration", "bgpconfig", "bgpconfigs"),
        ("NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"),
        ("NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"),
        columns.bgp_configuration,
    ),
    _plain("BGPFilter", "bgpfilters", "bgpfilter", "bgpf"),
    Kind(
        "BGPPeer",
        ("bgppeers", "bgppeer", "bgpp", "bgpps", "bp", "bps"),
        ("NAME", "PEERIP", "NODE", "ASN"),
        ("NAME", "PEERIP", "NODE", "ASN"),
        columns.bgp_peer,
    ),
    Kind(
        "BlockAffinity",
        ("blockaffinities", "blockaffinity", "affinities", "affinity"),
        ("NAME", "CIDR", "NODE"),
        ("NAME", "CIDR", "NODE", "STATE", "TYPE"),
        from_spec(CIDR="cidr", NODE="node", STATE="state", TYPE="type"),
        refused=_read_only(_IPAM_ONLY),
        typed=BlockAffinity,
    ),
    Kind(
        "CalicoNodeStatus",
        ("caliconodestatuses", "caliconodestatus", "nodestatus", "nodestatuses"),
        ("NAME", "NODE"),
        ("NAME", "NODE", "CLASSES"),
        from_spec(NODE="node", CLASSES="classes"),
    ),
    Kind(
        "ClusterInformation",
        ("clusterinformations", "clusterinformation", "clusterinfo", "clusterinfos"),
        ("NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"),
        ("NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"),
        from_spec(
            CLUSTERGUID="clusterGUID",
            CLUSTERTYPE="clusterType",
            CALICOVERSION="calicoVersion",
            DATASTOREREADY="datastoreReady",
        ),
        refused=_read_only("calico-node writes it; use tortiectl datastore migrate lock to stop the cluster"),
    ),
    _plain("FelixConfiguration", "felixconfigurations", "felixconfiguration", "felixconfig", "felixconfigs"),
    _policy("GlobalNetworkPolicy", False, "globalnetworkpolicies", "globalnetworkpolicy", "gnp", "gnps"),
    Kind(
        "GlobalNetworkSet",
        ("globalnetworksets", "globalnetworkset"),
        ("NAME",),
        ("NAME", "NETS"),
        columns.cut_list("NETS", "nets"),
    ),
    Kind(
        "HostEndpoint",
        ("hostendpoints", "hostendpoint", "hep", "heps"),
        ("NAME", "NODE"),
        ("NAME", "NODE", "INTERFACE", "IPS", "PROFILES"),
        from_spec(NODE="node", INTERFACE="interfaceName", IPS="expectedIPs", PROFILES="profiles"),
    ),
    Kind(
        "IPAMBlock",
        ("ipamblocks", "ipamblock", "blocks", "block"),
        ("NAME", "CIDR", "AFFINITY", "USED"),
        ("NAME", "CIDR", "AFFINITY", "USED"),
        columns.block,
        typed=IPAMBlock,
        refused=_read_only(_IPAM_ONLY),
    ),
    Kind(
        "IPAMConfiguration",
        ("ipamconfigurations", "ipamconfiguration", "ipamconfig", "ipamconfigs"),
        ("NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"),
        ("NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS", "MAXBLOCKSPERHOST"),
        from_spec(
            STRICTAFFINITY="strictAffinity",
            AUTOALLOCATEBLOCKS="autoAllocateBlocks",
            MAXBLOCKSPERHOST="maxBlocksPerHost",
        ),
        stored="IPAMConfig",
        typed=IPAMConfig,
    ),
    Kind(
        "IPAMHandle",
        ("ipamhandles", "ipamhandle", "handles", "handle"),
        ("NAME", "USED"),
        ("NAME", "HANDLE", "USED"),
        columns.handle,
        typed=IPAMHandle,
        refused=_read_only(_IPAM_ONLY),
    ),
    Kind(
        "IPPool",
        ("ippools", "ippool", "ipp", "ipps", "pool", "pools"),
        ("NAME", "CIDR", "SELECTOR"),
        ("NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT", "SELECTOR"),
        columns.pool,
    ),
    Kind(
        "IPReservation",
        ("ipreservations", "ipreservation", "reservation", "reservations"),
        ("NAME",),
        ("NAME", "CIDRS"),
        columns.cut_list("CIDRS", "reservedCIDRs"),
    ),
    _plain(
        "KubeControllersConfiguration",
        "kubecontrollersconfigurations",
        "kubecontrollersconfiguration",
        "kubecontrollersconfig",
        "kubecontrollersconfigs",
    ),
    _policy(
        "NetworkPolicy",
        True,
        "networkpolicies",
        "networkpolicy",
        "policy",
        "np",
        "policies",
        "pol",
        "pols",
        guest=KubernetesNetworkPolicy,
        convert=kubernetes_policies.policy_document,
    ),
    Kind(
        "NetworkSet",
        ("networksets", "networkset", "netsets"),
        ("NAME",),
        ("NAME", "NETS"),
        columns.cut_list("NETS", "nets"),
        namespaced=True,
    ),
    Kind(
        "Node",
        ("nodes", "node", "no"),
        ("NAME",),
        ("NAME", "ASN", "IPV4", "IPV6"),
        columns.node,
        sources=(Node,),
        convert=native.node_document,
        only_etcd={
            "create": "the Kubernetes datastore derives nodes from Kubernetes'; join the node with kubeadm",
            "delete": "the Kubernetes datastore derives nodes from Kubernetes'; use kubectl delete node",
        },
    ),
    Kind(
        "Profile",
        ("profiles", "profile", "pro", "pros"),
        ("NAME",),
        ("NAME", "LABELS"),
        columns.profile,
        sources=(Namespace, ServiceAccount),
        convert=native.profile_document,
        only_etcd=_read_only(_PROFILE_DERIVED),
    ),
    _policy(
        "StagedGlobalNetworkPolicy",
        False,
        "stagedglobalnetworkpolicies",
        "stagedglobalnetworkpolicy",
        "sgnp",
        "sgnps",
    ),
    Kind(
        "StagedKubernetesNetworkPolicy",
        (
            "stagedkubernetesnetworkpolicies",
            "stagedkubernetesnetworkpolicy",
            "stagedkubernetespolicy",
            "sknp",
            "stagedkubernetespolicies",
            "skpol",
            "skpols",
        ),
        ("NAME",),
        ("NAME", "PODSELECTOR"),
        columns.kubernetes_policy,
        namespaced=True,
    ),
    _policy(
        "StagedNetworkPolicy",
        True,
        "stagednetworkpolicies",
        "stagednetworkpolicy",
        "stagedpolicy",
        "snp",
        "stagedpolicies",
        "spol",
        "spols",
    ),
    Kind(
        "Tier",
        ("tiers", "tier"),
        ("NAME", "ORDER"),
        ("NAME", "ORDER", "DEFAULTACTION"),
        columns.tier,
    ),
    Kind(
        "WorkloadEndpoint",
        ("workloadendpoints", "workloadendpoint", "weps", "wep"),
        ("WORKLOAD", "NODE", "NETWORKS", "INTERFACE"),
        ("NAME", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE", "PROFILES", "NATS"),
        columns.workload_endpoint,
        namespaced=True,
        sources=(Pod,),
        convert=native.endpoint_document,
        only_etcd=_read_only(_POD_DERIVED),
    ),
)

_LONG_NAME: Final = 5
# Kinds' names in documents of other versions of Calico.
_FORMER_TITLES: Final = {"IPAMConfig": "IPAMConfiguration"}


def kind_named(name: str) -> Kind:
    """The kind with this name on the command line, plural, singular or short, in any case. Raise
    UnknownKindError."""
    for kind in KINDS:
        if name.lower() in kind.names:
            return kind
    # Short names resemble everything.
    candidates = [name for kind in KINDS for name in kind.names if len(name) >= _LONG_NAME]
    hint = _nearest(name.lower(), candidates, [kind.plural for kind in KINDS])
    raise UnknownKindError(f"unknown kind {name!r}; {hint}")


def kind_titled(title: str) -> Kind:
    """The kind with this name in documents. Raise UnknownKindError."""
    wanted = _FORMER_TITLES.get(title, title)
    for kind in KINDS:
        if wanted == kind.title:
            return kind
    known = [kind.title for kind in KINDS]
    raise UnknownKindError(f"is no kind; {_nearest(title, known, known)}")


def _nearest(name: str, candidates: list[str], known: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else f"known are: {', '.join(known)}"
