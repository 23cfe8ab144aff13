"""Random policies of Kubernetes and Calico as people write them, and what they mean.

The meaning is computed here from the texts' own pieces, with nothing of the product: a selector is chosen
together with a predicate, and a connection is judged by reading the specifications' sentences once more.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from tests.integration.dataplane.policy_lab import PORTS, TCP, UDP, Attempt

NAMES = {TCP: "TCP", UDP: "UDP"}
NAMESPACES: Mapping[str, Mapping[str, str]] = {
    "red": {"team": "x"},
    "green": {"team": "y"},
    "blue": {"team": "y", "zone": "dmz"},
}
TIERS = {"early": 100.0, "default": 1_000_000.0}
KUBERNETES_ORDER = 1000.0


@dataclass(frozen=True)
class Pod:
    """A pod of the world. `ports` maps a port's name to (protocol, number)."""

    name: str
    namespace: str
    address: str
    labels: Mapping[str, str]
    ports: Mapping[str, tuple[int, int]]

    @property
    def key(self) -> str:
        return f"{self.namespace}-{self.name}"


def world() -> list[Pod]:
    """Three namespaces with three pods each."""
    pods: list[Pod] = []
    for namespace in NAMESPACES:
        for number, labels in enumerate(
            ({"app": "web", "role": "front"}, {"app": "db"}, {"app": "web", "tier": "1"})
        ):
            address = f"10.5.0.{len(pods) + 1}"
            ports = {"http": (TCP, PORTS[len(pods) % 2]), "dns": (UDP, PORTS[number % 2])}
            pods.append(Pod(f"pod-{number}", namespace, address, labels, ports))
    return pods


Match = Callable[[Pod], bool]


@dataclass(frozen=True)
class Rule:
    """A rule with its meaning: which peers, protocols and ports."""

    action: str
    peer: Match
    traffic: Callable[[Pod, int, int], bool]  # receiving pod, protocol, port


@dataclass(frozen=True)
class Policy:
    """`kind` and `spec` are what is written; the rest is what it means."""

    kind: str
    name: str
    namespace: str
    spec: dict[str, Any] = field(hash=False)
    tier: str
    order: float
    selects: Match
    ingress: tuple[Rule, ...] | None  # None: says nothing about that direction
    egress: tuple[Rule, ...] | None


def allowed(policies: Iterable[Policy], source: Pod, destination: Pod, protocol: int, port: int) -> bool:
    """Whether the sender may send it and the receiver may receive it."""
    return all(
        _direction(policies, pod, peer, direction, destination, protocol, port)
        for pod, peer, direction in ((source, destination, "egress"), (destination, source, "ingress"))
    )


def _direction(
    policies: Iterable[Policy], pod: Pod, peer: Pod, direction: str, receiver: Pod, protocol: int, port: int
) -> bool:
    for tier in sorted(TIERS, key=lambda name: TIERS[name]):
        asked = [
            item
            for item in sorted(policies, key=lambda item: item.order)
            if item.tier == tier and getattr(item, direction) is not None and item.selects(pod)
        ]
        if not asked:
            continue
        verdict = "Deny"  # the end of a tier in which some policy selects the pod
        for rule in (rule for item in asked for rule in getattr(item, direction)):
            if rule.action != "Log" and rule.peer(peer) and rule.traffic(receiver, protocol, port):
                verdict = rule.action
                break
        if verdict != "Pass":
            return verdict == "Allow"
    return True  # the namespace's profile allows everything


def predict(policies: Iterable[Policy], pods: Iterable[Pod]) -> frozenset[Attempt]:
    """Every connection that gets through."""
    chosen, everybody = list(policies), list(pods)
    return frozenset(
        Attempt(source.key, destination.key, protocol, port)
        for source in everybody
        for destination in everybody
        if source is not destination
        for protocol in (TCP, UDP)
        for port in PORTS
        if allowed(chosen, source, destination, protocol, port)
    )


def _everybody(_pod: Pod) -> bool:
    return True


def _everything(_receiver: Pod, _protocol: int, _port: int) -> bool:
    return True


def kubernetes_policy(dice: random.Random, name: str) -> Policy:
    """A NetworkPolicy of Kubernetes."""
    namespace = dice.choice(sorted(NAMESPACES))
    selector, chosen = _label_selector(dice)
    directions = dice.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"], None))
    spec: dict[str, Any] = {"podSelector": selector}
    if directions is not None:
        spec["policyTypes"] = directions
    ingress = [_kubernetes_rule(dice, namespace) for _ in range(dice.randrange(3))]
    egress = [_kubernetes_rule(dice, namespace) for _ in range(dice.randrange(3))]
    if directions is None or "Ingress" in directions:
        spec["ingress"] = [
            {**item, **({"from": item["from"]} if "from" in item else {})} for item, _ in ingress
        ]
    has_egress = directions is not None and "Egress" in directions
    if has_egress or (directions is None and egress):
        spec["egress"] = [
            {("to" if key == "from" else key): value for key, value in item.items()} for item, _ in egress
        ]
        has_egress = True
    has_ingress = directions is None or "Ingress" in directions
    return Policy(
        "KubernetesNetworkPolicy",
        name,
        namespace,
        spec,
        "default",
        KUBERNETES_ORDER,
        lambda pod: pod.namespace == namespace and chosen(pod),
        tuple(rule for _, rule in ingress) if has_ingress else None,
        tuple(rule for _, rule in egress) if has_egress else None,
    )


def _label_selector(dice: random.Random) -> tuple[dict[str, Any], Match]:
    app = dice.choice(("web", "db", "none"))
    choices: list[tuple[dict[str, Any], Match]] = [
        ({}, _everybody),
        ({"matchLabels": {"app": app}}, lambda pod: pod.labels.get("app") == app),
        (
            {"matchExpressions": [{"key": "app", "operator": "In", "values": [app, "db"]}]},
            lambda pod: pod.labels.get("app") in (app, "db"),
        ),
        (
            {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [app]}]},
            lambda pod: pod.labels.get("app") != app,
        ),
        (
            {"matchExpressions": [{"key": "role", "operator": "Exists"}]},
            lambda pod: "role" in pod.labels,
        ),
        (
            {"matchLabels": {"app": app}, "matchExpressions": [{"key": "role", "operator": "DoesNotExist"}]},
            lambda pod: pod.labels.get("app") == app and "role" not in pod.labels,
        ),
    ]
    return dice.choice(choices)


def _kubernetes_rule(dice: random.Random, namespace: str) -> tuple[dict[str, Any], Rule]:
    peers = [_kubernetes_peer(dice, namespace) for _ in range(dice.randrange(3))]
    ports = [_kubernetes_port(dice) for _ in range(dice.randrange(3))]
    written: dict[str, Any] = {}
    if peers:
        written["from"] = [text for text, _ in peers]
    if ports:
        written["ports"] = [text for text, _ in ports]
    return written, Rule(
        "Allow",
        (lambda pod: any(match(pod) for _, match in peers)) if peers else _everybody,
        (lambda *traffic: any(match(*traffic) for _, match in ports)) if ports else _everything,
    )


def _kubernetes_peer(dice: random.Random, namespace: str) -> tuple[dict[str, Any], Match]:
    if dice.random() < 0.3:
        return _block(dice)
    selector, chosen = _label_selector(dice)
    if dice.random() < 0.5:
        return {"podSelector": selector}, lambda pod: pod.namespace == namespace and chosen(pod)
    team = dice.choice(("x", "y"))
    wanted: tuple[dict[str, Any], Callable[[Mapping[str, str]], bool]] = dice.choice(
        (
            ({}, lambda _labels: True),
            ({"matchLabels": {"team": team}}, lambda labels: labels.get("team") == team),
            (
                {"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]},
                lambda labels: "zone" not in labels,
            ),
        )
    )
    text: dict[str, Any] = {"namespaceSelector": wanted[0]}
    if dice.random() < 0.5:
        text["podSelector"] = selector
        return text, lambda pod: wanted[1](NAMESPACES[pod.namespace]) and chosen(pod)
    return text, lambda pod: wanted[1](NAMESPACES[pod.namespace])


def _block(dice: random.Random) -> tuple[dict[str, Any], Match]:
    cidr = dice.choice(("10.5.0.0/29", "10.5.0.4/30", "10.0.0.0/8", "10.5.0.2/32", "0.0.0.0/0"))
    text: dict[str, Any] = {"cidr": cidr}
    excluded = [item for item in ("10.5.0.2/31", "10.5.0.5/32") if dice.random() < 0.4]
    excluded = [item for item in excluded if IPv4Network(item).subnet_of(IPv4Network(cidr))]
    if excluded:
        text["except"] = excluded
    return {"ipBlock": text}, lambda pod: _inside(pod, [cidr]) and not _inside(pod, excluded)


def _inside(pod: Pod, networks: Iterable[str]) -> bool:
    return any(IPv4Address(pod.address) in IPv4Network(item) for item in networks)


def _kubernetes_port(dice: random.Random) -> tuple[dict[str, Any], Callable[[Pod, int, int], bool]]:
    protocol = dice.choice((TCP, UDP))
    text: dict[str, Any] = {"protocol": NAMES[protocol]}
    shape = dice.randrange(4)
    if shape == 0:
        return text, lambda _pod, used, _port: used == protocol
    if shape == 1:
        number = dice.choice(PORTS)
        return text | {"port": number}, lambda _pod, used, port: (used, port) == (protocol, number)
    if shape == 2:
        first = dice.choice((8000, 8081))
        return text | {
            "port": first,
            "endPort": 9000,
        }, lambda _pod, used, port: used == protocol and first <= port <= 9000
    name = dice.choice(("http", "dns"))
    return text | {"port": name}, lambda pod, used, port: used == protocol and pod.ports[name] == (used, port)


def calico_policy(dice: random.Random, name: str, order: float) -> Policy:
    """A NetworkPolicy or GlobalNetworkPolicy of Calico."""
    namespace = dice.choice(("", *sorted(NAMESPACES)))
    tier = dice.choice(sorted(TIERS))
    selector, chosen = _selector(dice)
    directions = dice.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
    ingress = [_calico_rule(dice, namespace, "source") for _ in range(dice.randrange(1, 4))]
    egress = [_calico_rule(dice, namespace, "destination") for _ in range(dice.randrange(1, 4))]
    spec: dict[str, Any] = {"tier": tier, "order": order, "selector": selector, "types": directions}
    if "Ingress" in directions:
        spec["ingress"] = [text for text, _ in ingress]
    if "Egress" in directions:
        spec["egress"] = [text for text, _ in egress]
    return Policy(
        "NetworkPolicy" if namespace else "GlobalNetworkPolicy",
        name if tier == "default" else f"{tier}.{name}",
        namespace,
        spec,
        tier,
        order,
        lambda pod: namespace in ("", pod.namespace) and chosen(pod),
        tuple(rule for _, rule in ingress) if "Ingress" in directions else None,
        tuple(rule for _, rule in egress) if "Egress" in directions else None,
    )


def _selector(dice: random.Random) -> tuple[str, Match]:
    app = dice.choice(("web", "db", "none"))
    choices: list[tuple[str, Match]] = [
        ("all()", _everybody),
        ("", _everybody),
        (f"app == '{app}'", lambda pod: pod.labels.get("app") == app),
        (f"app != '{app}'", lambda pod: pod.labels.get("app") != app),
        ("has(role)", lambda pod: "role" in pod.labels),
        (
            f"!has(role) && app in {{'{app}', 'x'}}",
            lambda pod: "role" not in pod.labels and pod.labels.get("app") == app,
        ),
        (f"app == '{app}' || has(tier)", lambda pod: pod.labels.get("app") == app or "tier" in pod.labels),
        ("app starts with 'w'", lambda pod: pod.labels.get("app", "").startswith("w")),
    ]
    return dice.choice(choices)


def _calico_rule(dice: random.Random, namespace: str, side: str) -> tuple[dict[str, Any], Rule]:
    action = dice.choice(("Allow", "Allow", "Deny", "Pass", "Log"))
    peer_text, peer = _calico_peer(dice, namespace)
    head, ports, traffic = _calico_traffic(dice)
    entities: dict[str, dict[str, Any]] = {side: peer_text}
    entities.setdefault("destination", {}).update(ports)
    text = {"action": action} | head | {key: value for key, value in entities.items() if value}
    return text, Rule(action, peer, traffic)


Traffic = Callable[[Pod, int, int], bool]


def _calico_traffic(dice: random.Random) -> tuple[dict[str, Any], dict[str, Any], Traffic]:
    """What stands in the rule, what stands in its destination, and what both mean."""
    protocol, number = dice.choice((TCP, UDP)), dice.choice(PORTS)
    is_protocol = {"protocol": NAMES[protocol]}
    choices: list[tuple[dict[str, Any], dict[str, Any], Traffic]] = [
        ({}, {}, _everything),
        (is_protocol, {}, lambda _pod, used, _port: used == protocol),
        ({"notProtocol": NAMES[protocol]}, {}, lambda _pod, used, _port: used != protocol),
        (
            is_protocol,
            {"ports": [number, "1:100"]},
            lambda _pod, used, port: (used, port) == (protocol, number),
        ),
        (is_protocol, {"notPorts": [number]}, lambda _pod, used, port: used == protocol and port != number),
        (
            is_protocol,
            {"ports": ["http", number]},
            lambda pod, used, port: (
                used == protocol and (port == number or pod.ports["http"] == (used, port))
            ),
        ),
    ]
    return dice.choice(choices)


def _calico_peer(dice: random.Random, namespace: str) -> tuple[dict[str, Any], Match]:
    shape = dice.randrange(6)
    if shape == 0:
        return {}, _everybody
    if shape == 1:
        return {"nets": ["10.5.0.4/30", "10.5.0.1/32"]}, lambda pod: _inside(
            pod, ["10.5.0.4/30", "10.5.0.1/32"]
        )
    if shape == 2:
        return {"notNets": ["10.5.0.0/30"]}, lambda pod: not _inside(pod, ["10.5.0.0/30"])
    selector, chosen = _selector(dice)
    if shape == 3:
        team = dice.choice(("x", "y"))
        return {
            "namespaceSelector": f"team == '{team}'",
            "selector": selector,
        }, lambda pod: NAMESPACES[pod.namespace].get("team") == team and chosen(pod)
    selector = selector or "all()"
    if shape == 4:
        return {
            "selector": "all()",
            "notSelector": selector,
            "namespaceSelector": "all()",
        }, lambda pod: not chosen(pod)
    # Without a namespace selector, a namespaced policy's rule means pods of its own namespace.
    return {"selector": selector}, lambda pod: namespace in ("", pod.namespace) and chosen(pod)
