"""`policy explain`: which tier, policy and rule decide about a connection."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import click

from tortie.cli import output
from tortie.cli.connection import Settings, ask_objects
from tortie.cli.constraints import RefusedError
from tortie.cli.documents import Document
from tortie.cli.objects import Objects
from tortie.cli.reading import DEFAULT_NAMESPACE
from tortie.datastore.interface import Datastore, NotFoundError, UnavailableError
from tortie.model.endpoints import workload_endpoint
from tortie.model.policies import GlobalNetworkSet, HostEndpoint, NetworkSet, Tier
from tortie.model.policy_natives import EndpointSlice, EndpointSliceV1Beta1, Namespace, ServiceAccount
from tortie.model.policy_values import PROTOCOLS_WITH_PORTS, protocol_name, protocol_number
from tortie.model.resources import Pod, Resource
from tortie.policy.evaluate import Step, describe
from tortie.policy.explain import Explained, Explanation, explain
from tortie.policy.snapshot import snapshot
from tortie.policy.sources import POLICY_SOURCES
from tortie.policy.state import Address, PolicyKey, WorkloadRules

# Everything that a snapshot is made of; endpoint slices come extra, for they have two API versions.
_KINDS: Final[tuple[type[Resource], ...]] = (
    Pod,
    Namespace,
    ServiceAccount,
    NetworkSet,
    GlobalNetworkSet,
    HostEndpoint,
    Tier,
    *POLICY_SOURCES,
)


@dataclass(frozen=True, slots=True)
class Question:
    """A pod, and the other end of a connection from it (`outgoing`) or to it, if there is one."""

    namespace: str
    pod: str
    other: str = ""
    outgoing: bool = False
    protocol: int = 0
    port: int | None = None


@click.group("policy")
def policy() -> None:
    """Network policy."""


@policy.command("explain")
@click.argument("pod")
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="The POD's.")
@click.option("--from", "source", metavar="POD|ADDRESS", help="Who connects to the POD.")
@click.option("--to", "destination", metavar="POD|ADDRESS", help="To whom the POD connects.")
@click.option("--port", type=click.IntRange(1, 65535), help="The destination's port.")
@click.option("--protocol", default="tcp", show_default=True, help="Name, or number.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "yaml", "json"]),
    default="text",
    show_default=True,
)
@click.pass_obj
def explain_command(
    settings: Settings,
    pod: str,
    namespace: str,
    source: str | None,
    destination: str | None,
    port: int | None,
    protocol: str,
    form: str,
) -> None:
    """Say which tier, policy and rule decide about a connection of POD, or, without --from and --to, which
    policies apply to it. A pod of another namespace is written NAMESPACE/POD."""
    if source and destination:
        raise click.UsageError("Give --from or --to: the other end is the POD.")
    try:
        number = protocol_number(protocol)
    except ValueError as error:
        raise click.UsageError(f"--protocol {protocol!r} {error}") from error
    if port is None and (source or destination) and number in PROTOCOLS_WITH_PORTS:
        raise click.UsageError(
            f"--port is missing: a policy may allow some ports of {protocol_name(number)} and deny others."
        )
    question = Question(namespace, pod, source or destination or "", bool(destination), number, port)

    async def answer(objects: Objects) -> tuple[Document, str]:
        if objects.backend != "kubernetes":
            raise RefusedError(
                "policy explain reads pods, namespaces and services, which only Kubernetes has; name a "
                "kubeconfig"
            )
        return _answer(await _resources(objects.store), question)

    body, text = ask_objects(settings, answer)
    click.echo(text if form == "text" else output.dump(body, form), nl=False)


async def _resources(store: Datastore) -> list[Resource]:
    """Every object that policy reads. Raise a DatastoreError."""
    found = await asyncio.gather(*(_items(store, kind) for kind in _KINDS), _slices(store))
    return [item for items in found for item in items]


async def _items(store: Datastore, kind: type[Resource]) -> Sequence[Resource]:
    return (await store.list(kind)).items


async def _slices(store: Datastore) -> Sequence[Resource]:
    """discovery.k8s.io/v1, or v1beta1 of API servers before 1.21."""
    try:
        return (await store.list(EndpointSlice)).items
    except (NotFoundError, UnavailableError):  # both are answers to a version that the server does not know
        return (await store.list(EndpointSliceV1Beta1)).items


def _answer(resources: list[Resource], question: Question) -> tuple[Document, str]:
    """The answer as a document and as text. Raise RefusedError."""
    pods = {
        (item.metadata.namespace, item.metadata.name): item for item in resources if isinstance(item, Pod)
    }
    subject = _pod(pods, question.namespace, question.pod)
    try:
        if not question.other:
            return _applied(resources, subject)
        other = _end(pods, question)
        found = explain(
            resources,
            source=subject if question.outgoing else other,
            destination=other if question.outgoing else subject,
            protocol=question.protocol,
            port=question.port,
        )
    except ValueError as error:
        raise RefusedError(str(error)) from error
    return _document(found), _text(found)


def _pod(pods: dict[tuple[str, str], Pod], namespace: str, name: str) -> Pod:
    found = pods.get((namespace, name))
    if found is None:
        elsewhere = sorted(space for space, pod in pods if pod == name)
        hint = f"; there is one in {', '.join(elsewhere)}" if elsewhere else ""
        raise RefusedError(f"Pod {namespace}/{name} does not exist{hint}")
    return found


def _end(pods: dict[tuple[str, str], Pod], question: Question) -> Pod | Address:
    try:
        return ip_address(question.other)
    except ValueError:
        namespace, slash, name = question.other.rpartition("/")
        return _pod(pods, namespace if slash else question.namespace, name)


# --- a connection -------------------------------------------------------------------------------------------


def _document(found: Explanation) -> Document:
    packet = found.packet
    return {
        "connection": {
            "source": str(packet.source),
            "destination": str(packet.destination),
            "protocol": protocol_name(packet.protocol),
            **({"port": packet.destination_port} if packet.destination_port is not None else {}),
        },
        "allowed": found.allowed,
        "decisions": [_side(side) for side in (found.egress, found.ingress) if side is not None],
    }


def _side(side: Explained) -> Document:
    verdict = side.verdict
    decided = {"tier": verdict.tier} if verdict.tier else {}
    if verdict.policy is not None:
        decided |= _key(verdict.policy)
    if side.rule:
        decided["rule"] = side.rule
    return {
        "direction": str(side.direction),
        "pod": side.pod,
        "namespace": side.namespace,
        "allowed": verdict.allowed,
        "reason": verdict.reason,
        "decidedBy": decided,
        "steps": [_step(step) for step in verdict.steps],
    }


def _step(step: Step) -> Document:
    return {**_key(step.policy), "tier": step.tier, "rule": step.rule, "action": str(step.action)}


def _key(key: PolicyKey) -> Document:
    return {"kind": key.kind, "name": key.name, **({"namespace": key.namespace} if key.namespace else {})}


def _text(found: Explanation) -> str:
    packet = found.packet
    ends = [
        f"{address}{f' ({side.namespace}/{side.pod})' if side is not None else ''}"
        for address, side in ((packet.source, found.egress), (packet.destination, found.ingress))
    ]
    port = f" port {packet.destination_port}" if packet.destination_port is not None else ""
    lines = [f"{protocol_name(packet.protocol)} from {ends[0]} to {ends[1]}{port}"]
    for side in (found.egress, found.ingress):
        if side is None:
            continue
        verdict = side.verdict
        word = "allowed" if verdict.allowed else "denied"
        lines.append(f"{side.direction} of {side.namespace}/{side.pod}: {word}. {verdict.reason}")
        if side.rule:
            lines.append(f"    rule: {side.rule}")
        passed = [step for step in verdict.steps[:-1] if step.policy != verdict.policy or step.tier]
        lines += [f"    before: {describe(step.policy)} says {step.action}" for step in passed]
    lines.append(f"Verdict: {'allowed' if found.allowed else 'denied'}")
    return "\n".join(lines) + "\n"


# --- what applies -------------------------------------------------------------------------------------------


def _applied(resources: list[Resource], pod: Pod) -> tuple[Document, str]:
    """The tiers, policies and profiles of a pod, in order. Raise ValueError when it has no endpoint."""
    name = f"{pod.metadata.namespace}/{pod.metadata.name}"
    endpoint = workload_endpoint(pod)
    if endpoint is None:
        raise ValueError(
            f"Pod {name} has no address of the pod network: it is not started, finished, or uses its node's."
        )
    rules = snapshot(resources, endpoint.spec.node).workloads[endpoint.spec.interface_name]
    body = {
        "pod": pod.metadata.name,
        "namespace": pod.metadata.namespace,
        "interface": rules.interface,
        "tiers": [
            {
                "name": tier.name,
                "defaultAction": "Pass" if tier.default_pass else "Deny",
                "ingress": [_key(key) for key in tier.ingress],
                "egress": [_key(key) for key in tier.egress],
            }
            for tier in rules.tiers
        ],
        "profiles": [key.name for key in rules.profiles],
    }
    return body, _applied_text(name, rules)


def _applied_text(name: str, rules: WorkloadRules) -> str:
    lines = [f"{name} on {rules.interface}"]
    for direction in ("ingress", "egress"):
        lines.append(f"{direction}:")
        for tier in rules.tiers:
            keys = tier.ingress if direction == "ingress" else tier.egress
            if keys:
                end = "goes on to the next tier" if tier.default_pass else "denied"
                lines.append(f"    tier {tier.name} (what no policy of it decides: {end})")
                lines += [f"        {describe(key)}" for key in keys]
        profiles = ", ".join(key.name for key in rules.profiles) or "none"
        lines.append(f"    then profiles: {profiles}; what they do not allow is denied")
    return "\n".join(lines) + "\n"
