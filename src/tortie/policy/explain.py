"""Which tier, policy and rule decide about a connection, for people who ask why."""

from collections.abc import Iterable
from dataclasses import dataclass

from tortie.model.endpoints import WorkloadEndpoint, workload_endpoint
from tortie.model.policy_values import parse_network
from tortie.model.resources import Pod, Resource
from tortie.policy.evaluate import Direction, Packet, Verdict, workload_verdict
from tortie.policy.explain_host import Failsafes, HostView, StageWord, host_view, host_words
from tortie.policy.snapshot import snapshot
from tortie.policy.sources import PolicyResource, policy_key, read_policy
from tortie.policy.state import Address


@dataclass(frozen=True, slots=True)
class Explained:
    """One endpoint's word. `rule` is the path of the rule that decides (`spec.ingress[0]`), as its author
    wrote it; empty when a default or a profile decides."""

    direction: Direction
    namespace: str
    pod: str
    verdict: Verdict
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`egress` is the source's word, `ingress` the destination's; None where that is no pod."""

    packet: Packet
    egress: Explained | None
    ingress: Explained | None

    @property
    def allowed(self) -> bool:
        """Whether the connection comes about, as far as the pods' policies go; `explain_host` asks host
        endpoints."""
        return all(side.verdict.allowed for side in (self.egress, self.ingress) if side is not None)


def explain(
    resources: Iterable[Resource],
    source: Pod | Address,
    destination: Pod | Address,
    *,
    protocol: int,
    port: int | None = None,
    source_port: int | None = None,
) -> Explanation:
    """`resources` are all objects that policy reads, of the whole cluster. An address that is a pod's stands
    for that pod. Raise ValueError when a pod has no address, or the two have none of one IP version."""
    objects = list(resources)
    ends = _endpoints(objects)
    source_address, destination_address = _common(_choices(source), _choices(destination))
    packet = Packet(source_address, destination_address, protocol, source_port, port)
    return Explanation(
        packet,
        egress=_side(objects, ends.get(source_address), Direction.EGRESS, packet),
        ingress=_side(objects, ends.get(destination_address), Direction.INGRESS, packet),
    )


@dataclass(frozen=True, slots=True)
class HostExplanation:
    """What happens at a host endpoint. `words` are the stages' with the path of the rule that decides, as in
    `Explained`; `pods` are the words of the pods at the ends of what the node forwards."""

    view: HostView
    direction: Direction
    forwarded: bool
    packet: Packet
    words: tuple[tuple[StageWord, str], ...]
    pods: tuple[Explained, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the connection comes about, as far as this host endpoint and the pods go."""
        return self.words[-1][0].verdict.allowed and all(side.verdict.allowed for side in self.pods)


def explain_host(
    resources: Iterable[Resource],
    name: str,
    source: Pod | Address | None,
    destination: Pod | Address | None,
    *,
    protocol: int,
    failsafes: Failsafes,
    port: int | None = None,
    address: Address | None = None,
) -> HostExplanation:
    """A connection through the interface of HostEndpoint `name`: from `source` to the node, from the node to
    `destination`, or with both, what the node forwards. That comes in by the interface, unless `source` is a
    pod of the node: then it goes out there. `address` is the node's own, for an endpoint without expectedIPs.
    Raise ValueError with what is missing or makes no sense.
    """
    objects = list(resources)
    view = host_view(objects, name)
    ends = _endpoints(objects)
    own = view.addresses or ((address,) if address is not None else ())
    if source is None and destination is None:
        raise ValueError("The other end is missing: say who connects, or to whom the node connects.")
    if not own and (source is None or destination is None):
        raise ValueError(
            f"HostEndpoint {name} has no expectedIPs: say which address of {view.node} is meant (--address)."
        )
    sources = list(own) if source is None else _choices(source)
    destinations = list(own) if destination is None else _choices(destination)
    packet = Packet(*_common(sources, destinations), protocol, None, port)
    local = {found for found, endpoint in ends.items() if endpoint.spec.node == view.node}
    forwarded = source is not None and destination is not None
    from_here = packet.source in local
    if packet.source in local and packet.destination in local:
        raise ValueError("Both pods are on the endpoint's node: they reach each other without its interface.")
    if not forwarded and (from_here or packet.destination in local):
        raise ValueError(
            f"A pod and its own node {view.node} reach each other by the pod's interface: host endpoints are "
            "not asked. Explain the pod instead."
        )
    direction = Direction.EGRESS if source is None or (forwarded and from_here) else Direction.INGRESS
    words = host_words(view, direction, packet, failsafes, forwarded=forwarded)
    sides = (
        _side(objects, ends.get(packet.source), Direction.EGRESS, packet),
        _side(objects, ends.get(packet.destination), Direction.INGRESS, packet),
    )
    return HostExplanation(
        view,
        direction,
        forwarded,
        packet,
        tuple((word, _written_rule(objects, direction, word.verdict)) for word in words),
        tuple(side for side in sides if side is not None),
    )


def _endpoints(objects: Iterable[Resource]) -> dict[Address, WorkloadEndpoint]:
    """The pods' endpoints by address."""
    return {
        address: endpoint
        for endpoint in (workload_endpoint(item) for item in objects if isinstance(item, Pod))
        if endpoint is not None
        for address in _addresses(endpoint)
    }


def _addresses(endpoint: WorkloadEndpoint) -> list[Address]:
    return [parse_network(text).network_address for text in endpoint.spec.ip_networks]


def _choices(end: Pod | Address) -> list[Address]:
    if not isinstance(end, Pod):
        return [end]
    endpoint = workload_endpoint(end)
    if endpoint is None:
        name = f"{end.metadata.namespace}/{end.metadata.name}"
        raise ValueError(
            f"Pod {name} has no address of the pod network: it is not started, finished, or uses its node's."
        )
    return _addresses(endpoint)


def _common(sources: list[Address], destinations: list[Address]) -> tuple[Address, Address]:
    """A pair of one IP version, IPv4 if there is one."""
    for version in (4, 6):
        pair = [
            next((address for address in side if address.version == version), None)
            for side in (sources, destinations)
        ]
        if pair[0] is not None and pair[1] is not None:
            return pair[0], pair[1]
    raise ValueError(
        f"{sources[0]} and {destinations[0]} are not of the same IP version: nothing connects them."
    )


def _side(
    objects: list[Resource], endpoint: WorkloadEndpoint | None, direction: Direction, packet: Packet
) -> Explained | None:
    if endpoint is None:
        return None
    state = snapshot(objects, endpoint.spec.node)
    verdict = workload_verdict(state, endpoint.spec.interface_name, direction, packet)
    return Explained(
        direction,
        endpoint.metadata.namespace,
        endpoint.spec.pod,
        verdict,
        _written_rule(objects, direction, verdict),
    )


def _written_rule(objects: list[Resource], direction: Direction, verdict: Verdict) -> str:
    """The path of the rule that decides: one written rule may make several, or none."""
    key, position = verdict.policy, verdict.rule
    for resource in objects:
        if not isinstance(resource, PolicyResource):
            continue
        if policy_key(type(resource), resource.metadata.namespace, resource.metadata.name) == key:
            policy, _ = read_policy(resource)
            if policy is not None and position is not None:
                return policy.origins[direction][position]
    return ""
