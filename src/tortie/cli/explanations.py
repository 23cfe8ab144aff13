"""What `policy explain` says of pods and host endpoints alike, as parts of documents and as lines."""

from collections.abc import Iterable, Sequence

from tortie.cli.documents import Document
from tortie.model.policy_values import protocol_name
from tortie.policy.evaluate import Direction, Packet, Step, Verdict, describe
from tortie.policy.explain import Explained
from tortie.policy.state import PolicyKey, TierRules


def connection(packet: Packet) -> Document:
    """The connection that is asked about."""
    return {
        "source": str(packet.source),
        "destination": str(packet.destination),
        "protocol": protocol_name(packet.protocol),
        **({"port": packet.destination_port} if packet.destination_port is not None else {}),
    }


def first_line(packet: Packet, sides: Iterable[Explained]) -> str:
    """The same for people, with the names of pods."""
    names = {side.direction: f" ({side.namespace}/{side.pod})" for side in sides}
    port = f" port {packet.destination_port}" if packet.destination_port is not None else ""
    source = f"{packet.source}{names.get(Direction.EGRESS, '')}"
    destination = f"{packet.destination}{names.get(Direction.INGRESS, '')}"
    return f"{protocol_name(packet.protocol)} from {source} to {destination}{port}"


def side_document(side: Explained) -> Document:
    """A pod's word."""
    return {
        "direction": str(side.direction),
        "pod": side.pod,
        "namespace": side.namespace,
        **verdict_document(side.verdict, side.rule),
    }


def side_lines(side: Explained) -> list[str]:
    """A pod's word."""
    return verdict_lines(f"{side.direction} of {side.namespace}/{side.pod}", side.verdict, side.rule)


def verdict_document(verdict: Verdict, rule: str) -> Document:
    """A verdict; `rule` is the path of the rule that decides, if one does."""
    decided = {"tier": verdict.tier} if verdict.tier else {}
    if verdict.policy is not None:
        decided |= key_document(verdict.policy)
    if rule:
        decided["rule"] = rule
    return {
        "allowed": verdict.allowed,
        "reason": verdict.reason,
        "decidedBy": decided,
        "steps": [_step(step) for step in verdict.steps],
    }


def verdict_lines(who: str, verdict: Verdict, rule: str) -> list[str]:
    """A verdict, and beneath it the rule that decides and those that matched before."""
    lines = [f"{who}: {'allowed' if verdict.allowed else 'denied'}. {verdict.reason}"]
    if rule:
        lines.append(f"    rule: {rule}")
    passed = [step for step in verdict.steps[:-1] if step.policy != verdict.policy or step.tier]
    return lines + [f"    before: {describe(step.policy)} says {step.action}" for step in passed]


def _step(step: Step) -> Document:
    return {**key_document(step.policy), "tier": step.tier, "rule": step.rule, "action": str(step.action)}


def key_document(key: PolicyKey) -> Document:
    """A policy's kind and name."""
    return {"kind": key.kind, "name": key.name, **({"namespace": key.namespace} if key.namespace else {})}


def tier_documents(tiers: Iterable[TierRules]) -> list[Document]:
    """Tiers with their policies, in order."""
    return [
        {
            "name": tier.name,
            "defaultAction": "Pass" if tier.default_pass else "Deny",
            "ingress": [key_document(key) for key in tier.ingress],
            "egress": [key_document(key) for key in tier.egress],
        }
        for tier in tiers
    ]


def tier_lines(tiers: Sequence[TierRules], direction: Direction, *, verdicts: bool = True) -> list[str]:
    """Tiers of one direction with their policies; `verdicts`: and what becomes of what they do not decide."""
    lines = []
    for tier in tiers:
        keys = tier.ingress if direction is Direction.INGRESS else tier.egress
        if not keys:
            continue
        end = "goes on to the next tier" if tier.default_pass else "denied"
        shown = f" (what no policy of it decides: {end})" if verdicts else ""
        lines.append(f"    tier {tier.name}{shown}")
        lines += [f"        {describe(key)}" for key in keys]
    return lines
