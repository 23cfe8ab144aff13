"""tortiectl, also installed as calicoctl: what the network looks like, for people and scripts.

Output goes to stdout, errors go to stderr. Exit status 1: something failed or was not found; 2: the command
line was wrong.
"""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

import click
import yaml

from tortie import __version__
from tortie.bgp.control import BirdControl, BirdError
from tortie.cli import ipam_report, kinds, peers, tables
from tortie.datastore.interface import Datastore, DatastoreError, Listing, NotFoundError
from tortie.datastore.kubernetes import connect
from tortie.model.constants import BIRD_SOCKET, DEFAULT_AS_NUMBER
from tortie.model.resources import BGPConfiguration, ClusterInformation, IPAMBlock, IPPool, Node, Resource

T = TypeVar("T")
LOG_LEVELS = ("debug", "info", "warning", "error", "fatal", "panic")
USER_KUBECONFIG = Path("~/.kube/config")


@dataclass(frozen=True, slots=True)
class Settings:
    """Global options. Without `kubeconfig`: KUBECONFIG, a pod's own cluster, ~/.kube/config, in turn."""

    kubeconfig: Path | None

    def effective_kubeconfig(self) -> Path | None:
        """The file to hand to connect()."""
        if self.kubeconfig or os.environ.get("KUBECONFIG") or os.environ.get("KUBERNETES_SERVICE_HOST"):
            return self.kubeconfig
        default = USER_KUBECONFIG.expanduser()
        return default if default.exists() else None


def ask(settings: Settings, question: Callable[[Datastore], Awaitable[T]]) -> T:
    """Put a question to the datastore. Its errors become a message and exit status 1."""

    async def session() -> T:
        store = await connect(settings.effective_kubeconfig())
        try:
            return await question(store)
        finally:
            await store.close()

    try:
        return asyncio.run(session())
    except DatastoreError as error:
        raise click.ClickException(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Credentials of the cluster."
)
@click.option(
    "-l",
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="panic",
    show_default=True,
    help="Least severity of what is logged to stderr.",
)
@click.pass_context
def main(context: click.Context, kubeconfig: Path | None, log_level: str) -> None:
    """Look at Tortie's network: nodes, pools, blocks, endpoints and BGP sessions."""
    level = (
        logging.CRITICAL
        if log_level in ("fatal", "panic")
        else logging.getLevelNamesMapping()[log_level.upper()]
    )
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    context.obj = Settings(kubeconfig)


@main.command()
@click.argument("kind")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-o", "--output", type=click.Choice(["ps", "wide", "yaml", "json"]), default="ps", show_default=True
)
@click.option("-n", "--namespace", default="default", show_default=True, help="For namespaced kinds.")
@click.option("-A", "--all-namespaces", is_flag=True, help="For namespaced kinds: all of them.")
@click.pass_obj
def get(
    settings: Settings, kind: str, names: tuple[str, ...], output: str, namespace: str, all_namespaces: bool
) -> None:
    """Show objects: nodes, ippools, blockaffinities or workloadendpoints."""
    try:
        wanted = kinds.kind_named(kind)
    except kinds.UnknownKindError as error:
        raise click.ClickException(str(error)) from error
    scope = "" if all_namespaces or not wanted.namespaced else namespace

    async def question(store: Datastore) -> tuple[Listing[Resource], int]:
        listing = await store.list(wanted.stored, namespace=scope)
        as_number = await cluster_as_number(store) if wanted.stored is Node else DEFAULT_AS_NUMBER
        return listing, as_number

    listing, as_number = ask(settings, question)
    items = wanted.items(listing.items, as_number)
    if names:
        items = [item for item in items if item.name in names]
    show(wanted, items, listing.resource_version, output, single=len(names) == 1, spaces=all_namespaces)
    missing = sorted(set(names) - {item.name for item in items})
    if missing:
        place = f" in namespace {scope}" if scope else ""
        raise click.ClickException(f"no {wanted.title} named {', '.join(missing)}{place}")


async def cluster_as_number(store: Datastore) -> int:
    """The AS number of nodes that have none of their own."""
    try:
        return (await store.get(BGPConfiguration, "default")).spec.as_number
    except NotFoundError:
        return DEFAULT_AS_NUMBER


def show(
    kind: kinds.Kind,
    items: Sequence[kinds.Item],
    resource_version: str,
    output: str,
    single: bool,
    spaces: bool,
) -> None:
    """Print items. `single`: one name was asked for, so the object itself stands for the list."""
    if output in ("ps", "wide"):
        headings = list(kind.wide if output == "wide" else kind.headings)
        if kind.namespaced and spaces:
            headings.insert(0, "NAMESPACE")
        rows = [[item.cells[heading] for heading in headings] for item in items]
        click.echo(tables.columns(headings, rows), nl=False)
        return
    if single and not items:
        return
    document = items[0].document if single else kinds.document_list(kind, items, resource_version)
    if output == "json":
        click.echo(json.dumps(document, indent=2, sort_keys=True))
    else:
        click.echo(yaml.safe_dump(document, sort_keys=True), nl=False)


@main.group()
def node() -> None:
    """This node."""


@node.command("status")
@click.option(
    "--bird-socket",
    type=click.Path(path_type=Path),
    default=BIRD_SOCKET,
    show_default=True,
    help="BIRD's control socket.",
)
def node_status(bird_socket: Path) -> None:
    """BGP sessions of this node. Run it on the node as root, or in its calico-node pod."""
    try:
        sessions = BirdControl(bird_socket).peers()
    except BirdError as error:
        raise click.ClickException(
            f"Calico process is not running. {error}. Look at the node's calico-node pod; run this as root."
        ) from error
    click.echo(peers.status_report(sessions), nl=False)


@main.group()
def ipam() -> None:
    """Address management."""


@ipam.command("show")
@click.option("--show-blocks", is_flag=True, help="The blocks of each pool, too.")
@click.option("--ip", "address", type=IPv4Address, help="Who holds this address.")
@click.pass_obj
def ipam_show(settings: Settings, show_blocks: bool, address: IPv4Address | None) -> None:
    """How full the pools are, or who holds an address."""

    async def question(store: Datastore) -> tuple[list[IPPool], list[IPAMBlock]]:
        pools, blocks = await asyncio.gather(store.list(IPPool), store.list(IPAMBlock))
        return pools.items, blocks.items

    pools, blocks = ask(settings, question)
    if address is None:
        text = ipam_report.usage_table(ipam_report.usages(pools, blocks, show_blocks))
    else:
        text = ipam_report.holder(address, pools, blocks)
    click.echo(text, nl=False)


@main.command()
@click.option("--client", is_flag=True, help="Do not ask the cluster.")
@click.pass_obj
def version(settings: Settings, client: bool) -> None:
    """Version of this program and of the cluster's network."""
    click.echo(f"Client Version:    {__version__}")
    if client:
        return

    async def question(store: Datastore) -> ClusterInformation:
        return await store.get(ClusterInformation, "default")

    spec = ask(settings, question).spec
    click.echo(f"Cluster Version:   {spec.calico_version or 'unknown'}")
    click.echo(f"Cluster Type:      {spec.cluster_type or 'unknown'}")


if __name__ == "__main__":
    main()
