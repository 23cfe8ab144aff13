"""`tortiectl ipam`: look at addresses, check them against the cluster, release, split pools, configure."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import msgspec

from tortie.cli import ipam_check, ipam_report, ipam_split
from tortie.cli.connection import Settings, ask
from tortie.controllers.picture import Picture, PodFacts, by_network, judge
from tortie.datastore.interface import AlreadyExistsError, Datastore, NotFoundError
from tortie.ipam import block as blocks
from tortie.ipam.allocator import Allocator
from tortie.ipam.block import BlockError, Network
from tortie.ipam.migration import HOST_LOCAL_DIR, migrate
from tortie.ipam.releases import Releases
from tortie.ipam.request import Address
from tortie.model.constants import ANNOTATION_IPIP_TUNNEL, ANNOTATION_VXLAN_TUNNEL
from tortie.model.resources import (
    BlockAffinity,
    ClusterInformation,
    IPAMBlock,
    IPAMConfig,
    IPAMConfigSpec,
    IPAMHandle,
    IPPool,
    Metadata,
    Node,
    Pod,
)

_TUNNEL_ANNOTATIONS = (
    ANNOTATION_IPIP_TUNNEL,
    ANNOTATION_VXLAN_TUNNEL,
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "projectcalico.org/IPv6WireguardInterfaceAddr",
)


class _AddressType(click.ParamType[Address]):
    """An IPv4 or IPv6 address."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return ip_address(value)
        except ValueError:
            self.fail(f"{value!r} is neither an IPv4 nor an IPv6 address", param, ctx)


ADDRESS = _AddressType()


@click.group()
def ipam() -> None:
    """Address management."""


# --- show -------------------------------------------------------------------------------------------------


@ipam.command("show")
@click.option("--ip", "address", type=ADDRESS, help="Who holds this address.")
@click.option("--show-blocks", is_flag=True, help="The blocks of each pool, too.")
@click.option("--show-borrowed", is_flag=True, help="Addresses that nodes hold in blocks of others.")
@click.option("--show-configuration", is_flag=True, help="What `configure` sets.")
@click.pass_obj
def show(
    settings: Settings,
    address: Address | None,
    show_blocks: bool,
    show_borrowed: bool,
    show_configuration: bool,
) -> None:
    """How full the pools are, who holds an address, who borrows, and the configuration."""

    async def question(store: Datastore) -> str:
        if show_configuration:
            return ipam_report.configuration_table((await _config(store)).spec)
        pools, stored = await asyncio.gather(store.list(IPPool), store.list(IPAMBlock))
        if address is not None:
            return ipam_report.holder(address, pools.items, stored.items)
        if show_borrowed:
            return ipam_report.borrowed_table(stored.items)
        return ipam_report.usage_table(ipam_report.usages(pools.items, stored.items, show_blocks))

    click.echo(ask(settings, question), nl=False)


# --- check ------------------------------------------------------------------------------------------------


@ipam.command("check")
@click.option("--show-all-ips", is_flag=True, help="Every address that is allocated.")
@click.option("--show-problem-ips", is_flag=True, help="Each problem, not only their number.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a report there, for `release --from-report`.",
)
@click.pass_obj
def check(settings: Settings, show_all_ips: bool, show_problem_ips: bool, output: Path | None) -> None:
    """Compare what is allocated with what pods and nodes use."""

    async def question(store: Datastore) -> tuple[Picture, ipam_check.Report, str]:
        seen, tunnels = await _picture(store)
        return seen, ipam_check.check(seen, tunnels), await _cluster(store)

    seen, report, cluster = ask(settings, question)
    if output is not None:
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        document = ipam_check.document_of(report, cluster, created)
        try:
            output.write_text(json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise click.ClickException(f"The report cannot be written to {output}: {error}") from error
    click.echo(ipam_check.text_of(report, seen, show_all_ips, show_problem_ips), nl=False)


async def _picture(store: Datastore) -> tuple[Picture, dict[str, frozenset[Address]]]:
    """Blocks before pods: a pod that is missing did not exist when the address was held."""
    nodes = (await store.list(Node)).items
    pools = (await store.list(IPPool)).items
    affinities = (await store.list(BlockAffinity)).items
    handles = (await store.list(IPAMHandle)).items
    stored = (await store.list(IPAMBlock)).items
    pods = (await store.list(Pod)).items
    seen = Picture(
        nodes=frozenset(node.metadata.name for node in nodes),
        pods={(pod.metadata.namespace, pod.metadata.name): PodFacts.of(pod) for pod in pods},
        blocks=by_network(stored),
        affinities=tuple(affinities),
        handles=tuple(handles),
        pools=tuple(pools),
    )
    return seen, {node.metadata.name: frozenset(_tunnels(node)) for node in nodes}


def _tunnels(node: Node) -> list[Address]:
    found: list[Address] = []
    for name in _TUNNEL_ANNOTATIONS:
        with suppress(ValueError):
            found.append(ip_address(node.metadata.annotations.get(name, "")))
    return found


async def _cluster(store: Datastore) -> str:
    try:
        return (await store.get(ClusterInformation, "default")).spec.cluster_guid
    except NotFoundError:
        return ""


# --- release ----------------------------------------------------------------------------------------------


@ipam.command("release")
@click.option("--ip", "address", type=ADDRESS, help="Release this address, whoever uses it.")
@click.option(
    "--from-report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Release what a report of `check` calls unused; repeated: what all of them do.",
)
@click.option("--force", is_flag=True, help="Take reports of another cluster.")
@click.pass_obj
def release(settings: Settings, address: Address | None, reports: tuple[Path, ...], force: bool) -> None:
    """Release an address that nobody uses.

    With --from-report, an address is released only if the allocation is still the reported one, and still
    nobody uses it. With --ip, nothing is asked: a pod that uses the address will share it with another one.
    """
    if (address is None) == (not reports):
        raise click.UsageError("Give either --ip or --from-report.")
    if address is not None:
        click.echo(ask(settings, lambda store: _release_one(store, address)))
        return
    read = [_read(path) for path in reports]
    click.echo(ask(settings, lambda store: _release_reported(store, read, force)))


def _read(path: Path) -> ipam_check.Reported:
    try:
        return ipam_check.read_report(path.read_bytes())
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path} is no report of `ipam check -o`: {error}") from error


async def _release_one(store: Datastore, address: Address) -> str:
    cidr = await _block_with(store, address)
    freed = await Releases(store).release(cidr, {address: None}) if cidr is not None else []
    if freed:
        return f"Successfully released IP address {address}"
    raise click.ClickException(f"IP address {address} is not assigned")


async def _block_with(store: Datastore, address: Address) -> Network | None:
    listed = by_network((await store.list(IPAMBlock)).items)
    return next((cidr for cidr in listed if address in cidr), None)


async def _release_reported(store: Datastore, reports: list[ipam_check.Reported], force: bool) -> str:
    cluster = await _cluster(store)
    strange = {report.cluster for report in reports} - {cluster}
    if strange and not force:
        raise click.ClickException(
            f"The report is of cluster {', '.join(sorted(strange)) or '(unknown)'}, this is {cluster}; use "
            "a report of this cluster, or --force."
        )
    wanted = ipam_check.in_all(reports)
    seen, _tunnels_of_nodes = await _picture(store)
    releases = Releases(store)
    released: list[Address] = []
    for allocation in seen.allocations():
        sequence = wanted.get(allocation.address, -1)
        pod = seen.pods.get(allocation.pod) if allocation.pod else None
        if (
            sequence != allocation.sequence
            or judge(allocation, allocation.node in seen.nodes, pod) == "valid"
        ):
            continue
        try:
            released += await releases.release(allocation.block, {allocation.address: allocation.sequence})
        except BlockError as error:
            click.echo(f"Left alone: {error}", err=True)
    lines = [f"Released {address}" for address in sorted(released, key=blocks.position)]
    lines.append(f"Released {len(released)} of {len(wanted)} reported addresses.")
    return "\n".join(lines)


# --- split ------------------------------------------------------------------------------------------------


@ipam.command("split")
@click.argument("number", type=int)
@click.option("--cidr", help="The pool with this CIDR.")
@click.option("--name", help="The pool with this name.")
@click.pass_obj
def split(settings: Settings, number: int, cidr: str | None, name: str | None) -> None:
    """Replace a pool by NUMBER pools of equal size. Lock the datastore first (datastore migrate lock)."""
    if (cidr is None) == (name is None):
        raise click.UsageError("Give either --cidr or --name.")

    async def question(store: Datastore) -> list[IPPool]:
        information = await store.get(ClusterInformation, "default")
        if information.spec.datastore_ready is not False:
            raise click.ClickException(
                "The datastore is not locked: addresses could be assigned while the pool changes. "
                "Run `tortiectl datastore migrate lock` first, and `unlock` afterwards."
            )
        try:
            pool = ipam_split.chosen((await store.list(IPPool)).items, name, cidr)
            made = ipam_split.parts(pool, number)
        except ipam_split.SplitError as error:
            raise click.ClickException(f"{error}.") from error
        for part in made:  # before the pool goes: a crash in between leaves too many pools, not too few
            with suppress(AlreadyExistsError):
                await store.create(part)
        await store.delete(pool)
        return made

    for part in ask(settings, question):
        click.echo(f"Created IPPool {part.metadata.name} ({part.spec.cidr})")
    click.echo("Successfully split the pool. Unlock the datastore: tortiectl datastore migrate unlock")


# --- configure --------------------------------------------------------------------------------------------


@ipam.command("configure")
@click.option("--strictaffinity", type=bool, help="true: a node takes addresses of its own blocks only.")
@click.option("--max-blocks-per-host", type=click.IntRange(0), help="Of each family; 0 means 20.")
@click.option(
    "--ip-cooldown-seconds",
    type=click.IntRange(0, 1200),
    help="For how long a released address is given to nobody.",
)
@click.pass_obj
def configure(
    settings: Settings,
    strictaffinity: bool | None,
    max_blocks_per_host: int | None,
    ip_cooldown_seconds: int | None,
) -> None:
    """Change how addresses are allocated, in the whole cluster."""
    wanted = {
        "StrictAffinity": ("strict_affinity", strictaffinity),
        "MaxBlocksPerHost": ("max_blocks_per_host", max_blocks_per_host),
        "IPCooldownSeconds": ("ip_cooldown_seconds", ip_cooldown_seconds),
    }
    changes = {field: value for field, value in wanted.values() if value is not None}
    if not changes:
        raise click.UsageError("Give at least one option; `ipam show --show-configuration` shows the values.")

    async def question(store: Datastore) -> None:
        config = await _config(store)
        spec = msgspec.structs.replace(config.spec, **changes)
        problem = config_problem(spec)
        if problem:
            raise click.ClickException(problem)
        changed = msgspec.structs.replace(config, spec=spec)
        if config.metadata.resource_version:
            await store.update(changed)
        else:
            await store.create(changed)

    ask(settings, question)
    for title, (_field, value) in wanted.items():
        if value is not None:
            click.echo(f"Successfully set {title} to: {str(value).lower()}")


async def _config(store: Datastore) -> IPAMConfig:
    """What is stored, or what holds when nothing is."""
    try:
        return await store.get(IPAMConfig, "default")
    except NotFoundError:
        return IPAMConfig(metadata=Metadata(name="default"), spec=IPAMConfigSpec())


def config_problem(spec: IPAMConfigSpec) -> str:
    """Why a configuration contradicts itself; empty when it does not."""
    if spec.max_blocks_per_host and not spec.strict_affinity:
        return (
            f"MaxBlocksPerHost {spec.max_blocks_per_host} needs StrictAffinity true, or nodes would borrow "
            "without limit: add --strictaffinity=true, or set --max-blocks-per-host=0."
        )
    if not spec.strict_affinity and not spec.auto_allocate_blocks:
        return (
            "StrictAffinity false does not go with AutoAllocateBlocks false: nodes would only borrow. "
            "Set one of them to true in the IPAMConfig named default."
        )
    return ""


# --- migrate-host-local -------------------------------------------------------------------------------------


@ipam.command("migrate-host-local")
@click.option("--node", required=True, help="This node's name in Kubernetes.")
@click.option(
    "--network", default="k8s-pod-network", show_default=True, help="Name of the CNI configuration."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=HOST_LOCAL_DIR,
    show_default=True,
    help="Where host-local keeps its files.",
)
@click.pass_obj
def migrate_host_local(settings: Settings, node: str, network: str, directory: Path) -> None:
    """Keep the addresses that the host-local plugin gave to this node's pods.

    Run it on each node, as root, when the pool exists and before the node's CNI configuration changes from
    host-local to this network. Repeating it changes nothing.
    """
    try:
        result = ask(settings, lambda store: migrate(Allocator(store, node), node, network, directory))
    except OSError as error:
        raise click.ClickException(f"host-local's files cannot be read: {error}") from error
    click.echo(f"Took over {len(result.addresses)} addresses of network {network}.")
    if result.refused:
        raise click.ClickException("\n".join(["Not taken over:", *result.refused]))
