"""Everything that labels are asked of: pods' endpoints, host endpoints, network sets.

An item's own labels come before those it inherits from its profiles: `kns.<namespace>` gives the namespace's
labels as `pcns.*`, `ksa.<namespace>.<account>` the account's as `pcsa.*`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tortie.model.constants import LABEL_NAMESPACE, LABEL_SERVICE_ACCOUNT
from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.policies import GlobalNetworkSet, HostEndpoint, NetworkSet
from tortie.model.policy_natives import EndpointSlice, Namespace, ServiceAccount
from tortie.model.policy_values import PROTOCOLS_WITH_PORTS, TCP, parse_network, protocol_number
from tortie.policy.state import Action, Member, NamedPort, Network, PolicyKey, PolicyRules, Rule

PREFIX_NAMESPACE: Final = "pcns."
PREFIX_SERVICE_ACCOUNT: Final = "pcsa."
_INHERITED: Final = (PREFIX_NAMESPACE, PREFIX_SERVICE_ACCOUNT)
LABEL_NAME: Final = "projectcalico.org/name"  # inherited: the namespace's or account's name
PROFILE_DEFAULT_ALLOW: Final = "projectcalico-default-allow"
PROFILE_KIND: Final = "Profile"

ItemID = tuple[str, str, str]  # kind, namespace, name
KIND_WORKLOAD: Final = "Pod"
KIND_HOST: Final = "HostEndpoint"


@dataclass(frozen=True, slots=True)
class Port:
    """A port with a name; `protocol` is a number."""

    name: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Item:
    """`labels` are its own. `interface` and `node` are empty for a network set; `allowed_sources` are what a
    pod asks to send from beside its own addresses."""

    id: ItemID
    labels: Mapping[str, str]
    profiles: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    ports: tuple[Port, ...] = ()
    interface: str = ""
    node: str = ""
    allowed_sources: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """What a namespace or a service account gives to its endpoints."""

    name: str
    labels: Mapping[str, str]
    rules: PolicyRules

    @property
    def key(self) -> PolicyKey:
        """As the dataplane knows it."""
        return PolicyKey(PROFILE_KIND, self.name)


ALLOW_ALL: Final = PolicyRules(ingress=(Rule(Action.ALLOW),), egress=(Rule(Action.ALLOW),))
DEFAULT_ALLOW: Final = Profile(PROFILE_DEFAULT_ALLOW, {}, ALLOW_ALL)


def namespace_profile_name(namespace: str) -> str:
    """Profile of a namespace."""
    return f"kns.{namespace}"


def service_account_profile_name(namespace: str, account: str) -> str:
    """Profile of a service account."""
    return f"ksa.{namespace}.{account}"


def namespace_profile(namespace: Namespace) -> Profile:
    """Allows everything, both ways: a pod that no policy selects is open."""
    metadata = namespace.metadata
    labels = _prefixed(metadata.labels | {LABEL_NAME: metadata.name}, PREFIX_NAMESPACE)
    return Profile(namespace_profile_name(metadata.name), labels, ALLOW_ALL)


def service_account_profile(account: ServiceAccount) -> Profile:
    """Only labels: it decides nothing."""
    metadata = account.metadata
    labels = _prefixed(metadata.labels | {LABEL_NAME: metadata.name}, PREFIX_SERVICE_ACCOUNT)
    return Profile(service_account_profile_name(metadata.namespace, metadata.name), labels, PolicyRules())


def _prefixed(labels: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {prefix + name: value for name, value in labels.items()}


def effective_labels(item: Item, profiles: Mapping[str, Profile]) -> Mapping[str, str]:
    """The item's labels and those it inherits; the nearest wins."""
    inherited = [profiles[name].labels for name in item.profiles if name in profiles]
    if not inherited:
        return item.labels
    labels: dict[str, str] = {}
    for layer in reversed(inherited):
        labels.update(layer)
    labels.update(item.labels)
    return labels


def _own_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Labels without those that only a namespace or service account gives: who may write a pod's labels must
    not choose to which namespace's policies it is a friend."""
    if any(name.startswith(_INHERITED) for name in labels):
        return {name: value for name, value in labels.items() if not name.startswith(_INHERITED)}
    return labels


def workload_id(endpoint: WorkloadEndpoint) -> ItemID:
    """By pod, or by interface where the container belongs to no pod."""
    return KIND_WORKLOAD, endpoint.metadata.namespace, endpoint.spec.pod or endpoint.spec.interface_name


def workload_item(endpoint: WorkloadEndpoint, allowed_sources: tuple[Network, ...] = ()) -> Item:
    """The item of a pod's endpoint."""
    metadata, spec = endpoint.metadata, endpoint.spec
    labels = _own_labels(metadata.labels)
    if labels.get(LABEL_SERVICE_ACCOUNT, spec.service_account_name) != spec.service_account_name:
        labels = {name: value for name, value in labels.items() if name != LABEL_SERVICE_ACCOUNT}
    return Item(
        id=workload_id(endpoint),
        labels=labels,
        profiles=tuple(spec.profiles),
        networks=_networks(spec.ip_networks),
        ports=_ports((port.name, port.protocol, port.port) for port in spec.ports),
        interface=spec.interface_name,
        node=spec.node,
        allowed_sources=allowed_sources,
    )


def host_item(endpoint: HostEndpoint) -> Item:
    """The item of a host endpoint: rules find it by its expectedIPs."""
    metadata, spec = endpoint.metadata, endpoint.spec
    return Item(
        id=(KIND_HOST, "", metadata.name),
        labels=metadata.labels,
        profiles=tuple(spec.profiles),
        networks=_networks(spec.expected_ips),
        ports=_ports((port.name, port.protocol, port.port) for port in spec.ports),
        interface=spec.interface_name,
        node=spec.node,
    )


def network_set_item(resource: NetworkSet | GlobalNetworkSet) -> Item:
    """The item of a network set; one of a namespace inherits the namespace's labels."""
    metadata = resource.metadata
    labels: dict[str, str] = dict(metadata.labels)
    if isinstance(resource, NetworkSet):
        labels = dict(_own_labels(labels))
    labels.pop(LABEL_NAMESPACE, None)  # only the namespace itself may say that
    profiles: tuple[str, ...] = ()
    if isinstance(resource, NetworkSet):
        labels[LABEL_NAMESPACE] = metadata.namespace
        profiles = (namespace_profile_name(metadata.namespace),)
    return Item(
        id=(resource.resource_type.kind, metadata.namespace, metadata.name),
        labels=labels,
        profiles=profiles,
        networks=_networks(resource.spec.nets),
    )


def service_members(piece: EndpointSlice, *, with_ports: bool) -> Iterator[Member]:
    """Addresses of a slice, or address, protocol and port; ready or not, so that rules do not flap."""
    networks = _networks(text for endpoint in piece.endpoints or () for text in endpoint.addresses or ())
    if not with_ports:
        yield from networks
        return
    for port in piece.ports or ():
        protocol = _protocol(port.protocol or "TCP")
        if port.port is None or protocol is None:
            continue  # a port without a number stands for no port that a packet could have
        for network in networks:
            yield NamedPort(network.network_address, protocol, port.port)


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """What cannot be read is left out: it is no address that a packet could have."""
    networks: dict[Network, None] = {}
    for text in texts:
        try:
            networks[parse_network(text)] = None
        except ValueError:
            continue
    return tuple(networks)


@lru_cache(maxsize=64)
def _protocol(protocol: str | int) -> int | None:
    try:
        number = protocol_number(protocol)
    except ValueError:
        return None
    return number if number in PROTOCOLS_WITH_PORTS else None


def _ports(ports: Iterable[tuple[str, str | int, int]]) -> tuple[Port, ...]:
    found = []
    for name, protocol, port in ports:
        number = _protocol(protocol or TCP)
        if name and number is not None:
            found.append(Port(name, number, port))
    return tuple(found)
