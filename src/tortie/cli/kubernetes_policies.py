"""Kubernetes' own NetworkPolicies as `get networkpolicies` shows them: in the v3 form, to be read only.

The names, the order and the form of the rules are those that Calico's tools show. The nodes do not read this
form: `tortie.policy.kubernetes` makes rules of the same object directly.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tortie.cli.documents import Document, document
from tortie.model.policies import EGRESS, INGRESS
from tortie.model.policy_kubernetes import KubernetesRule
from tortie.model.policy_natives import (
    KubernetesNetworkPolicy,
    KubernetesPeer,
    KubernetesPolicyPort,
    LabelSelector,
)
from tortie.model.selectors import ALL, Selector, all_of
from tortie.policy.compile import UnreadableError
from tortie.policy.kubernetes import ORDER, PODS, label_selector

PREFIX: Final = "knp.default."


def reason_against(name: str) -> str:
    """Why nobody writes a NetworkPolicy of this name; nothing when it is not Kubernetes'."""
    if not name.startswith(PREFIX):
        return ""
    own = name.removeprefix(PREFIX)
    return (
        f"names that begin with {PREFIX} stand for Kubernetes' own policies; "
        f"use kubectl for networkpolicies.networking.k8s.io {own}"
    )


def policy_document(policy: KubernetesNetworkPolicy) -> Document:
    """The policy in the v3 form."""
    metadata = msgspec.structs.replace(policy.metadata, name=PREFIX + policy.metadata.name)
    spec = policy.spec
    body: Document = {"tier": "default", "order": int(ORDER), "selector": _selector(spec.pod_selector)}
    types = spec.policy_types or [INGRESS, *([EGRESS] if spec.egress else [])]
    for direction, rules in ((INGRESS, spec.ingress), (EGRESS, spec.egress)):
        if direction in types and rules:
            body[direction.lower()] = [item for rule in rules for item in _rules(rule, direction)]
    return document("NetworkPolicy", metadata, {**body, "types": types})


def _rules(rule: KubernetesRule, direction: str) -> list[Document]:
    """One rule for each protocol and peer, as the v3 form has one of each in a rule."""
    peer_side = "source" if direction == INGRESS else "destination"
    found = []
    for protocol, ports in _ports(rule.ports or ()):
        for peer in rule.peers or (None,):
            sides: dict[str, Document] = {"source": {}, "destination": {}}
            sides[peer_side] |= _peer(peer)
            if ports:
                sides["destination"]["ports"] = ports
            named = {"protocol": protocol} if protocol else {}
            found.append({"action": "Allow", **named, **{side: body for side, body in sides.items() if body}})
    return found


def _ports(ports: Sequence[KubernetesPolicyPort]) -> list[tuple[str, list[int | str]]]:
    """Ports by protocol; an empty list is every port. Without any port, one entry for every protocol."""
    if not ports:
        return [("", [])]
    protocols = list(dict.fromkeys(port.protocol or "TCP" for port in ports))
    return [
        (protocol, _of_one_protocol([port for port in ports if (port.protocol or "TCP") == protocol]))
        for protocol in protocols
    ]


def _of_one_protocol(ports: Iterable[KubernetesPolicyPort]) -> list[int | str]:
    found: list[int | str] = []
    for item in ports:
        if item.port is None:
            return []
        found.append(f"{item.port}:{item.end_port}" if item.end_port is not None else item.port)
    return found


def _peer(peer: KubernetesPeer | None) -> Document:
    if peer is None:
        return {}
    if peer.ip_block is not None:
        excluded = {"notNets": list(peer.ip_block.excluded)} if peer.ip_block.excluded else {}
        return {"nets": [peer.ip_block.cidr], **excluded}
    body = {"selector": _selector(peer.pod_selector)}
    if peer.namespace_selector is not None:
        body["namespaceSelector"] = _text(ALL, peer.namespace_selector)
    return body


def _selector(labels: LabelSelector | None) -> str:
    """Pods with these labels; without labels, all pods."""
    return _text(PODS, labels or LabelSelector())


def _text(before: Selector, labels: LabelSelector) -> str:
    try:
        return all_of(before, label_selector(labels)).text
    except UnreadableError as error:
        return f"unreadable: {error.problem}"
