"""`policy explain`: which tier, policy and rule decide about a connection. What is said about host endpoints
stands in `explain_host`."""

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
from tortie.cli.explain_host import applied_to_host, failsafes_of, host_document, host_text
from tortie.cli.explanations import (
    connection,
    first_line,
    side_document,
    side_lines,
    tier_documents,
    tier_lines,
)
from tortie.cli.objects import Objects
from tortie.cli.reading import DEFAULT_NAMESPACE
from tortie.datastore.interface import Datastore, NotFoundError, UnavailableError
from tortie.model.endpoints import workload_endpoint
from tortie.model.felix import FelixConfiguration
from tortie.model.policies import GlobalNetworkSet, HostEndpoint, NetworkSet, Tier
from tortie.model.policy_natives import EndpointSlice, EndpointSliceV1Beta1, Namespace, ServiceAccount
from tortie.model.policy_values import PROTOCOLS_WITH_PORTS, protocol_name, protocol_number
from tortie.model.resources import Pod, Resource
from tortie.policy.evaluate import Direction
from tortie.policy.explain import Explanation, explain, explain_host
from tortie.policy.explain_host import host_view
from tortie.policy.snapshot import snapshot
from tortie.policy.sources import POLICY_SOURCES
from tortie.policy.state import Address, WorkloadRules

# Everything that a snapshot is made of; endpoint slices come extra, for they have two API versions.
_KINDS: Final[tuple[type[Resource], ...]] = (
    Pod,
    Namespace,
    ServiceAccount,
    NetworkSet,
    GlobalNetworkSet,
    HostEndpoint,
    Tier,
    FelixConfiguration,
    *POLICY_SOURCES,
)


@dataclass(frozen=True, slots=True)
class Question:
    """A pod or a host endpoint, and the ends of a connection (pods or addresses) that are given."""

    namespace: str
    pod: str
    host_endpoint: str = ""
    source: str = ""
    destination: str = ""
    address: str = ""
    protocol: int = 0
    port: int | None = None


@click.group("policy")
def policy() -> None:
    """Network policy."""


@policy.command("explain")
@click.argument("pod", required=False)
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="The POD's.")
@click.option("--from", "source", metavar="POD|ADDRESS", help="Who connects to the POD.")
@click.option("--to", "destination", metavar="POD|ADDRESS", help="To whom the POD connects.")
@click.option("--port", type=click.IntRange(1, 65535), help="The destination's port.")
@click.option("--protocol", default="tcp", show_default=True, help="Name, or number.")
@click.option(
    "--host-endpoint", metavar="NAME", help="Instead of a POD: a HostEndpoint, its node's interface."
)
@click.option("--address", help="The node's address, for a HostEndpoint without expectedIPs.")
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
    pod: str | None,
    namespace: str,
    source: str | None,
    destination: str | None,
    port: int | None,
    protocol: str,
    host_endpoint: str | None,
    address: str | None,
    form: str,
) -> None:
    """Say which tier, policy and rule decide about a connection of POD, or, without --from and --to, which
    policies apply to it. A pod of another namespace is written NAMESPACE/POD.

    With --host-endpoint, about a connection through that interface of its node: --from alone is to the node
    itself, --to alone is from the node, both is what the node forwards."""
    if (pod is None) == (host_endpoint is None):
        raise click.UsageError("Give a POD, or a host endpoint with --host-endpoint NAME.")
    if pod is not None and source and destination:
        raise click.UsageError("Give --from or --to: the other end is the POD.")
    if pod is not None and address:
        raise click.UsageError("--address goes with --host-endpoint: a POD has its own.")
    if address and not _is_address(address):
        raise click.UsageError(f"--address {address!r} must be an IPv4 or IPv6 address.")
    try:
        number = protocol_number(protocol)
    except ValueError as error:
        raise click.UsageError(f"--protocol {protocol!r} {error}") from error
    if port is None and (source or destination) and number in PROTOCOLS_WITH_PORTS:
        raise click.UsageError(
            f"--port is missing: a policy may allow some ports of {protocol_name(number)} and deny others."
        )
    question = Question(
        namespace,
        pod or "",
        host_endpoint or "",
        source or "",
        destination or "",
        address or "",
        number,
        port,
    )

    async def answer(objects: Objects) -> tuple[Document, str]:
        if objects.backend != "kubernetes":
            raise RefusedError(
                "policy explain reads pods, namespaces and services, which only Kubernetes has; name a "
                "kubeconfig"
            )
        return _answer(await _resources(objects.store), question)

    body, text = ask_objects(settings, answer)
    click.echo(text if form == "text" else output.dump(body, form), nl=False)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


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
    source = _end(pods, question, question.source)
    destination = _end(pods, question, question.destination)
    try:
        if question.host_endpoint:
            return _at_host(resources, question, source, destination)
        subject = _pod(pods, question.namespace, question.pod)
        if source is None and destination is None:
            return _applied(resources, subject)
        found = explain(
            resources,
            source=subject if source is None else source,
            destination=subject if destination is None else destination,
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


def _end(pods: dict[tuple[str, str], Pod], question: Question, end: str) -> Pod | Address | None:
    if not end:
        return None
    try:
        return ip_address(end)
    except ValueError:
        namespace, slash, name = end.rpartition("/")
        return _pod(pods, namespace if slash else question.namespace, name)


def _at_host(
    resources: list[Resource],
    question: Question,
    source: Pod | Address | None,
    destination: Pod | Address | None,
) -> tuple[Document, str]:
    """Raise ValueError."""
    name = question.host_endpoint
    if source is None and destination is None:
        return applied_to_host(host_view(resources, name), failsafes_of(resources, name))
    found = explain_host(
        resources,
        name,
        source,
        destination,
        protocol=question.protocol,
        port=question.port,
        failsafes=failsafes_of(resources, name),
        address=ip_address(question.address) if question.address else None,
    )
    return host_document(found), host_text(found)


# --- a connection -------------------------------------------------------------------------------------------


def _document(found: Explanation) -> Document:
    sides = (found.egress, found.ingress)
    return {
        "connection": connection(found.packet),
        "allowed": found.allowed,
        "decisions": [side_document(side) for side in sides if side is not None],
    }


def _text(found: Explanation) -> str:
    sides = [side for side in (found.egress, found.ingress) if side is not None]
    lines = [first_line(found.packet, sides)]
    for side in sides:
        lines += side_lines(side)
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
        "tiers": tier_documents(rules.tiers),
        "profiles": [key.name for key in rules.profiles],
    }
    return body, _applied_text(name, rules)


def _applied_text(name: str, rules: WorkloadRules) -> str:
    lines = [f"{name} on {rules.interface}"]
    for direction in ("ingress", "egress"):
        lines.append(f"{direction}:")
        lines += tier_lines(rules.tiers, Direction(direction.capitalize()))
        profiles = ", ".join(key.name for key in rules.profiles) or "none"
        lines.append(f"    then profiles: {profiles}; what they do not allow is denied")
    return "\n".join(lines) + "\n"
