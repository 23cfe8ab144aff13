"""`policy explain --host-endpoint`: what is said about a node's own interface."""

from collections.abc import Iterable

from tortie.agent.policy_settings import felix_spec, table_settings
from tortie.cli.documents import Document
from tortie.cli.explanations import (
    connection,
    first_line,
    side_document,
    side_lines,
    tier_documents,
    tier_lines,
    verdict_document,
    verdict_lines,
)
from tortie.dataplane.ruleset import Failsafe
from tortie.model.felix import FelixConfiguration
from tortie.model.nodeinfo import BGPNode
from tortie.model.policies import HostEndpoint
from tortie.model.policy_values import protocol_name
from tortie.model.resources import BGPConfigurationSpec, Resource
from tortie.policy.evaluate import Direction
from tortie.policy.explain import HostExplanation
from tortie.policy.explain_host import FailsafePort, Failsafes, HostView, Stage
from tortie.policy.state import TierRules
from tortie.routing.compute import Cluster


def failsafes_of(resources: Iterable[Resource], name: str) -> Failsafes:
    """The failsafe ports of the host endpoint's node, as its agent reads them off FelixConfiguration."""
    objects = list(resources)
    node = next(
        (item.spec.node for item in objects if isinstance(item, HostEndpoint) and item.metadata.name == name),
        "",
    )
    felix = felix_spec((item for item in objects if isinstance(item, FelixConfiguration)), node)
    settings = table_settings(BGPNode(node), Cluster(), felix, BGPConfigurationSpec(), None)
    return Failsafes(_ports(settings.failsafe_inbound), _ports(settings.failsafe_outbound))


def _ports(failsafes: Iterable[Failsafe]) -> tuple[FailsafePort, ...]:
    return tuple(FailsafePort(item.protocol, item.port, item.networks) for item in failsafes)


def host_document(found: HostExplanation) -> Document:
    """A connection through a host endpoint."""
    return {
        "connection": connection(found.packet),
        "hostEndpoint": _endpoint(found.view),
        "forwarded": found.forwarded,
        "allowed": found.allowed,
        "stages": [
            {
                "stage": str(word.stage),
                "direction": str(found.direction),
                "decides": word.decided,
                **verdict_document(word.verdict, rule),
            }
            for word, rule in found.words
        ],
        "decisions": [side_document(side) for side in found.pods],
    }


def host_text(found: HostExplanation) -> str:
    """The same for people: the pods' words where the packet meets them."""
    view = found.view
    way = "forwarded" if found.forwarded else "for the node itself"
    if not found.forwarded and found.direction is Direction.EGRESS:
        way = "sent by the node itself"
    side = "into" if found.direction is Direction.INGRESS else "out of"
    lines = [
        first_line(found.packet, found.pods),
        f"{way}, {side} {view.interface} of {view.node} (HostEndpoint {view.name})",
    ]
    for side_ in found.pods:
        if side_.direction is Direction.EGRESS:
            lines += side_lines(side_)
    for word, rule in found.words:
        lines += verdict_lines(f"{found.direction}, {word.stage} policy", word.verdict, rule)
    for side_ in found.pods:
        if side_.direction is Direction.INGRESS:
            lines += side_lines(side_)
    lines.append(f"Verdict: {'allowed' if found.allowed else 'denied'}")
    return "\n".join(lines) + "\n"


def applied_to_host(view: HostView, failsafes: Failsafes) -> tuple[Document, str]:
    """Everything that applies to a host endpoint, by stage and in order."""
    layers = {
        Stage.UNTRACKED: view.rules.untracked,
        Stage.PRE_DNAT: view.rules.pre_dnat,
        Stage.NORMAL: view.rules.normal,
        Stage.FORWARD: view.rules.forward,
    }
    profiles = [key.name for key in view.rules.profiles]
    body = {
        "hostEndpoint": _endpoint(view),
        "stages": [{"stage": str(stage), "tiers": tier_documents(tiers)} for stage, tiers in layers.items()],
        "profiles": profiles,
        "failsafePorts": {
            "inbound": [_failsafe(item) for item in failsafes.inbound],
            "outbound": [_failsafe(item) for item in failsafes.outbound],
        },
    }
    lines = [f"HostEndpoint {view.name}: {view.interface} of {view.node}"]
    for direction, ports in ((Direction.INGRESS, failsafes.inbound), (Direction.EGRESS, failsafes.outbound)):
        lines.append(f"{direction.lower()}:")
        for stage, tiers in layers.items():
            if stage is Stage.NORMAL:
                shown = ", ".join(_failsafe(item) for item in ports) or "none"
                lines.append(f"    for the node itself, failsafe ports first: {shown}")
                lines += _indented(tiers, direction, stage)
                lines.append(f"        then profiles: {', '.join(profiles) or 'none'}; else denied")
                continue
            listed = _indented(tiers, direction, stage)
            if listed or stage is Stage.FORWARD:
                what = "for what the node forwards" if stage is Stage.FORWARD else f"with {stage}, before all"
                lines += [f"    {what}:", *(listed or ["        no policy: allowed"])]
    return body, "\n".join(lines) + "\n"


def _indented(tiers: tuple[TierRules, ...], direction: Direction, stage: Stage) -> list[str]:
    ends = stage in (Stage.NORMAL, Stage.FORWARD)  # the others' tiers have no verdict of their own
    return [f"    {line}" for line in tier_lines(tiers, direction, verdicts=ends)]


def _endpoint(view: HostView) -> Document:
    return {"name": view.name, "node": view.node, "interface": view.interface}


def _failsafe(item: FailsafePort) -> str:
    networks = f" ({', '.join(map(str, item.networks))})" if item.networks else ""
    return f"{protocol_name(item.protocol)} {item.port}{networks}"
